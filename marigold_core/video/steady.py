"""Depth of successive frames brought into one frame of scale and shift, and its flicker taken out along the motion.

Affine depth of every frame has a scale and a shift of its own. Both are fitted to the maps of the last frames, each
moved to the present one by optical flow. Then every pixel is averaged with its own past, where the flow is consistent
and the depth did not really change. At a cut all of it begins anew. Only the last ``window`` maps are held.
"""

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from marigold_core.settings import Kind
from marigold_core.video.settings import VideoSettings

THUMBNAIL = (32, 18)
CUT = 0.5  # mean difference of thumbnails, in standard deviations, from which on a frame may be another scene's
LOST = 0.5  # share of pixels that a cut leaves without a consistent flow
DETAIL = (64, 36)  # size at which what is carried along is compared with what is seen
FADED = 0.7  # correlation of the two from which on a scene has faded; pans, zooms and what passes by leave .77 or more
REPLACED = 0.6  # change of a pixel, in standard deviations of its picture, from which on another thing is seen there
RENEWED = 0.01  # share of what is carried that each frame renews, so that light may change in the course of minutes
BLANK = 3.0  # standard deviation of a picture of one colour, of 255: it shows nothing that can be followed
FLOW_ERROR_PX = 1.5  # forward and backward flow may miss each other by this, or a tenth of their length
COLOUR_ERROR = 0.08  # by which a pixel may change its brightness on its way
DEPTH_CHANGE = 0.12  # of the depth range: what moves by more has really changed
PULL = 0.02  # share of the way back to a frame's own scale and shift: fits to fits would drift without bound
LEAST_PIXELS = 64


@dataclass
class Steadied:
    """One frame's map after alignment and averaging."""

    values: np.ndarray  # [h, w] float32 in the clip's frame
    scale: float
    shift: float
    is_cut: bool  # whether another scene begins here


@dataclass
class Past:
    """What is remembered of the frames before, all moved to the last one's place."""

    picture: np.ndarray  # [h, w] uint8 grey
    carried: np.ndarray  # [h, w] float32, standardised grey since the last cut, taken along by the motion
    average: np.ndarray  # [h, w] float32, the steadied map
    maps: list[np.ndarray] = field(default_factory=list[np.ndarray])  # aligned, not averaged; NaN where none is known


class Steadier:
    """Takes maps of one clip in their order; ``arrays`` and ``restore`` carry it over a stop."""

    def __init__(self, settings: VideoSettings, kind: Kind) -> None:
        self._settings, self._kind = settings, kind
        self._flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.past: Past | None = None

    def follow(self, pixels: np.ndarray) -> "Motion | None":
        """Find how a frame [h, w, 3] uint8 came out of the one before; None at a cut or fade and at the beginning."""
        past = self.past
        if past is None:
            return None
        grey = _grey(pixels)
        light, before = _standardised(grey), _standardised(past.picture)
        height, width = grey.shape
        columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        if min(grey.std(), past.picture.std()) < BLANK:
            if grey.std() >= BLANK and _correlation(past.carried, light) < FADED:
                return None
            return Motion(columns, rows, np.zeros(grey.shape, bool), past.carried)
        back: np.ndarray = self._flow.calc(grey, past.picture, None)
        forth: np.ndarray = self._flow.calc(past.picture, grey, None)
        x, y = columns + back[..., 0], rows + back[..., 1]
        returned = _sample(forth, x, y) + back
        miss = np.linalg.norm(returned, axis=-1)
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        seen = _sample(past.picture, x, y).astype(np.float32)
        same = np.abs(seen - grey) / 255 < COLOUR_ERROR
        known = inside & same & (miss < FLOW_ERROR_PX + 0.1 * np.linalg.norm(back, axis=-1))
        changed = float(np.abs(_thumbnail(light) - _thumbnail(before)).mean())
        if changed > CUT and 1 - known.mean() > LOST:
            return None
        # A fade passes for motion from each frame to the next, but not from its beginning to its end.
        taken_along = inside & (np.abs(_sample(before, x, y) - light) < REPLACED)
        moved = _sample(past.carried, x, y)
        carried = np.where(taken_along, moved + RENEWED * (light - moved), light)
        return None if _correlation(carried, light) < FADED else Motion(x, y, known, carried)

    def take(self, pixels: np.ndarray, values: np.ndarray, motion: "Motion | None") -> Steadied:
        """Align and average the map [h, w] of a frame [h, w, 3] uint8 of the same size."""
        scale, shift, past = 1.0, 0.0, self.past
        is_cut = motion is None and past is not None
        maps = [motion.move(one) for one in past.maps] if motion is not None and past is not None else []
        if maps and self._kind in ("affine", "scale"):
            scale, shift = fit(values, maps, has_shift=self._kind == "affine")
        average = aligned = (scale * values + shift).astype(np.float32)
        if motion is not None and past is not None:
            average = self._average(aligned, motion.move(past.average))
        maps = [*maps, aligned][-self._settings.window :]
        carried = motion.carried if motion is not None else _standardised(_grey(pixels))
        self.past = Past(_grey(pixels), carried, average.astype(np.float32), maps)
        return Steadied(self.past.average, scale, shift, is_cut)

    def _average(self, aligned: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Mix a map with its past where that is known, the less the more they differ."""
        spread = float(np.ptp(aligned)) or 1.0
        with np.errstate(invalid="ignore"):
            weight = self._settings.averaging * np.exp(-(((aligned - before) / (DEPTH_CHANGE * spread)) ** 2))
        weight = np.where(np.isfinite(before), weight, 0)
        return aligned + weight * (np.where(np.isfinite(before), before, aligned) - aligned)

    def arrays(self) -> dict[str, np.ndarray]:
        """What to keep for ``restore``."""
        if self.past is None:
            return {}
        return vars(self.past) | {"maps": np.stack(self.past.maps)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from what ``arrays`` gave."""
        if arrays:
            self.past = Past(arrays["picture"], arrays["carried"], arrays["average"], list(arrays["maps"]))


@dataclass(frozen=True)
class Motion:
    """Where each pixel [h, w] of a frame was in the one before, and whether that can be trusted."""

    x: np.ndarray
    y: np.ndarray
    known: np.ndarray
    carried: np.ndarray  # ``Past.carried``, in this frame's place

    def move(self, values: np.ndarray) -> np.ndarray:
        """Bring a map of the frame before to this one; NaN where it is not known."""
        return np.where(self.known, _sample(values, self.x, self.y), np.float32(np.nan))


def fit(values: np.ndarray, maps: list[np.ndarray], *, has_shift: bool = True) -> tuple[float, float]:
    """Scale and shift that bring a map [h, w] to earlier ones [h, w], NaN where unknown; 1 and 0 where too few agree.

    The scale is a ratio of covariances, of the maps with each other over those of the map with them: noise of single
    maps cancels, where a least-squares fit would make every frame a little flatter than the one before. Both are
    drawn back by ``PULL``, so that they cannot drift away from what the frames themselves say.
    """
    known = np.isfinite(np.stack(maps)).all(axis=0)
    if known.sum() < LEAST_PIXELS:
        return 1.0, 0.0
    rows = np.stack([one[known] for one in maps]).astype(np.float64)
    present = values[known].astype(np.float64)
    for _ in range(2):
        scale, shift = _ratio(present, rows, has_shift)
        miss = np.abs(scale * present + shift - rows.mean(axis=0))
        kept = miss <= 3 * np.median(miss) + 1e-9  # what moves on its own, or was followed wrongly, does not count
        if kept.sum() < LEAST_PIXELS:
            break
        present, rows = present[kept], rows[:, kept]
    else:
        scale, shift = _ratio(present, rows, has_shift)
    return float(scale ** (1 - PULL)), float(shift * (1 - PULL))


def _ratio(present: np.ndarray, rows: np.ndarray, has_shift: bool) -> tuple[float, float]:
    count = len(rows)
    centre, centres = (present.mean(), rows.mean(axis=1)) if has_shift else (0.0, np.zeros(count))
    own, others = present - centre, rows - centres[:, None]
    mean = others.mean(axis=0)
    if count > 1:
        between = (count**2 * (mean @ mean) - (others**2).sum()) / (count * (count - 1))
        across = own @ mean
    else:
        between, across = float(np.sqrt((others**2).sum())), float(np.sqrt((own**2).sum()))
    scale = between / across if across > 0 and between > 0 else 1.0
    scale = float(np.clip(scale, 0.25, 4.0))
    return scale, float(centres.mean() - scale * centre) if has_shift else 0.0


def _sample(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Take values [h, w] or [h, w, 2] from places [h, w]."""
    return cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _standardised(grey: np.ndarray) -> np.ndarray:
    """Grey [h, w] of mean 0 and standard deviation 1, float32: what exposure does not change."""
    return ((grey - grey.mean()) / max(float(grey.std()), BLANK)).astype(np.float32)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """How alike the details of two pictures [h, w] are, 1 at most; light and dark of the whole do not count."""
    parts = list[np.ndarray]()
    for picture in (one, other):
        small = cv2.resize(picture, DETAIL, interpolation=cv2.INTER_AREA)
        detail = small - cv2.GaussianBlur(small, (0, 0), 3)
        parts.append((detail - detail.mean()).ravel())
    return float(parts[0] @ parts[1] / max(float(np.linalg.norm(parts[0]) * np.linalg.norm(parts[1])), 1e-9))


def _grey(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def _thumbnail(light: np.ndarray) -> np.ndarray:
    return cv2.resize(light, THUMBNAIL, interpolation=cv2.INTER_AREA)

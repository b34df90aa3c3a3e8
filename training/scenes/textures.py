"""Procedural pictures for surfaces: plaster, wood, tiles, brick, packaging, foliage, facades and skies, drawn by numpy.

Every drawing is a function of a random generator alone. Noise repeats without a seam, so surfaces may tile it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

SIZE_PX = 256
Triple = tuple[float, float, float]
Colour = np.ndarray  # [3] float in [0, 1], sRGB


@dataclass(frozen=True, eq=False)
class Texture:
    """A picture on a surface; alpha below one half is a hole. Compared and cached by identity."""

    pixels: np.ndarray  # [H, W, 4] uint8 sRGB + alpha

    @cached_property
    def has_holes(self) -> bool:
        """Return whether any pixel is a hole."""
        return bool((self.pixels[..., 3] < 128).any())


def noise(rng: np.random.Generator, roughness: float = 1.6, stretch: float = 1.0, size_px: int = SIZE_PX) -> np.ndarray:
    """Draw [S, S] seamless noise in about [0, 1] with a 1/f^roughness spectrum; ``stretch`` lengthens it along y."""
    fy = np.fft.fftfreq(size_px)[:, None] * stretch
    fx = np.fft.rfftfreq(size_px)[None]
    scale = 1 / np.maximum(np.hypot(fy, fx), 1 / size_px) ** roughness
    scale[0, 0] = 0
    spectrum = scale * np.exp(2j * np.pi * rng.random(scale.shape))
    field = np.fft.irfft2(spectrum, (size_px, size_px))
    return np.clip(0.5 + field / (4.5 * field.std()), 0, 1)


def colour(rng: np.random.Generator, saturation: float = 0.5, low: float = 0.15, high: float = 0.95) -> Colour:
    """Draw an sRGB colour of any hue whose brightness lies in [low, high]."""
    hue, vivid = rng.random(), saturation * rng.random()
    wheel = np.clip(np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return rng.uniform(low, high) * (1 - vivid + vivid * wheel)


def near(rng: np.random.Generator, red: float, green: float, blue: float, spread: float = 0.08) -> Colour:
    """Draw an sRGB colour close to the one given."""
    return np.clip(np.array([red, green, blue]) * rng.uniform(0.75, 1.2) + rng.normal(0, spread / 2, 3), 0.02, 0.98)


def blend(amount: np.ndarray, first: Colour, second: Colour) -> np.ndarray:
    """[H, W] amounts in [0, 1] -> [H, W, 3] between two colours."""
    return first + amount[..., None] * (second - first)


def speckle(rng: np.random.Generator, first: Colour, second: Colour, roughness: float, grain: float) -> np.ndarray:
    """Draw cloudy patches of two colours with fine grain: plaster, carpet, asphalt, soil."""
    fine = rng.normal(0, grain, (SIZE_PX, SIZE_PX, 1))
    return blend(noise(rng, roughness), first, second) + fine


def plaster(rng: np.random.Generator) -> np.ndarray:
    """Draw a nearly even wall."""
    base = near(rng, 0.85, 0.83, 0.78) if rng.random() < 0.6 else colour(rng, 0.5, 0.45, 0.95)
    return speckle(rng, base, base * rng.uniform(0.86, 0.97), rng.uniform(1, 2), rng.uniform(0, 0.02))


def carpet(rng: np.random.Generator) -> np.ndarray:
    """Draw cloth: grain, sometimes stripes or checks."""
    first, second = colour(rng, 0.7, 0.2, 0.9), colour(rng, 0.7, 0.2, 0.9)
    cloth = speckle(rng, first, 0.8 * first, rng.uniform(0.3, 1.2), 0.05)
    if rng.random() < 0.5:
        step = 2 ** rng.integers(3, 7)
        rows = (np.arange(SIZE_PX) // step) % 2
        pattern = np.abs(rows[:, None] - rows[None]) if rng.random() < 0.5 else np.tile(rows, (SIZE_PX, 1))
        cloth = np.where(pattern[..., None] == 1, 0.5 * cloth + 0.5 * second, cloth)
    return cloth


def wood(rng: np.random.Generator) -> np.ndarray:
    """Draw grain along y, sometimes cut into planks."""
    base = near(rng, *[(0.6, 0.42, 0.26), (0.8, 0.66, 0.48), (0.35, 0.22, 0.14), (0.72, 0.5, 0.3)][rng.integers(4)])
    grain = np.sin(2 * np.pi * (3 * noise(rng, 1.8, 0.08) * rng.uniform(1, 4) + noise(rng, 1.0, 0.04)))
    picture = blend(0.5 + 0.5 * grain, base, base * rng.uniform(0.6, 0.9))
    if rng.random() < 0.6:
        planks = int(2 ** rng.integers(1, 4))
        width = SIZE_PX // planks
        picture *= np.repeat(rng.uniform(0.8, 1.1, planks), width)[None, :, None]
        picture[:, ::width] *= 0.5
        for k in range(planks):
            picture[rng.integers(SIZE_PX), k * width : (k + 1) * width] *= 0.5
    return picture


def tiles(rng: np.random.Generator, rows: int = 0, offset: float = 0.0) -> np.ndarray:
    """Draw tiles with joints; ``offset`` shifts every second row as in brickwork."""
    rows = rows or int(2 ** rng.integers(1, 4))
    columns = rows // 2 if offset else rows
    base, joint = colour(rng, 0.4, 0.35, 0.95), near(rng, 0.6, 0.58, 0.55)
    y, x = np.divmod(np.arange(SIZE_PX * SIZE_PX), SIZE_PX)
    row = y * rows // SIZE_PX
    across = (x * columns / SIZE_PX + offset * (row % 2)) % columns
    shade = rng.uniform(0.8, 1.1, (rows, columns))[row, across.astype(int)]
    edge = rng.uniform(0.02, 0.06)
    inside = ((across % 1) > edge * columns / rows) & ((y * rows / SIZE_PX % 1) > edge)
    picture = np.where(inside[:, None], base * shade[:, None], joint).reshape(SIZE_PX, SIZE_PX, 3)
    return picture * (0.88 + 0.2 * noise(rng, 1.0))[..., None]


def brick(rng: np.random.Generator) -> np.ndarray:
    """Draw brickwork."""
    tint = near(rng, 1.0, 0.55, 0.42, 0.2) if rng.random() < 0.7 else near(rng, 0.9, 0.88, 0.85)
    return tiles(rng, 8, 0.5) * tint


def rectangles(rng: np.random.Generator, picture: np.ndarray, count: int, largest: float) -> None:
    """Paint ``count`` random rectangles and ellipses over a picture in place."""
    size = len(picture)
    y, x = np.mgrid[:size, :size]
    for _ in range(count):
        height, width = (size * rng.uniform(0.03, largest, 2)).astype(int) + 1
        top, left = rng.integers(0, size, 2)
        region = (slice(top, top + height), slice(left, left + width))
        tint = colour(rng, 1.0, 0.1, 1.0)
        if rng.random() < 0.3:
            oval = ((y[region] - top) / height - 0.5) ** 2 + ((x[region] - left) / width - 0.5) ** 2 < 0.25
            picture[region][oval] = tint
        else:
            picture[region] = tint


def label(rng: np.random.Generator) -> np.ndarray:
    """Draw the print of a package: a strong ground, shapes, and lines that look like small type."""
    picture = np.empty((SIZE_PX, SIZE_PX, 3))
    picture[:] = colour(rng, 1.0, 0.3, 1.0)
    if rng.random() < 0.5:
        picture[:] = blend(np.linspace(0, 1, SIZE_PX)[:, None] + np.zeros(SIZE_PX), picture[0, 0], colour(rng, 1.0))
    rectangles(rng, picture, int(rng.integers(2, 8)), 0.6)
    for _ in range(rng.integers(2, 7)):
        ink, top, left = colour(rng, 0.3, 0.0, 1.0), rng.integers(0, 220), rng.integers(0, 180)
        height = int(rng.choice([3, 4, 6, 14, 24]))
        for line in range(rng.integers(1, 5)):
            letters = np.repeat(rng.random(40) < 0.7, max(2, height // 2))[: rng.integers(40, 250)]
            row = picture[top + line * height * 2 : top + line * height * 2 + height, left : left + len(letters)]
            row[:, letters[: row.shape[1]]] = ink
    return picture


def painting(rng: np.random.Generator) -> np.ndarray:
    """Draw something to hang on a wall: cloudy colour fields with a few shapes."""
    picture = speckle(rng, colour(rng, 0.9), colour(rng, 0.9), rng.uniform(1.2, 2.2), 0.03)
    rectangles(rng, picture, int(rng.integers(0, 6)), 0.5)
    return picture


def spines(rng: np.random.Generator) -> np.ndarray:
    """Draw the backs of a row of books."""
    picture = np.empty((SIZE_PX, SIZE_PX, 3))
    left = 0
    while left < SIZE_PX:
        right = left + rng.integers(8, 30)
        picture[:, left:right] = colour(rng, 0.8, 0.1, 0.95)
        band = rng.integers(20, 200)
        picture[band : band + rng.integers(5, 60), left + 2 : right - 2] = colour(rng, 0.5, 0.2, 1.0)
        picture[: rng.integers(0, 50), left:right] = 0.03
        picture[:, left] *= 0.4
        left = right
    return picture


def facade(rng: np.random.Generator) -> np.ndarray:
    """Draw storeys of windows in a wall of plaster or brick."""
    wall = brick(rng) if rng.random() < 0.4 else plaster(rng)
    count = int(rng.choice([2, 4]))
    cell = SIZE_PX // count
    height, width = (cell * rng.uniform(0.35, 0.7, 2)).astype(int)
    frame, glass = near(rng, 0.85, 0.85, 0.82, 0.2), near(rng, 0.2, 0.25, 0.3)
    for top in range((cell - height) // 2, SIZE_PX, cell):
        for left in range((cell - width) // 2, SIZE_PX, cell):
            wall[top - 3 : top + height + 3, left - 3 : left + width + 3] = frame
            wall[top : top + height, left : left + width] = glass * rng.uniform(0.5, 2.2)
            wall[top : top + height, left + width // 2] = frame
    return wall


def leaves(rng: np.random.Generator) -> np.ndarray:
    """Draw [S, S, 4] foliage with holes: a crown on a transparent ground."""
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] / SIZE_PX * 2 - 1
    crown = 1 - np.hypot(x, y) ** 2 + 0.9 * (noise(rng, 1.7) - 0.5)
    holes = noise(rng, rng.uniform(0.9, 1.3))
    tint = near(rng, *[(0.25, 0.4, 0.14), (0.35, 0.42, 0.15), (0.55, 0.4, 0.12), (0.15, 0.28, 0.12)][rng.integers(4)])
    green = blend(noise(rng, 0.9), tint * 0.5, np.minimum(tint * 1.4, 1))
    alpha = (crown > 0.12) & (holes > 0.36 + 0.25 * (crown < 0.35))
    return np.dstack([green, alpha])


def natural(rng: np.random.Generator, first: Triple, second: Triple, grain: float) -> np.ndarray:
    """Draw natural ground, or metal, of two typical colours."""
    return speckle(rng, near(rng, *first), near(rng, *second), rng.uniform(0.8, 1.6), grain)


DRAWINGS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "plaster_wall": plaster,
    "carpet_fabric": carpet,
    "wood": wood,
    "tile": tiles,
    "floor": wood,
    "brick": brick,
    "label": label,
    "painting": painting,
    "spines": spines,
    "window_facade": facade,
    "foliage": leaves,
    "road": partial(natural, first=(0.36, 0.36, 0.37), second=(0.5, 0.5, 0.49), grain=0.05),
    "grass": partial(natural, first=(0.24, 0.36, 0.12), second=(0.45, 0.5, 0.22), grain=0.07),
    "ground": partial(natural, first=(0.45, 0.36, 0.26), second=(0.6, 0.52, 0.4), grain=0.05),
    "rock": partial(natural, first=(0.4, 0.39, 0.37), second=(0.65, 0.62, 0.58), grain=0.05),
    "roof": brick,
    "metal": partial(natural, first=(0.55, 0.56, 0.58), second=(0.7, 0.7, 0.72), grain=0.02),
    "snow": partial(natural, first=(0.9, 0.92, 0.95), second=(0.8, 0.84, 0.9), grain=0.01),
    "water": partial(natural, first=(0.16, 0.26, 0.3), second=(0.3, 0.4, 0.45), grain=0.02),
}


def draw(kind: str, rng: np.random.Generator) -> Texture:
    """Draw a texture of a kind named in ``DRAWINGS``; about 10 ms."""
    picture = DRAWINGS[kind](rng)
    if picture.shape[2] == 3:
        picture = np.dstack([picture, np.ones(picture.shape[:2])])
    return Texture((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))

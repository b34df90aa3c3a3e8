"""How each target is scored: metrics of one picture, their mean over pictures, and baselines that ignore the photo."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from marigold_core.errors import MarigoldError
from marigold_core.images.boxes import find_boxes, size_of
from marigold_core.images.photo import Photo, load_photo
from marigold_core.pipeline.modalities import Depth, Modality, Normals, Segmentation
from marigold_core.prediction import Prediction
from training.data.boxes import true_boxes
from training.data.sets.sample import Sample
from training.data.targets import MODALITIES, OBJECT_LAYERS, OBJECT_PALETTE, PALETTE, TargetName, name_of, target_of
from training.scoring.protocols import Averaging, Protocol
from training.scoring.scores import BASELINES, Comparison, Predictor, Row, averages, compare

WITHIN_DEG = (5.0, 7.5, 11.25, 22.5, 30.0)  # angles whose shares are reported; the usual ones since Fouhey et al. 2013
# Keys of a row begin with these and end with the name of a class.
HITS, EITHER = "hits_", "either_"  # pixels of the class in both maps, in either map
THERE, FOUND = "there_", "found_"  # number of true boxes, score of a found one
COUNTS = (HITS, EITHER, THERE, FOUND)  # what only the mean over pictures is computed from
UNITS: Mapping[str, tuple[str, float]] = {"mean_angle": ("degrees", 1), "psnr_db": ("dB", 1)}  # of all others: percent
RIGHT_IOU = 0.5
COLOURS = 3
Measure = Callable[[np.ndarray | Prediction, Sample, Protocol], Comparison | Row]
Mean = Callable[[Sequence[Row], Averaging], Row]


@dataclass(frozen=True)
class Column:
    """A figure in a table: its key in rows, its name, its unit, and what a row's number is multiplied by for that."""

    name: str
    title: str
    unit: str
    factor: float


@dataclass(frozen=True)
class Metric:
    """How predictions of one target are scored."""

    decides: str  # the figure of a validation by which a checkpoint is the best
    title: str  # its name in messages
    measure: Measure
    beside: str = "delta1"  # the figure that tables show beside it
    higher_is_better: bool = False
    mean: Mean = averages
    baselines: Mapping[str, Predictor] = field(default_factory=dict)

    def row(self, prediction: np.ndarray | Prediction, sample: Sample, protocol: Protocol) -> Row:
        """Measure one picture."""
        found = self.measure(prediction, sample, protocol)
        return found.row if isinstance(found, Comparison) else found

    def guess(self, sample: Sample, protocol: Protocol) -> dict[str, Row]:
        """Measure what the baselines make of one picture -> a row of each, by name."""
        return {name: self.row(baseline(sample.rgb), sample, protocol) for name, baseline in self.baselines.items()}

    def score(self, means: Row) -> float:
        """Return what a run minimises."""
        return 1 - means[self.decides] if self.higher_is_better else means[self.decides]

    @property
    def columns(self) -> tuple[Column, Column]:
        """Return the two figures of a table, the one that decides first."""
        first, second = (
            Column(name, title, *UNITS.get(name, ("%", 100)))
            for name, title in ((self.decides, self.title), (self.beside, self.beside.replace("_", " ")))
        )
        return first, second


def measure_depth(prediction: np.ndarray | Prediction, sample: Sample, protocol: Protocol) -> Comparison:
    """Fit and measure depth, see ``scores.compare``."""
    return compare(prediction, sample.depth_m, protocol)


def measure_angles(prediction: np.ndarray | Prediction, sample: Sample, protocol: Protocol) -> Row:
    """Measure the angles between predicted and true normals [H, W, 3], in degrees, where there are true ones.

    Source: the metrics of Bae et al. 2021, which the papers on Marigold report.
    """
    truth = target_of(Normals()).values(sample, None)
    values = prediction if isinstance(prediction, np.ndarray) else prediction.values
    known = np.linalg.norm(truth, axis=-1) > 0.5
    if values.shape != truth.shape:
        raise MarigoldError(
            f"Normals are [H, W, 3] as the photo, but the prediction has the shape {list(values.shape)}."
        )
    if not known.any():
        return {"pixels": 0.0}
    one, other = (part[known] / np.linalg.norm(part[known], axis=-1, keepdims=True) for part in (values, truth))
    angles = np.degrees(np.arccos(np.clip((one * other).sum(axis=-1), -1, 1)))
    within = {f"within_{degrees:g}": float((angles < degrees).mean()) for degrees in WITHIN_DEG}
    rmse = float(np.sqrt(np.mean(angles**2)))
    centre = {"mean_angle": float(angles.mean()), "median_angle": float(np.median(angles)), "rmse_angle": rmse}
    return {"pixels": float(known.sum()), **centre, **within}


def measure_classes(prediction: np.ndarray | Prediction, sample: Sample, protocol: Protocol) -> Row:
    """Count, class by class, pixels [H, W] that are right, and those that are of the class in either map."""
    truth = _values("segmentation", sample)
    values = prediction if isinstance(prediction, np.ndarray) else prediction.values
    if values.shape != truth.shape:
        raise MarigoldError(f"Classes are [H, W] as the photo, but the prediction has the shape {list(values.shape)}.")
    row: Row = {"pixels": float(truth.size), "accuracy": float((values == truth).mean())}
    for number, name in enumerate(PALETTE):
        own, true = values == number, truth == number
        row |= {f"{HITS}{name}": float((own & true).sum()), f"{EITHER}{name}": float((own | true).sum())}
    return row


def mean_iou(rows: Sequence[Row], averaging: Averaging) -> Row:
    """Average over all pixels of a set -> "miou", the IoU of each class that occurs, and the accuracy.

    Source: the mIoU of Everingham et al. 2010 (PASCAL VOC): hits over union of a class, over the whole set.
    """
    means = averages(rows, averaging)
    found = {name: means[f"{EITHER}{name}"] for name in PALETTE}
    classes = {f"iou_{name}": means[f"{HITS}{name}"] / either for name, either in found.items() if either}
    kept = {name: means[name] for name in ("pixels", "accuracy")}
    return kept | {"miou": float(np.mean(list(classes.values())))} | classes


def measure_layers(prediction: np.ndarray | Prediction, sample: Sample, protocol: Protocol) -> Row:
    """Measure albedo, or albedo and shading [H, W, 3 or 6] in [0, 1] where surfaces are: error, and PSNR in dB.

    Of several layers each has its own figures beside those of all. Source: the PSNR that Ke et al. 2025 report.
    """
    values = prediction if isinstance(prediction, np.ndarray) else prediction.values
    target: TargetName = "albedo" if values.shape[-1] == COLOURS else "intrinsics"
    truth = _values(target, sample)
    known = truth[..., 0] >= 0
    if not known.any():
        return {"pixels": 0.0}
    error = values[known].astype(np.float64) - truth[known]
    parts = {"": error}
    if target == "intrinsics":
        parts |= {"albedo_": error[:, :COLOURS], "shading_": error[:, COLOURS:]}
    row: Row = {"pixels": float(known.sum())}
    for name, part in parts.items():
        psnr = float(-10 * np.log10(max(np.mean(part**2), 1e-10)))
        row |= {f"{name}mae": float(np.abs(part).mean()), f"{name}psnr_db": psnr}
    return row


def measure_boxes(prediction: np.ndarray | Prediction, sample: Sample, protocol: Protocol) -> Row:
    """Find the objects of a prediction [H, W, 4] and match each, best first, with one that is there.

    A box is right when an object of its class that no better one has taken overlaps with it by half (IoU). The row has
    the number of true boxes of each class and, for each found one, its score, negative where it is wrong.
    """
    values = prediction if isinstance(prediction, np.ndarray) else prediction.values
    instances, labels = np.moveaxis(_values("objects", sample), -1, 0).astype(int)
    left = true_boxes(instances, labels, tuple(PALETTE))
    row: Row = {"pixels": float(labels.size)}
    for box in left:
        row[f"{THERE}{box.name}"] = row.get(f"{THERE}{box.name}", 0.0) + 1
    for number, box in enumerate(find_boxes(OBJECT_LAYERS, values)):
        same = [other for other in left if other.name == box.name]
        best = max(same, key=box.iou, default=None)
        right = best is not None and box.iou(best) >= RIGHT_IOU
        if right and best is not None:
            left.remove(best)
        row[f"{FOUND}{box.name} {number}"] = box.score if right else -box.score
    return row


def mean_ap(rows: Sequence[Row], averaging: Averaging) -> Row:
    """Compute "ap50", the mean over classes that occur of the area below their precision over recall, and each.

    "recall" is the share of the objects that are there of which a box is right.

    Source: Everingham et al. 2010 (PASCAL VOC), with the area of all points as since 2010.
    """
    result: Row = {}
    every = hit = 0.0
    for name in PALETTE:
        there = sum(row.get(f"{THERE}{name}", 0.0) for row in rows)
        if not there:
            continue
        found = [score for row in rows for key, score in row.items() if key.startswith(f"{FOUND}{name} ")]
        right = np.array([score > 0 for score in sorted(found, key=lambda score: -abs(score))], dtype=float)
        hits = np.cumsum(right)
        precision = hits / np.arange(1, len(hits) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        result[f"ap50_{name}"] = float((envelope * right).sum() / there)
        every, hit = every + there, hit + float(right.sum())
    recall = hit / every if every else 0.0
    return {"ap50": float(np.mean([*result.values()])) if result else 0.0, "recall": recall} | result


def _values(target: TargetName, sample: Sample) -> np.ndarray:
    return target_of(MODALITIES[target]).values(sample, None)


def _one_box(name: str, share: float) -> Predictor:
    """Guess an object of a class in the middle, so large a share of the photo's width and height."""

    def guess(pixels: np.ndarray) -> np.ndarray:
        size = size_of(share)
        values = np.full((*pixels.shape[:2], 4), (0, size, size, list(OBJECT_PALETTE).index(name)), np.float32)
        values[pixels.shape[0] // 2, pixels.shape[1] // 2, 0] = 1
        return values

    return guess


def _all_one(*vector: float) -> Predictor:
    return lambda pixels: np.broadcast_to(np.array(vector, np.float32), (*pixels.shape[:2], len(vector)))


def _all_class(name: str) -> Predictor:
    return lambda pixels: np.full(pixels.shape[:2], list(PALETTE).index(name), np.float32)


DEPTH = Metric("abs_rel", "AbsRel", measure_depth, baselines=BASELINES)
NORMALS = Metric(
    "mean_angle",
    "mean angle",
    measure_angles,
    "within_11.25",
    baselines={"facing the viewer": _all_one(0, 0, 1), "facing up and the viewer": _all_one(0, 0.6, 0.8)},
)


SEGMENTATION = Metric(
    "miou",
    "mIoU",
    measure_classes,
    "accuracy",
    higher_is_better=True,
    mean=mean_iou,
    baselines={name: _all_class(name) for name in ("wall", "ground")},
)
ALBEDO = Metric(
    "mae",
    "MAE",
    measure_layers,
    "psnr_db",
    baselines={"the photo": lambda pixels: pixels / np.float32(255), "grey": _all_one(*[0.5] * 3)},
)
INTRINSICS = Metric(
    "mae",
    "MAE",
    measure_layers,
    "psnr_db",
    baselines={
        "the photo in white light": lambda pixels: np.dstack(
            [pixels / np.float32(255), np.ones_like(pixels, np.float32)]
        ),
        "grey": _all_one(*[0.5] * 6),
    },
)
OBJECTS = Metric(
    "ap50",
    "AP at IoU .5",
    measure_boxes,
    "recall",
    higher_is_better=True,
    mean=mean_ap,
    baselines={f"a large {name} in the middle": _one_box(name, 0.5) for name in ("object", "vehicle")},
)
METRICS: Mapping[str, Metric] = {"albedo": ALBEDO, "intrinsics": INTRINSICS, "objects": OBJECTS}
TITLES = {one.decides: one.title for one in (DEPTH, NORMALS, SEGMENTATION, *METRICS.values())}


def metric_of(modality: Modality) -> Metric:
    """Choose how predictions of a modality are scored. Raises: MarigoldError when they are not."""
    if isinstance(modality, Depth):
        return DEPTH
    if isinstance(modality, Normals):
        return NORMALS
    if isinstance(modality, Segmentation):
        return SEGMENTATION
    if found := METRICS.get(name_of(modality)):
        return found
    raise MarigoldError(f"Predictions of {modality.name} are not scored.")


def blind_protocol(protocol: Protocol, modality: Modality | None) -> Protocol:
    """Return how baselines are fitted, which know no metres: in the space that the prediction is fitted in."""
    if protocol.alignment not in ("auto", "none"):
        return protocol
    return protocol.changed(alignment=modality.space if isinstance(modality, Depth) else "depth")


def photo_of(sample: Sample) -> Photo:
    """Make the photo of a sample, with its field of view where that is known."""
    return replace(load_photo(sample.rgb), fov_x_deg=sample.fov_x_deg)


def by_field_of_view(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Divide rows that have "fov_x_deg" and scores into thirds of them -> these by their range, in degrees.

    Nothing is divided where all are alike, as of a set that one camera took.
    """
    known = sorted((row for row in rows if "fov_x_deg" in row and row["pixels"]), key=lambda row: row["fov_x_deg"])
    if not known or known[0]["fov_x_deg"] == known[-1]["fov_x_deg"]:
        return {}
    thirds = [[known[k] for k in part] for part in np.array_split(np.arange(len(known)), 3) if len(part)]
    return {f"{third[0]['fov_x_deg']:.0f} to {third[-1]['fov_x_deg']:.0f} degrees": third for third in thirds}

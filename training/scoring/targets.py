"""How each target is scored: metrics of one picture, their mean over pictures, and baselines that ignore the photo."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from marigold_core.errors import MarigoldError
from marigold_core.images.photo import Photo, load_photo
from marigold_core.pipeline.modalities import Depth, Intrinsics, Modality, Normals, Segmentation
from marigold_core.prediction import Prediction
from training.data.sets.sample import Sample
from training.data.targets import PALETTE, AlbedoTarget, SegmentationTarget, TargetName, name_of, target_of
from training.scoring.protocols import Averaging, Protocol
from training.scoring.scores import BASELINES, Comparison, Predictor, Row, averages, compare

WITHIN_DEG = (5.0, 7.5, 11.25, 22.5, 30.0)  # angles whose shares are reported; the usual ones since Fouhey et al. 2013
HITS, EITHER = "hits_", "either_"  # of a class: how rows name its numbers of pixels
Measure = Callable[[np.ndarray | Prediction, Sample, Protocol], Comparison | Row]
Mean = Callable[[Sequence[Row], Averaging], Row]


@dataclass(frozen=True)
class Metric:
    """How predictions of one target are scored."""

    decides: str  # the figure of a validation by which a checkpoint is the best
    title: str  # its name in messages
    measure: Measure
    higher_is_better: bool = False
    mean: Mean = averages
    baselines: Mapping[str, Predictor] = field(default_factory=dict)

    def row(self, prediction: np.ndarray | Prediction, sample: Sample, protocol: Protocol) -> Row:
        """Measure one picture."""
        found = self.measure(prediction, sample, protocol)
        return found.row if isinstance(found, Comparison) else found

    def score(self, means: Row) -> float:
        """Return what a run minimises."""
        return 1 - means[self.decides] if self.higher_is_better else means[self.decides]


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


def measure_albedo(prediction: np.ndarray | Prediction, sample: Sample, protocol: Protocol) -> Row:
    """Measure albedo [H, W, 3] in [0, 1] where surfaces are: mean absolute error, and PSNR in dB.

    Source: the PSNR that Ke et al. 2025 report for intrinsic images.
    """
    truth = _values("albedo", sample)
    values = prediction if isinstance(prediction, np.ndarray) else prediction.values
    known = truth[..., 0] >= 0
    if not known.any():
        return {"pixels": 0.0}
    error = values[known].astype(np.float64) - truth[known]
    psnr = float(-10 * np.log10(max(np.mean(error**2), 1e-10)))
    return {"pixels": float(known.sum()), "mae": float(np.abs(error).mean()), "psnr_db": psnr}


def _values(target: TargetName, sample: Sample) -> np.ndarray:
    reader = {"segmentation": SegmentationTarget(Segmentation(())), "albedo": AlbedoTarget(Intrinsics(()))}[target]
    return reader.values(sample, None)


def _all_one(*vector: float) -> Predictor:
    return lambda pixels: np.broadcast_to(np.array(vector, np.float32), (*pixels.shape[:2], len(vector)))


def _all_class(name: str) -> Predictor:
    return lambda pixels: np.full(pixels.shape[:2], list(PALETTE).index(name), np.float32)


DEPTH = Metric("abs_rel", "AbsRel", measure_depth, baselines=BASELINES)
NORMALS = Metric(
    "mean_angle",
    "mean angle",
    measure_angles,
    baselines={"facing the viewer": _all_one(0, 0, 1), "facing up and the viewer": _all_one(0, 0.6, 0.8)},
)


SEGMENTATION = Metric(
    "miou",
    "mIoU",
    measure_classes,
    higher_is_better=True,
    mean=mean_iou,
    baselines={name: _all_class(name) for name in ("wall", "ground")},
)
ALBEDO = Metric(
    "mae",
    "MAE",
    measure_albedo,
    baselines={"the photo": lambda pixels: pixels / np.float32(255), "grey": _all_one(*[0.5] * 3)},
)


def metric_of(modality: Modality) -> Metric:
    """Choose how predictions of a modality are scored. Raises: MarigoldError when they are not."""
    if isinstance(modality, Depth):
        return DEPTH
    if isinstance(modality, Normals):
        return NORMALS
    if isinstance(modality, Segmentation):
        return SEGMENTATION
    if name_of(modality) == "albedo":
        return ALBEDO
    raise MarigoldError(f"Predictions of {modality.name} are not scored.")


def photo_of(sample: Sample) -> Photo:
    """Make the photo of a sample, with its field of view where that is known."""
    return replace(load_photo(sample.rgb), fov_x_deg=sample.fov_x_deg)


def by_field_of_view(rows: Sequence[Row], averaging: Averaging) -> dict[str, Row]:
    """Average rows that have "fov_x_deg" in thirds of them -> means by the range of each third, in degrees."""
    known = sorted((row for row in rows if "fov_x_deg" in row), key=lambda row: row["fov_x_deg"])
    thirds = [part for part in np.array_split(np.arange(len(known)), 3) if len(part)]
    groups = [[known[k] for k in part] for part in thirds]
    return {
        f"{group[0]['fov_x_deg']:.0f} to {group[-1]['fov_x_deg']:.0f} degrees": averages(group, averaging)
        for group in groups
    }

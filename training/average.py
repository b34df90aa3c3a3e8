"""Averages the weights of U-Nets, ``python -m training.average RUN... --shares 0.25,0.75 --out runs/mean``.

Checkpoints that were trained on from one another often score better averaged than the best of them does, at no cost in
inference. Source: Wortsman et al. 2022 (model soups, WiSE-FT).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import tyro

from marigold_core import load
from marigold_core.errors import MarigoldError
from marigold_core.storage import check_free
from training.data.latent_cache import autoencoder_sha256, prior_sha256
from training.engine.checkpoints import derived
from training.engine.command import run
from training.start import find_start


def average(sources: Sequence[str | Path], shares: Sequence[float], out: Path) -> Path:
    """Write the last of several checkpoints with the weighted mean of all their U-Nets -> ``out``.

    Raises: MarigoldError when shares or checkpoints do not fit together; ExportError when it cannot be written.
    """
    if len(shares) != len(sources) or len(sources) < 2 or min(shares) < 0 or sum(shares) <= 0:
        raise MarigoldError(f"{len(sources)} checkpoints need two or more, and as many shares; these are {shares}.")
    check_free(out)
    folders = [find_start(source) for source in sources]
    pipelines = [load(folder, dtype="float32") for folder in folders]
    last = pipelines[-1]
    mean = {name: torch.zeros_like(weight) for name, weight in last.unet.state_dict().items()}
    for folder, pipeline, share in zip(folders, pipelines, shares, strict=True):
        for part in (autoencoder_sha256, prior_sha256):
            if part(pipeline) != part(last):
                raise MarigoldError(f"{folder.name} has another autoencoder or image prior than {folders[-1].name}.")
        found = pipeline.unet.state_dict()
        for name in {**mean, **found}:
            if name not in mean or name not in found or mean[name].shape != found[name].shape:
                raise MarigoldError(f"The U-Net of {folder.name} has other layers than that of {folders[-1].name}.")
            mean[name] += share / sum(shares) * found[name]
    last.unet.load_state_dict(mean)
    with derived(folders[-1], out, "unet") as aside:
        last.unet.save_pretrained(aside / "unet", max_shard_size="1GB")
    return out


def main(sources: tyro.conf.Positional[tuple[str, ...]], shares: str, out: Path) -> None:
    """Average the U-Nets of checkpoints; all other networks are those of the last.

    Args:
        sources: checkpoints or runs, of which the newest checkpoint is taken.
        shares: weight of each, separated by commas.
        out: folder to write.
    """
    try:
        numbers = tuple(map(float, shares.split(",")))
    except ValueError:
        raise MarigoldError(f"shares must be numbers separated by commas, but got {shares!r}.") from None
    average(sources, numbers, out)
    print(out)


if __name__ == "__main__":
    run(main, "python -m training.average")

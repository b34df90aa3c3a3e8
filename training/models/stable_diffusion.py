"""Stable Diffusion 2 as what training begins with: is it fit, and its U-Net with four more input channels.

Only files are handled, no network is built: what does not fit is found in configurations and the headers of weights.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import torch
from diffusers import DDIMScheduler
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from marigold_core.checkpoints.layout import CLASSES, INDEX, OTHER_UNETS, read_config
from marigold_core.checkpoints.weights import choose, read_shapes
from marigold_core.errors import CheckpointError
from marigold_core.storage import write_json
from training.models.networks import LATENT_CHANNELS, SHAPES, STEPS, new_scheduler, write_model_index

PIPELINE = "StableDiffusionPipeline"
FIRST_LAYER = "conv_in.weight"
BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")


def check_stable_diffusion(folder: Path, variants: tuple[str | None, ...]) -> None:
    """See whether a Stable Diffusion folder can become a Marigold checkpoint; of its weights only headers are read.

    Raises: CheckpointError saying what does not fit.
    """
    index = read_config(folder, INDEX)
    for part, classes in CLASSES.items():
        pair = index.get(part)
        name = pair[-1] if isinstance(pair, list) and pair else None
        if part != "scheduler" and name not in classes:  # every noise schedule becomes DDIM
            raise CheckpointError(
                f"The start model's {part} is {name or 'missing'}; it must be {' or '.join(classes)}."
            )
    unet = read_config(folder, "unet/config.json")
    _check_channels(unet.get("in_channels"), unet.get("out_channels"))
    latent = read_config(folder, "vae/config.json").get("latent_channels", LATENT_CHANNELS)
    if latent != LATENT_CHANNELS:
        raise CheckpointError(
            f"The start model's autoencoder has {latent} latent channels and its U-Net {LATENT_CHANNELS}: "
            "they are of different models."
        )
    predicted = read_config(folder, "scheduler/scheduler_config.json").get("prediction_type") or "epsilon"
    if predicted != "v_prediction":
        raise CheckpointError(
            f"The start model predicts {predicted}, which says nothing at zero signal-to-noise; Marigold predicts "
            "v_prediction: start from Stable Diffusion 2 itself (768 pixels), not from its base model or version 1."
        )
    names = [path.relative_to(folder).as_posix() for path in folder.glob("*/*")]
    headers = {file: read_shapes(folder / file, file) for file in choose(names, variants)[1]}
    unet_shapes = {name: shape for file in headers if file.startswith("unet/") for name, shape in headers[file].items()}
    first, last = unet_shapes.get(FIRST_LAYER, []), unet_shapes.get("conv_out.weight", [])
    _check_channels(first[1] if len(first) == 4 else None, last[0] if len(last) == 4 else None)


def widen(weight: Tensor) -> Tensor:
    """First layer [C, 4, k, k] -> [C, 8, k, k] that takes half of the photo's latent and half of the noisy one.

    A latent given as both is answered as the old layer answers it; the bias stays.
    Source: Ke et al. 2024, section 3.2, "Adapted denoising U-Net".
    """
    return torch.cat([weight, weight], dim=1) * 0.5


def widen_unet(unet: Path) -> None:
    """Give the U-Net in the folder ``unet`` eight input channels. Memory: the file with its first layer."""
    _change_weights(unet, {FIRST_LAYER: widen})
    _change_config(unet, in_channels=2 * LATENT_CHANNELS)


def set_pictures(unet: Path, pictures: int) -> None:
    """Make the U-Net of a Marigold checkpoint denoise so many pictures at once.

    What goes in of one picture is shared evenly among them and what comes out is repeated, so that all begin as the
    mean of those that there were. Source: the authors' released code of Ke et al. 2025, for intrinsic images.
    """
    before = cast(int, read_config(unet.parent, "unet/config.json")["out_channels"]) // LATENT_CHANNELS
    if before == pictures:
        return

    def first(weight: Tensor) -> Tensor:
        photo, noisy = weight[:, :LATENT_CHANNELS], weight[:, LATENT_CHANNELS:].unflatten(1, (before, LATENT_CHANNELS))
        return torch.cat([photo, *[noisy.sum(dim=1) / pictures] * pictures], dim=1)

    def last(weight: Tensor) -> Tensor:
        return torch.cat([weight.unflatten(0, (before, LATENT_CHANNELS)).mean(dim=0)] * pictures)

    _change_weights(unet, {FIRST_LAYER: first, "conv_out.weight": last, "conv_out.bias": last})
    _change_config(unet, in_channels=(1 + pictures) * LATENT_CHANNELS, out_channels=pictures * LATENT_CHANNELS)


def _change_weights(unet: Path, changes: Mapping[str, Callable[[Tensor], Tensor]]) -> None:
    """Change single weights of the U-Net in a folder; its files may be links and are replaced, not written to."""
    for path in unet.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            metadata, found = file.metadata(), set(file.keys()) & set(changes)
        if found:
            tensors = load_file(path)
            path.unlink()
            save_file(tensors | {name: changes[name](tensors[name]).contiguous() for name in found}, path, metadata)


def _change_config(unet: Path, **changes: int) -> None:
    config = json.loads((unet / "config.json").read_text(encoding="utf-8"))
    write_json(unet / "config.json", config | changes)


def finish_stable_diffusion(folder: Path, out: Path) -> None:
    """Turn ``out``, a copy of the components of the Stable Diffusion ``folder``, into a Marigold depth checkpoint.

    Its noise schedule has the betas, zero SNR and spacing of the source's, whatever sampler that is; the rest is as
    in the published checkpoints.
    """
    widen_unet(out / "unet")
    schedule = read_config(folder, "scheduler/scheduler_config.json")
    spacing = "trailing" if schedule.get("timestep_spacing") == "trailing" else "leading"
    betas = {key: schedule[key] for key in BETAS if key in schedule}
    config = {**new_scheduler("ddim", spacing).config, "rescale_betas_zero_snr": False, **betas}
    cast(DDIMScheduler, DDIMScheduler.from_config(config)).save_pretrained(out / "scheduler")
    latent_px = read_config(folder, "unet/config.json").get("sample_size")
    levels = len(cast(list[int], read_config(folder, "vae/config.json")["block_out_channels"]))
    resolution_px = latent_px * 2 ** (levels - 1) if isinstance(latent_px, int) else SHAPES["public"].resolution
    write_model_index(out, "depth", "ddim", STEPS[spacing], resolution_px)


def _check_channels(received: object, sent: object) -> None:
    if (received, sent) != (LATENT_CHANNELS, LATENT_CHANNELS):
        family = OTHER_UNETS.get(received, "another") if isinstance(received, int) else "another"
        raise CheckpointError(
            f"The start model's U-Net has {received} input and {sent} output channels, {family} model; "
            "training starts from Stable Diffusion 2, which has 4 and 4, or from a Marigold checkpoint."
        )

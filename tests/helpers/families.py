"""Small random checkpoints of the families that are no Marigold's, saved as their authors' code saves them."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, PNDMScheduler, UNet2DConditionModel

from marigold_core.checkpoints.weights import write_checksums
from marigold_core.storage import write_json

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}  # of Stable Diffusion


def _reindex(folder: Path, pipeline: str, scheduler: Any) -> None:
    """Write what a Stable Diffusion pipeline saves, which tells nothing of what is predicted."""
    shutil.rmtree(folder / "scheduler")
    scheduler.save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    parts = {part: index[part] for part in ("text_encoder", "tokenizer", "unet", "vae")}
    stated = {"_class_name": pipeline, "scheduler": ["diffusers", type(scheduler).__name__]}
    unused = {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    write_json(folder / "model_index.json", parts | stated | unused)


def as_e2e_ft(marigold: Path, folder: Path) -> Path:
    """Copy a checkpoint with 8 channels -> the folder, as the training code of E2E-FT saves its own."""
    shutil.copytree(marigold, folder)
    schedule = DDPMScheduler(**BETAS, prediction_type="v_prediction", clip_sample=False, timestep_spacing="trailing")
    _reindex(folder, "StableDiffusionPipeline", schedule)
    return folder


def as_lotus(marigold: Path, folder: Path, *, generative: bool) -> Path:
    """Copy a checkpoint with a new U-Net of Lotus -> the folder, as the training code of Lotus saves its own."""
    shutil.copytree(marigold, folder)
    config = json.loads((folder / "unet" / "config.json").read_text())
    task = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
    unet: Any = UNet2DConditionModel.from_config({**config, **task, "in_channels": 8 if generative else 4})
    unet.save_pretrained(folder / "unet")
    tokenizer = folder / "tokenizer" / "tokenizer_config.json"
    write_json(tokenizer, {**json.loads(tokenizer.read_text()), "pad_token": "!"})  # as Stable Diffusion 2 pads
    _reindex(folder, f"Lotus{'G' if generative else 'D'}Pipeline", PNDMScheduler(**BETAS, skip_prk_steps=True))
    write_checksums(folder)
    return folder


APPEARANCE = {  # as the published checkpoints state it
    "target_names": ["albedo", "material"],
    "albedo": {"prediction_space": "srgb"},
    "material": {"prediction_space": "stack", "sub_target_names": ["roughness", "metallicity", None]},
    "roughness": {"prediction_space": "linear", "up_to_scale": False},
    "metallicity": {"prediction_space": "linear", "up_to_scale": False},
}
LIGHTING = {
    "target_names": ["albedo", "shading", "residual"],
    "albedo": {"prediction_space": "linear", "up_to_scale": False},
    "shading": {"prediction_space": "linear", "up_to_scale": True},
    "residual": {"prediction_space": "linear", "up_to_scale": True},
}


def as_intrinsics(marigold: Path, folder: Path, properties: dict[str, Any]) -> Path:
    """Copy a checkpoint with a new U-Net for several pictures -> the folder, as diffusers saves intrinsics."""
    shutil.copytree(marigold, folder)
    pictures = len(properties["target_names"])
    config = json.loads((folder / "unet" / "config.json").read_text())
    channels = {"in_channels": 4 + 4 * pictures, "out_channels": 4 * pictures}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(pictures)
        unet: Any = UNet2DConditionModel.from_config({**config, **channels})
    unet.save_pretrained(folder / "unet")
    index = json.loads((folder / "model_index.json").read_text())
    stated = {"_class_name": "MarigoldIntrinsicsPipeline", "prediction_type": "intrinsics"}
    own = {name: index[name] for name in index if not name.endswith("_invariant")}
    write_json(folder / "model_index.json", own | stated | {"target_properties": properties})
    write_checksums(folder)
    return folder


def as_genpercept(marigold: Path, folder: Path) -> Path:
    """Copy a checkpoint with a new U-Net of 4 channels -> the folder, Stable Diffusion with GenPercept's parts."""
    shutil.copytree(marigold, folder)
    config = json.loads((folder / "unet" / "config.json").read_text())
    unet: Any = UNet2DConditionModel.from_config({**config, "in_channels": 4})
    unet.save_pretrained(folder / "unet")
    betas = {"beta_start": 1.0, "beta_end": 1.0, "beta_schedule": "scaled_linear"}
    schedule = DDIMScheduler(**betas, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False)
    _reindex(folder, "StableDiffusionPipeline", schedule)
    write_checksums(folder)
    return folder

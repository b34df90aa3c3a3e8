"""New checkpoints with random weights: their layer sizes and components.

Every folder opens in ``marigold_core.load`` and in diffusers' own Marigold pipelines.
"""

import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, LCMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from marigold_core.checkpoints.layout import GUIDED, Modality, read_config
from marigold_core.checkpoints.weights import write_checksums
from marigold_core.pipeline.image_prior import GuidedUNet

Scheduler = Literal["ddim", "lcm"]
Spacing = Literal["trailing", "leading"]

LATENT_CHANNELS = 4
PIPELINE_CLASSES = {
    "depth": "MarigoldDepthPipeline",
    "normals": "MarigoldNormalsPipeline",
    "intrinsics": "MarigoldIntrinsicsPipeline",
    "segmentation": "MarigoldIntrinsicsPipeline",
}
STEPS = {"trailing": 4, "leading": 10}  # default denoising steps of the published checkpoints


@dataclass(frozen=True)
class Unet:
    """Sizes of the denoiser, level by level from fine to coarse."""

    channels: tuple[int, ...]
    heads: tuple[int, ...]  # attention heads
    attends: tuple[bool, ...]  # which levels have attention
    layers: int  # residual blocks of a level
    groups: int  # of group normalisation


@dataclass(frozen=True)
class Vae:
    """Sizes of the autoencoder; each level but the last halves the picture."""

    channels: tuple[int, ...]
    layers: int
    groups: int
    attends: bool  # attention in the middle, whose cost grows with the square of the pixels


@dataclass(frozen=True)
class Text:
    """Sizes of the text encoder, of which only the embedding of the empty prompt is used."""

    width: int
    layers: int
    heads: int
    vocabulary: int


@dataclass(frozen=True)
class Shape:
    """Layer sizes of one family of checkpoints."""

    unet: Unet
    vae: Vae
    text: Text
    resolution: int  # default longest edge the network sees, pixels

    @property
    def factor(self) -> int:
        """Return the photo pixels along one side of a latent pixel."""
        return 2 ** (len(self.vae.channels) - 1)


SHAPES = {
    # for tests: under 2 MB, a step takes milliseconds
    "tiny": Shape(
        unet=Unet(channels=(16, 32), heads=(2, 4), attends=(False, True), layers=1, groups=8),
        vae=Vae(channels=(8, 8, 16, 16), layers=1, groups=4, attends=True),
        text=Text(width=16, layers=1, heads=2, vocabulary=514),
        resolution=64,
    ),
    # the bundled checkpoint: 7.3 M parameters in the U-Net, 0.6 M in the autoencoder
    "nano": Shape(
        unet=Unet(
            channels=(32, 64, 128, 160), heads=(1, 2, 4, 5), attends=(False, False, False, True), layers=1, groups=16
        ),
        vae=Vae(channels=(16, 32, 64), layers=1, groups=8, attends=False),
        text=Text(width=32, layers=1, heads=2, vocabulary=514),
        resolution=192,
    ),
    # Stable Diffusion 2 as widened by Marigold: 866 M parameters in the U-Net, 84 M in the autoencoder
    "public": Shape(
        unet=Unet(
            channels=(320, 640, 1280, 1280),
            heads=(5, 10, 20, 20),
            attends=(True, True, True, False),
            layers=2,
            groups=32,
        ),
        vae=Vae(channels=(128, 256, 512, 512), layers=2, groups=32, attends=True),
        text=Text(width=1024, layers=23, heads=16, vocabulary=49408),
        resolution=768,
    ),
}


def new_unet(shape: Shape) -> UNet2DConditionModel:
    """Build the denoiser, [B, 8, h, w] photo latent then noisy latent -> [B, 4, h, w] velocity."""
    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in shape.unet.attends]
    up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(shape.unet.attends)]
    config = {
        "sample_size": shape.resolution // shape.factor,
        "in_channels": 2 * LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "block_out_channels": shape.unet.channels,
        "layers_per_block": shape.unet.layers,
        "down_block_types": down,
        "up_block_types": up,
        "attention_head_dim": shape.unet.heads,  # diffusers reads this as the number of heads
        "cross_attention_dim": shape.text.width,
        "use_linear_projection": True,
        "norm_num_groups": shape.unet.groups,
    }
    return cast(UNet2DConditionModel, UNet2DConditionModel.from_config(config))


def reset_unet(unet: Path, seed: int) -> None:
    """Replace the weights of the U-Net in the folder ``unet`` by random ones; projections of a prior become zero."""
    config = read_config(unet.parent, "unet/config.json")
    with seeded(seed, torch.float32):
        kind = GuidedUNet if GUIDED in config else UNet2DConditionModel
        network = cast(UNet2DConditionModel, kind.from_config(config))
    for path in unet.glob("*.safetensors*"):
        path.unlink()
    network.save_pretrained(unet, max_shard_size="1GB")


def new_vae(shape: Shape) -> AutoencoderKL:
    """Build the autoencoder, [B, 3, H, W] in [-1, 1] <-> [B, 4, H / factor, W / factor]."""
    levels = len(shape.vae.channels)
    config = {
        "sample_size": shape.resolution,
        "block_out_channels": shape.vae.channels,
        "layers_per_block": shape.vae.layers,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "latent_channels": LATENT_CHANNELS,
        "norm_num_groups": shape.vae.groups,
        "mid_block_add_attention": shape.vae.attends,
    }
    return cast(AutoencoderKL, AutoencoderKL.from_config(config))


def new_scheduler(scheduler: Scheduler = "ddim", spacing: Spacing = "trailing") -> DDIMScheduler | LCMScheduler:
    """Build the noise schedule of the published checkpoints: trailing as v1-1, leading as v1-0, or LCM.

    Source: "Common Diffusion Noise Schedules and Sample Steps are Flawed" (arXiv 2305.08891) for trailing, zero SNR.
    """
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    shared = {**betas, "prediction_type": "v_prediction", "clip_sample": False, "set_alpha_to_one": False}
    if scheduler == "lcm":
        return LCMScheduler(**shared, original_inference_steps=50, timestep_scaling=10.0, steps_offset=1)
    trailing = spacing == "trailing"
    return DDIMScheduler(**shared, timestep_spacing=spacing, steps_offset=1, rescale_betas_zero_snr=trailing)


def write_text(folder: Path, shape: Shape) -> None:
    """Write ``tokenizer`` (one token a byte; the empty prompt is begin and end of text) and ``text_encoder``."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    unused = range(len(words), shape.text.vocabulary - 2)  # the text encoder takes so many
    words += [*(f"<|{number}|>" for number in unused), "<|startoftext|>", "<|endoftext|>"]
    tokens = folder / "tokenizer"
    tokens.mkdir(parents=True)
    (tokens / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    (tokens / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(tokens, model_max_length=77)
    tokenizer.save_pretrained(tokens)
    config = CLIPTextConfig(
        vocab_size=shape.text.vocabulary,
        hidden_size=shape.text.width,
        intermediate_size=4 * shape.text.width,
        projection_dim=shape.text.width,
        num_hidden_layers=shape.text.layers,
        num_attention_heads=shape.text.heads,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")


def write_model_index(
    folder: Path, modality: Modality, scheduler: Scheduler, default_steps: int, default_resolution: int
) -> None:
    """Write ``model_index.json`` of a Marigold pipeline."""
    index: dict[str, object] = {
        "_class_name": PIPELINE_CLASSES[modality],
        "_diffusers_version": diffusers.__version__,
        "default_denoising_steps": default_steps,
        "default_processing_resolution": default_resolution,
        "prediction_type": modality,
        "scheduler": ["diffusers", "LCMScheduler" if scheduler == "lcm" else "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    index |= {"scale_invariant": True, "shift_invariant": True} if modality == "depth" else {"use_full_z_range": True}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def seeded(seed: int, dtype: torch.dtype):
    """Create layers directly in ``dtype`` from ``seed``, and restore the caller's random state and default dtype."""
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def new_checkpoint(
    folder: str | Path,
    shape: str | Shape,
    *,
    modality: Modality = "depth",
    scheduler: Scheduler = "ddim",
    spacing: Spacing = "trailing",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a Marigold folder with random weights and return it; one component is in memory at a time."""
    folder = Path(folder)
    sizes = SHAPES[shape] if isinstance(shape, str) else shape
    folder.mkdir(parents=True, exist_ok=True)
    with seeded(seed, dtype):
        new_unet(sizes).save_pretrained(folder / "unet", max_shard_size="1GB")
        new_vae(sizes).save_pretrained(folder / "vae")
        write_text(folder, sizes)
    new_scheduler(scheduler, spacing).save_pretrained(folder / "scheduler")
    write_model_index(folder, modality, scheduler, 1 if scheduler == "lcm" else STEPS[spacing], sizes.resolution)
    write_checksums(folder)
    return folder

"""Low-rank adapters: a few weights beside frozen ones, merged into them when a checkpoint is saved.

Source: Hu et al. 2022 (LoRA). Xu et al. 2025 (GenPercept) find them worse than training all weights.
"""

import copy
from typing import Any

import torch
from torch import nn

from marigold_core.errors import MarigoldError
from training.models.networks import seeded
from training.recipe import Recipe

LAYERS = (  # by their names in diffusers: attention, its feed-forward layers, residual blocks, the first and last layer
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "conv_in", "conv_out"),
)


def add_lora(unet: nn.Module, rank: int, seed: int) -> None:
    """Freeze a U-Net and put adapters of ``rank`` beside its layers, which change nothing before they are trained.

    Raises: MarigoldError when the package peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise MarigoldError('--lora-rank needs the package peft: pip install -e ".[train,lora]".') from None
    network: Any = unet
    network.requires_grad_(False)
    with seeded(seed, torch.float32):
        network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LAYERS)))


def make_trainable(unet: nn.Module, recipe: Recipe) -> None:
    """Prepare a U-Net for training as a recipe asks: all weights or adapters, activations kept or computed again.

    Raises: MarigoldError when the package peft is needed and not installed.
    """
    network: Any = unet
    network.train().requires_grad_(True)
    if recipe.lora_rank is not None:
        add_lora(network, recipe.lora_rank, recipe.seed)
    if recipe.gradient_checkpointing:
        network.enable_gradient_checkpointing()


def merged(unet: Any) -> Any:
    """Return a copy of a U-Net with its adapters merged into the weights, as a plain U-Net."""
    plain = copy.deepcopy(unet)
    plain.fuse_lora()
    plain.unload_lora()
    return plain

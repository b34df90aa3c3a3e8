"""From a verified checkpoint folder to loaded parts: safetensors only, straight into the target type, one copy."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from marigold_core.checkpoints.layout import PRIOR
from marigold_core.checkpoints.registry import Checkpoint, find
from marigold_core.errors import SettingsError
from marigold_core.pipeline.image_prior import GuidedUNet, ImagePrior

T = TypeVar("T")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
Components = tuple[
    Checkpoint,
    UNet2DConditionModel,
    AutoencoderKL | AutoencoderTiny,
    DDIMScheduler | LCMScheduler,
    Tensor,
    ImagePrior | None,
]


def load_components(checkpoint: str | Path, device: str, dtype: str, refetch: bool) -> Components:
    """Find, verify and load a checkpoint -> its record and parts; the prompt embedding is [1, 2, D].

    Raises: CheckpointError from ``checkpoints.find``; SettingsError for an unknown device or dtype.
    """
    target = pick_device(device)
    kind = pick_dtype(dtype, target)
    record = find(checkpoint, refetch=refetch)
    scheduler_class = LCMScheduler if record.scheduler == "lcm" else DDIMScheduler
    vae_class = AutoencoderTiny if record.vae_class == "AutoencoderTiny" else AutoencoderKL
    options: dict[str, Any] = {
        "torch_dtype": kind,
        "variant": record.variant,
        "use_safetensors": True,
        "local_files_only": True,
        "low_cpu_mem_usage": True,  # the weights are read into place: never two copies
    }
    with _no_progress_bars():
        unet_class = GuidedUNet if record.prior else UNet2DConditionModel
        unet = _from_pretrained(unet_class, record.folder, subfolder="unet", **options)
        prior = _from_pretrained(ImagePrior, record.folder, subfolder=PRIOR, **options) if record.prior else None
        vae = _from_pretrained(vae_class, record.folder, subfolder="vae", **options)
    parts: list[nn.Module] = [unet, vae, *([prior] if prior else [])]
    for part in parts:
        part.eval().requires_grad_(False).to(target)
    scheduler = _from_pretrained(scheduler_class, record.folder, subfolder="scheduler")
    return record, unet, vae, scheduler, empty_prompt(record, kind).to(target), prior


def _from_pretrained(kind: Callable[..., T], folder: Path, **options: Any) -> T:
    """Call ``from_pretrained`` of a class of diffusers or transformers, whose own types are incomplete."""
    return cast(Any, kind).from_pretrained(folder, **options)


def pick_device(device: str) -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1" or "mps" into a device that is really there."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError):
        raise SettingsError(f"The device {device!r} is not available here; use auto, cpu, cuda or mps.") from None
    return chosen


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Turn "auto" or a name into a dtype: float16 on CUDA, where it is twice as fast, else float32."""
    if dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise SettingsError(f"The dtype {dtype!r} is unknown; use auto, {', '.join(DTYPES)}.")
    return DTYPES[dtype]


@torch.no_grad()  # not inference mode: training builds on this tensor
def empty_prompt(record: Checkpoint, dtype: torch.dtype) -> Tensor:
    """Embed the empty text -> [1, 2, D], begin and end of text alone; the text encoder is dropped afterwards."""
    tokenizer: Any = _from_pretrained(CLIPTokenizer, record.folder / "tokenizer", local_files_only=True)
    tokens = tokenizer("", padding="do_not_pad", return_tensors="pt").input_ids  # [1, 2]
    with _no_progress_bars():
        encoder: Any = _from_pretrained(
            CLIPTextModel,
            record.folder / "text_encoder",
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            variant=record.variant,
        )
    return encoder(tokens).last_hidden_state


@contextmanager
def _no_progress_bars() -> Generator[None]:
    """Keep the libraries from drawing bars for a fraction of a second on the caller's stderr."""
    shown = [library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()

"""From a verified checkpoint folder to loaded parts: safetensors only, straight into the target type, one copy."""

import copy
import inspect
import os
import platform
import reprlib
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.utils import logging as diffusers_logging
from safetensors import safe_open
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from marigold_core.checkpoints.families import Family
from marigold_core.checkpoints.layout import AGAIN, DISPLACEMENT, DRAFT, ERROR, PRIOR, SCHEDULE, Config, read_config
from marigold_core.checkpoints.registry import Checkpoint, TinyAutoencoder, find, find_tiny_autoencoder
from marigold_core.checkpoints.weights import component_files
from marigold_core.errors import CheckpointError, MarigoldError, SettingsError
from marigold_core.pipeline.attention import attend_in_blocks
from marigold_core.pipeline.displacement import DisplacementNetwork
from marigold_core.pipeline.draft import DraftNetwork
from marigold_core.pipeline.expected_error import ErrorNetwork
from marigold_core.pipeline.image_prior import GuidedUNet, ImagePrior
from marigold_core.pipeline.packed import pack
from marigold_core.pipeline.strips import return_memory, reuse_memory, work_in_strips
from marigold_core.settings import Settings, bounds

_LOADING = threading.Lock()
T = TypeVar("T")
Model = TypeVar("Model", bound=nn.Module)
FLOAT16_CAPABILITY = (7, 0)  # of CUDA devices from which on matrices of float16 are multiplied faster than of float32
FLAGS = {"1": True, "true": True, "0": False, "false": False}  # words of environment variables
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
Components = tuple[
    Checkpoint,
    UNet2DConditionModel,
    AutoencoderKL | AutoencoderTiny,
    DDIMScheduler | LCMScheduler,
    Tensor,
    ImagePrior | None,
    DraftNetwork | None,
    DisplacementNetwork | None,
    ErrorNetwork | None,
]


def load_components(checkpoint: str | Path, device: str, dtype: str, refetch: bool) -> Components:
    """Find, verify and load a checkpoint -> its record and parts; the prompt embedding is [1, 2 or 77, D].

    Raises: CheckpointError as ``checkpoints.find``, and when weights are missing, superfluous, of another shape or not
    finite, or a configuration does not fit them; SettingsError for an unknown device or dtype.
    """
    target = pick_device(device)
    chosen = pick_dtype(dtype, target)
    record = find(checkpoint, refetch=refetch)
    scheduler_class = LCMScheduler if record.scheduler == "lcm" else DDIMScheduler
    vae_class = AutoencoderTiny if record.vae_class == "AutoencoderTiny" else AutoencoderKL
    in_bfloat16_on_cpu = target.type == "cpu" and chosen == torch.bfloat16
    lacks_amx = in_bfloat16_on_cpu and _bfloat16_instructions() == ["avx512_bf16"]

    def part(kind: type[Model], name: str, dtype: torch.dtype, by_tensor: bool = False) -> Model:
        return _load(kind, record.folder / name, name, dtype, record.variant, by_tensor)

    if target.type == "cpu":
        reuse_memory()
    with _quiet():
        with refusals("scheduler"):
            check_types(scheduler_class, read_config(record.folder, SCHEDULE), SCHEDULE)
            options = _schedule_options(record.family)
            scheduler = _from_pretrained(scheduler_class, record.folder, subfolder="scheduler", **options)
            _check_schedule(scheduler, record.family.one_step)
        prompt = empty_prompt(record, chosen)  # before the U-Net: the text encoder's memory is free again for it
        return_memory()
        unet = part(GuidedUNet if record.prior else UNet2DConditionModel, "unet", chosen, by_tensor=lacks_amx)
        # What comes after the prior's convolutions stays float32; its rounding would be the largest error of the map.
        prior = part(ImagePrior, PRIOR, torch.float32) if record.prior else None
        draft = part(DraftNetwork, DRAFT, torch.float32) if record.draft else None
        displacement = part(DisplacementNetwork, DISPLACEMENT, torch.float32) if record.displacement else None
        error = part(ErrorNetwork, ERROR, torch.float32) if record.expected_error else None
        vae = part(vae_class, "vae", chosen)
    if prior is not None:
        prior.convolve_in(chosen)
    # Before the move: a host that lends its GPU only emulates one here.
    _speed_up(vae, target, chosen)
    if target.type == "cuda":  # on a CPU it gains little, and the weights would be copied out of the mapped file
        _place(unet, target, chosen)
    if in_bfloat16_on_cpu:
        work_in_strips(vae)
        for weights in vae.parameters():
            if weights.ndim != 4:  # all others were copied into their layout: no part of the mapped file is needed
                weights.data = weights.data.clone()
    if lacks_amx:
        attend_in_blocks(unet, vae)
        if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # not where a variable keeps oneDNN from AVX-512
            pack(*filter(None, (unet, vae, prior)))
    networks: list[nn.Module | None] = [unet, vae, prior, draft, displacement, error]
    for network in filter(None, networks):
        network.eval().requires_grad_(False).to(target)
    return_memory()
    return record, unet, vae, scheduler, prompt.to(target), prior, draft, displacement, error


def _place(network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Give the weights of a network, and so its feature maps, the layout in which convolutions are fastest.

    In half precision channels come last, as instructions for matrices want them. float32 keeps the order of torch, and
    so do devices other than CPU and CUDA. Nothing is timed: results of each layout round differently.
    """
    if dtype != torch.float32 and device.type in ("cpu", "cuda"):
        place: Any = network.to
        place(memory_format=torch.channels_last)


def _speed_up(vae: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Let an autoencoder, most of the work of a run of few steps, use less time and memory."""
    _place(vae, device, dtype)
    for module in vae.modules():
        if isinstance(module, nn.SiLU):
            module.inplace = True  # what it is given is always the fresh output of a norm


def load_tiny_autoencoder(
    name: str, device: torch.device, dtype: torch.dtype
) -> tuple[TinyAutoencoder, AutoencoderTiny]:
    """Find, verify and load a tiny autoencoder: a folder or a hub id -> its record and network.

    Raises: CheckpointError when it is missing, unreachable, damaged or none.
    """
    record = find_tiny_autoencoder(name)
    with _quiet():
        network: Any = _load(AutoencoderTiny, record.folder, "tiny autoencoder", dtype)
    _speed_up(network, device, dtype)
    return record, network.eval().requires_grad_(False).to(device)


def _load(
    kind: type[Model],
    folder: Path,
    part: str,
    dtype: torch.dtype,
    variant: str | None = None,
    by_tensor: bool = False,
) -> Model:
    """Load the network of a verified folder, with ``by_tensor`` as ``_read`` does.

    Raises: CheckpointError unless all weights are there and finite.
    """
    is_text = kind is CLIPTextModel
    options: dict[str, Any] = {
        "dtype" if is_text else "torch_dtype": torch.get_default_dtype() if is_text else dtype,
        "variant": variant,
        "use_safetensors": True,
        "local_files_only": True,
        "output_loading_info": True,
        **({} if is_text else {"low_cpu_mem_usage": True}),  # the weights are read into place: never two copies
    }
    with refusals(part):
        if not is_text:  # those of transformers check their own
            check_types(kind, read_config(folder, "config.json"), f"{part}/config.json")
        loaded: Any = _read(kind, folder, dtype, variant) if by_tensor else _from_pretrained(kind, folder, **options)
        model, found = cast(tuple[Model, dict[str, list[str]]], loaded)
        if is_text:
            cast(Any, model).to(dtype)
    for names, fault in (("missing_keys", "lacks weights of"), ("unexpected_keys", "has weights that are not of")):
        if found.get(names):
            raise CheckpointError(
                f"The {part} of the checkpoint {fault} its configuration, such as {min(found[names])}; {AGAIN}."
            )
    for name, weights in model.state_dict().items():
        if weights.is_floating_point() and not torch.isfinite(weights).all():
            raise CheckpointError(
                f"The {part} of the checkpoint has weights that are not finite as {str(dtype).removeprefix('torch.')},"
                f" such as {name}; {AGAIN}, or try float32."
            )
    return model


def _read(
    kind: type[Model], folder: Path, dtype: torch.dtype, variant: str | None
) -> tuple[Model, dict[str, list[str]]]:
    """Read the network of a folder of diffusers into memory -> the network, and names as ``from_pretrained`` gives.

    A weight file is opened for each tensor: the pages of one that stays open count as memory beside the tensors.
    Raises: RuntimeError for weights of another shape.
    """
    maker: Any = kind
    with torch.device("meta"):
        model = maker.from_config(maker.load_config(folder)).eval()
    state: dict[str, Tensor] = {}
    for name in component_files([f"{folder.name}/{path.name}" for path in folder.iterdir()], folder.name, variant):
        open_weights = partial(cast(Any, safe_open), folder.parent / name, framework="pt")
        with open_weights() as file:
            keys = list(file.keys())
        for key in keys:
            with open_weights() as file:
                state[key] = file.get_tensor(key).to(dtype, copy=True)
    found = model.load_state_dict(state, strict=False, assign=True)
    return model, {"missing_keys": found.missing_keys, "unexpected_keys": found.unexpected_keys}


@contextmanager
def refusals(part: str) -> Generator[None]:
    """Turn whatever a library raises about a part of a checkpoint into a ``CheckpointError``."""
    try:
        yield
    except (MarigoldError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise CheckpointError(
            f"The {part} of the checkpoint cannot be used: its configuration or its weights are damaged, or do not fit "
            f"each other; {AGAIN}."
        ) from error


def without_values(part: Any) -> Any:
    """Build a network of diffusers anew on the meta device, which computes shapes alone; None stays None."""
    with torch.device("meta"):
        return None if part is None else cast(Any, type(part)).from_config(part.config).eval()


def check_types(kind: type, config: Config, label: str) -> None:
    """Compare the numbers, words and flags of a configuration with what the class of diffusers takes.

    diffusers does not: "false" would count as true. Raises: CheckpointError.
    """
    for name, parameter in inspect.signature(kind.__init__, eval_str=True).parameters.items():
        kinds = parameter.annotation
        accepted = get_args(kinds) if get_origin(kinds) in (Union, UnionType) else (kinds,)
        value = config.get(name)
        if value is None or not {*accepted} <= {bool, int, float, str, NoneType}:
            continue
        if type(value) not in accepted and not (float in accepted and type(value) is int):
            received = " ".join(reprlib.repr(value).split())
            expected = " or ".join(one.__name__ for one in accepted if one is not NoneType)
            raise CheckpointError(
                f"In {label} of the checkpoint {name} must be {expected}, but is {received}; {AGAIN}."
            )


def _schedule_options(family: Family) -> dict[str, Any]:
    """Return what a family decides in place of a scheduler's file, which may be another sampler's."""
    options: dict[str, Any] = {"timestep_spacing": family.spacing, "steps_offset": 1} if family.one_step else {}
    if family.prediction_type == "sample":  # that is the result: nothing of it is computed or clipped
        options |= {"prediction_type": "sample", "clip_sample": False, "thresholding": False}
    return options


def _check_schedule(scheduler: DDIMScheduler | LCMScheduler, one_step: bool) -> None:
    """Refuse a noise schedule that does not fall from the picture to noise, or takes not every number of steps.

    Where the network is used once, it need not fall. Raises: CheckpointError, or whatever diffusers raises.
    """
    signal = scheduler.alphas_cumprod  # [T], share of the picture at each timestep
    falls = one_step or bool((signal.diff() < 0).all())
    is_share = bool(((signal >= 0) & (signal <= 1)).all())  # false where not finite
    length = scheduler.config["num_train_timesteps"]
    if not (falls and is_share) or len(signal) != length:
        raise CheckpointError(f"The noise schedule in {SCHEDULE} of the checkpoint does not end in noise; {AGAIN}.")
    for steps in map(int, bounds(Settings, "num_inference_steps")):
        copied: Any = copy.deepcopy(scheduler)
        copied.set_timesteps(steps)
        copied.step(torch.zeros(1, 4, 8, 8), int(copied.timesteps[-1]), torch.zeros(1, 4, 8, 8))
        if not all(0 <= int(t) < length for t in copied.timesteps):
            raise CheckpointError(f"The timesteps of {SCHEDULE} lie outside its noise schedule; {AGAIN}.")


def _from_pretrained(kind: Callable[..., T], folder: Path, **options: Any) -> T:
    """Call ``from_pretrained`` of a class of diffusers or transformers, whose own types are incomplete.

    Both would change the default dtype of the process meanwhile, in which other threads make tensors. Diffusers reads
    weights into place in the dtype that was asked for, so it is kept from that, one call at a time.
    """
    changing: Any = kind
    with _LOADING:
        changing._set_default_torch_dtype = lambda dtype: None  # type: ignore[reportUnknownLambdaType]
        try:
            return changing.from_pretrained(folder, **options)
        finally:
            del changing._set_default_torch_dtype


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
    """Turn a name or "auto" into a dtype; "auto" is what $MARIGOLD_DTYPE names, else the fastest one of the device.

    That is float16 on GPUs that compute in it, which has three more bits than bfloat16 at the same speed, bfloat16 on
    CPUs that compute in it, and float32 on all others.
    """
    stated = (os.environ.get("MARIGOLD_DTYPE") or "auto") if dtype == "auto" else dtype
    if stated in DTYPES:
        return DTYPES[stated]
    if stated != "auto":
        raise SettingsError(f"The dtype {stated!r} is unknown; use auto, {', '.join(DTYPES)}.")
    if device.type == "cpu":
        return torch.bfloat16 if _computes_bfloat16() else torch.float32
    slow = device.type == "cuda" and torch.cuda.get_device_capability(device) < FLOAT16_CAPABILITY
    return torch.float32 if slow else torch.float16


def compiles_by_default() -> bool:
    """Return what $MARIGOLD_COMPILE says, false where it is not set. Raises: SettingsError where it is no such word."""
    stated = os.environ.get("MARIGOLD_COMPILE") or "false"
    if stated.lower() not in FLAGS:
        raise SettingsError(f"MARIGOLD_COMPILE must be 1, 0, true or false, but got {stated!r}.")
    return FLAGS[stated.lower()]


def _computes_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 numbers, by AMX or AVX512-BF16, and torch may let it.

    A CPU without such instructions converts them to float32 and back, which is slower than float32.
    """
    return bool(_bfloat16_instructions()) and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _bfloat16_instructions() -> list[str]:
    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in every version that we take
    return [name for name in ("amx_bf16", "avx512_bf16") if found.get(name)]


def describe_machine(device: torch.device) -> str:
    """Describe what decides the last bits of a result: system, processor, the instructions it may use, GPU."""
    parts = [f"{platform.system()} {platform.machine()}", torch.backends.cpu.get_cpu_capability()]
    parts += _bfloat16_instructions()
    parts += [f"{name}={os.environ[name]}" for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA") if name in os.environ]
    if device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    return ", ".join(parts)


@torch.no_grad()  # not inference mode: training builds on this tensor
def empty_prompt(record: Checkpoint, dtype: torch.dtype) -> Tensor:
    """Embed the empty text -> [1, N, D] with the N tokens of the checkpoint's family; the text encoder is dropped.

    Raises: CheckpointError when the tokenizer or the text encoder is not whole, or they do not fit each other.
    """
    with _quiet():
        with refusals("tokenizer"):
            tokenizer: Any = _from_pretrained(CLIPTokenizer, record.folder / "tokenizer", local_files_only=True)
            tokens = tokenizer("", padding="do_not_pad", return_tensors="pt").input_ids  # [1, 2]
            length = record.family.prompt_tokens
            padded = tokenizer("", padding="max_length", max_length=length, return_tensors="pt").input_ids
        encoder: Any = _load(CLIPTextModel, record.folder / "text_encoder", "text_encoder", dtype, record.variant)
        size = encoder.config.vocab_size
        if len(tokenizer) != size or tokens.tolist() != [
            [size - 2, size - 1]
        ]:  # begin and end are the last words of CLIP
            raise CheckpointError(
                f"The tokenizer of the checkpoint, of {len(tokenizer)} tokens, is damaged or does not fit its text"
                f" encoder of {size}; {AGAIN}."
            )
        with refusals("text_encoder"):
            return encoder(padded).last_hidden_state


@contextmanager
def _quiet() -> Generator[None]:
    """Keep bars of a fraction of a second, and warnings of what is refused here, off the caller's stderr."""
    libraries: tuple[Any, ...] = (diffusers_logging, transformers_logging)
    before = [(library, library.is_progress_bar_enabled(), library.get_verbosity()) for library in libraries]
    for library in libraries:
        library.disable_progress_bar()
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, bars, verbosity in before:
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()

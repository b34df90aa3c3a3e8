"""The configuration files of a checkpoint folder: is it a Marigold checkpoint, and what can it do?

Only JSON is read, so a wrong repository is refused before its gigabytes are fetched.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from pydantic import TypeAdapter

from marigold_core.errors import CheckpointError, SettingsError
from marigold_core.prediction import DepthTransfer, Kind, Space
from marigold_core.settings import Settings

Modality = Literal["depth", "normals"]
Config = dict[str, object]
_CONFIG = TypeAdapter(Config)

MODALITIES: dict[str, Modality] = {
    "MarigoldDepthPipeline": "depth",
    "MarigoldPipeline": "depth",  # the name in the authors' own repository
    "MarigoldNormalsPipeline": "normals",
}
CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "scheduler": ("DDIMScheduler", "LCMScheduler"),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
INDEX = "model_index.json"
PRIOR = "prior"  # folder of the image prior, which a checkpoint may do without
PRIOR_CONFIG = f"{PRIOR}/config.json"
GUIDED = "prior_channels"  # in a U-Net's configuration: channels of the prior's features that it takes
DRAFTED = "prior_draft"  # in a U-Net's configuration: whether it takes the prior's draft
CONFIGS = (INDEX, "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json", "text_encoder/config.json")
OTHER_UNETS = {
    4: "a plain Stable Diffusion",
    9: "an inpainting",
    12: "an intrinsic-image",
    16: "an intrinsic-image",
}


@dataclass(frozen=True)
class Capabilities:
    """What the configuration files say about a checkpoint."""

    modality: Modality
    kind: Kind
    space: Space
    depth_transfer: DepthTransfer  # of depth: from depth to the grey of the picture
    scheduler: Literal["ddim", "lcm"]
    vae_class: Literal["AutoencoderKL", "AutoencoderTiny"]
    full_z_range: bool  # normals: decoded z spans [-1, 1] rather than [0, 1]
    default_steps: int
    default_resolution: int  # longest edge the network sees, pixels
    prior: bool  # whether it has an image prior of its own (``prior``)


def describe(folder: Path) -> Capabilities:
    """Read a folder's configuration files -> what the checkpoint can do.

    Raises: CheckpointError when it is not a depth or normals checkpoint that this library runs.
    """
    index = read_index(folder)
    modality = MODALITIES[str(index["_class_name"])]
    classes = {part: _component_class(index, part) for part in CLASSES}
    check_unet(read_config(folder, "unet/config.json"))
    latent_channels = read_config(folder, "vae/config.json").get("latent_channels", 4)
    if latent_channels != 4:
        raise CheckpointError(f"The autoencoder has {latent_channels} latent channels; a Marigold autoencoder has 4.")
    schedule = read_config(folder, "scheduler/scheduler_config.json")
    if schedule.get("prediction_type") != "v_prediction":
        predicted = schedule.get("prediction_type", "epsilon")
        raise CheckpointError(f"The scheduler predicts {predicted}; Marigold checkpoints predict v_prediction.")
    read_config(folder, "text_encoder/config.json")
    scheduler = "lcm" if classes["scheduler"] == "LCMScheduler" else "ddim"
    trailing = schedule.get("timestep_spacing") == "trailing"
    steps, resolution = _defaults(index, steps=1 if scheduler == "lcm" else 4 if trailing else 10)
    return Capabilities(
        modality=modality,
        kind=_kind(index, modality),
        space=_space(index, modality),
        depth_transfer=_depth_transfer(index, modality),
        scheduler=scheduler,
        vae_class=cast(Literal["AutoencoderKL", "AutoencoderTiny"], classes["vae"]),
        full_z_range=index.get("use_full_z_range", True) is not False,
        default_steps=steps,
        default_resolution=resolution,
        prior=_has_prior(folder),
    )


def read_index(folder: Path) -> Config:
    """Read ``model_index.json`` of a depth or normals pipeline.

    Raises: CheckpointError when the folder is empty, of another layout or of another pipeline.
    """
    if not (folder / INDEX).is_file():
        found = "it is empty" if not any(folder.iterdir()) else f"it has no {INDEX}"
        raise CheckpointError(
            f"The folder {folder.name!r} is not a checkpoint in diffusers' layout: {found}. Give the folder that "
            f"holds {INDEX}, unet, vae, scheduler, text_encoder and tokenizer."
        )
    index = read_config(folder, INDEX)
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in MODALITIES:
        raise CheckpointError(
            f"This is a {name if isinstance(name, str) else 'custom-code'} checkpoint; only MarigoldDepthPipeline and "
            "MarigoldNormalsPipeline checkpoints can be used here."
        )
    return index


def read_config(folder: Path, name: str) -> Config:
    """Read one JSON object of a checkpoint.

    Raises: CheckpointError when it is missing or garbled.
    """
    try:
        return _CONFIG.validate_json((folder / name).read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"The checkpoint is incomplete: {name} is missing; fetch or copy it again.") from None
    except ValueError:
        text = f"The file {name} of the checkpoint is damaged, it is not JSON; fetch or copy it again."
        raise CheckpointError(text) from None


def check_unet(config: Config) -> None:
    """Compare a U-Net's channels with Marigold's, 8 (photo and noisy map, 4 each) -> 4.

    Raises: CheckpointError naming the family that it looks like.
    """
    received, sent = config.get("in_channels"), config.get("out_channels")
    if (received, sent) != (8, 4):
        family = OTHER_UNETS.get(received, "another") if isinstance(received, int) else "another"
        raise CheckpointError(
            f"The U-Net has {received} input and {sent} output channels, {family} model; "
            "a Marigold depth or normals U-Net has 8 and 4."
        )


def canonical(config: Config) -> str:
    """Write a configuration as text that does not depend on line ends, order or the library version that saved it."""
    return json.dumps({key: value for key, value in config.items() if not key.startswith("_")}, sort_keys=True)


def fingerprint(folder: Path) -> str:
    """Hash all configuration files of a checkpoint -> sha256 in hex, the same for equal content."""
    names = (*CONFIGS, PRIOR_CONFIG) if (folder / PRIOR_CONFIG).exists() else CONFIGS
    text = "\n".join(f"{name} {canonical(read_config(folder, name))}" for name in names)
    return hashlib.sha256(text.encode()).hexdigest()


def _has_prior(folder: Path) -> bool:
    """Tell whether there is an image prior. Raises: CheckpointError when the U-Net takes none or another."""
    unet = read_config(folder, "unet/config.json")
    taken = unet.get(GUIDED)
    if taken is None and not (folder / PRIOR_CONFIG).exists():
        return False
    prior = read_config(folder, PRIOR_CONFIG)
    try:
        blocks, taps = cast(list[list[int]], prior["block_sizes"]), cast(list[int], prior["taps"])
        given = [blocks[tap][2] for tap in taps]
    except (KeyError, IndexError, TypeError):
        given = None
    drafts = bool(prior.get("draft_width")), bool(unet.get(DRAFTED))
    if given is None or given != taken or drafts[0] != drafts[1]:
        raise CheckpointError("The checkpoint has an image prior that its U-Net does not take; fetch or copy it again.")
    return True


def _component_class(index: Config, part: str) -> str:
    entry = index.get(part)
    pair = cast(list[object], entry) if isinstance(entry, list) else []  # [library, class]
    name = pair[1] if len(pair) == 2 else None
    if not isinstance(name, str) or name not in CLASSES[part]:
        raise CheckpointError(
            f"The checkpoint's {part} is {name or 'missing'}; it must be {' or '.join(CLASSES[part])}."
        )
    return name


def _kind(index: Config, modality: Modality) -> Kind:
    if modality == "normals":
        return "unit-vector"
    scale, shift = index.get("scale_invariant", True), index.get("shift_invariant", True)
    if shift and not scale:
        raise CheckpointError(
            "A checkpoint that knows scale but not shift cannot be ensembled; neither can it be used here."
        )
    return "affine" if shift else "scale" if scale else "metric"


def _space(index: Config, modality: Modality) -> Space:
    """``prediction_type`` is diffusers' key; ``depth_space`` is ours, for checkpoints trained on log depth."""
    predicted = index.get("prediction_type") or modality
    accepted = ("depth", "disparity") if modality == "depth" else ("normals",)
    if predicted not in accepted:
        raise CheckpointError(
            f"The checkpoint predicts {predicted}; a {modality} checkpoint predicts {' or '.join(accepted)}."
        )
    if predicted == "disparity":
        return "disparity"
    return "log" if index.get("depth_space") == "log" else "depth"


def _depth_transfer(index: Config, modality: Modality) -> DepthTransfer:
    """``depth_curve`` is a key of ours; diffusers ignores it and shows the grey of the picture."""
    curve = index.get("depth_curve", "linear")
    if curve not in ("linear", "root") or (modality == "normals" and curve != "linear"):
        raise CheckpointError(
            f"The checkpoint encodes {modality} with the transfer function {curve!r}, "
            "which this version does not support; update marigold-depth-studio."
        )
    return curve


def _defaults(index: Config, steps: int) -> tuple[int, int]:
    """Take the checkpoint's own steps and resolution where it states them, in the ranges that settings accept."""
    steps = cast(int, index.get("default_denoising_steps") or steps)
    resolution = cast(int, index.get("default_processing_resolution") or 768)
    try:
        Settings(num_inference_steps=steps, processing_resolution=resolution)  # checks types as well
    except SettingsError as error:
        raise CheckpointError(f"The defaults in {INDEX} cannot be used: {error}") from None
    return steps, resolution

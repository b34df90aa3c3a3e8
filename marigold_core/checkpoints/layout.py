"""The configuration files of a checkpoint folder: is it one that this library runs, and what can it do?

Only JSON is read, so a wrong repository is refused before its gigabytes are fetched.
"""

import hashlib
import json
import math
from codecs import BOM_UTF8
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from marigold_core.checkpoints.families import MARIGOLD, QUANTITY, Family, recognise, unstated
from marigold_core.errors import CheckpointError, SettingsError
from marigold_core.images.intrinsics import ClassColour, Layer, LayerName, count_pictures
from marigold_core.prediction import DepthTransfer, Kind, Space, gives_uncertainty
from marigold_core.settings import Settings, sentence

Modality = Literal["depth", "normals", "intrinsics", "segmentation"]
Config = dict[str, object]
_CONFIG = TypeAdapter(Config)

MODALITIES: dict[str, Modality] = {
    "MarigoldDepthPipeline": "depth",
    "MarigoldPipeline": "depth",  # the name in the authors' own repository
    "MarigoldNormalsPipeline": "normals",
    "MarigoldIntrinsicsPipeline": "intrinsics",
    "MarigoldIIDPipeline": "intrinsics",  # the name in the authors' own repository
}
OTHER_PIPELINES = ("StableDiffusionPipeline", "LotusGPipeline", "LotusDPipeline")  # these do not tell the modality
CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "scheduler": ("DDIMScheduler", "LCMScheduler"),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
ONE_STEP_SCHEDULERS = ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler")  # all that is read of them is the schedule
INDEX = "model_index.json"
MAX_TIMESTEPS = 10_000  # more are a mistake; published checkpoints have 1000
SCHEDULE = "scheduler/scheduler_config.json"
AGAIN = "fetch or copy it again"  # how messages about damage end
PRIOR = "prior"  # folder of the image prior, which a checkpoint may do without
PRIOR_CONFIG = f"{PRIOR}/config.json"
DISPLACEMENT = "displacement"  # folder of the network that moves outlines, which a checkpoint may do without
DRAFT = "draft"  # folder of the network that drafts depth, which a checkpoint may do without
ERROR = "expected_error"  # folder of the network that expects errors, which a checkpoint may do without
GUIDED_CLASS = "GuidedUNet"  # the class of a U-Net that takes an image prior
GUIDED = "prior_channels"  # in a U-Net's configuration: channels of the prior's features that it takes
CONFIGS = (INDEX, "unet/config.json", "vae/config.json", SCHEDULE, "text_encoder/config.json")
VOCABULARY, MERGES, FAST_TOKENIZER = (f"tokenizer/{name}" for name in ("vocab.json", "merges.txt", "tokenizer.json"))
TOKENIZER = (  # what transformers reads of its folder as JSON objects
    VOCABULARY,
    FAST_TOKENIZER,
    *(f"tokenizer/{name}.json" for name in ("tokenizer_config", "special_tokens_map", "added_tokens")),
)
OTHER_UNETS = {4: "a plain Stable Diffusion", 9: "an inpainting", 12: "an intrinsic-image", 16: "an intrinsic-image"}
COLOURS = (0, 1, 2)  # channels of a picture


@dataclass(frozen=True)
class Capabilities:
    """What the configuration files say about a checkpoint."""

    family: Family
    modality: Modality
    kind: Kind
    space: Space
    depth_transfer: DepthTransfer  # of depth: from depth to the grey of the picture
    scheduler: Literal["ddim", "lcm"]
    vae_class: Literal["AutoencoderKL", "AutoencoderTiny"]
    full_z_range: bool  # normals: decoded z spans [-1, 1] rather than [0, 1]
    layers: tuple[Layer, ...]  # intrinsics and segmentation: what the network makes
    default_steps: int
    default_resolution: int  # longest edge the network sees, pixels
    prior: bool  # whether it has an image prior of its own (``prior``)
    displacement: bool  # whether it has a network of its own that moves outlines (``displacement``)
    draft: bool  # whether it has a network of its own that drafts depth (``draft``)
    expected_error: bool  # whether it has a network of its own that expects errors (``expected_error``)
    metric_range_m: tuple[float, float] | None  # of depth in metres: the depths that are black and white
    focal_px: float | None  # focal length that they are given for, in pixels of the network's input

    def has_uncertainty(self, members: int, *, guided: bool = False) -> bool:
        """Whether a result of so many members has uncertainty, or one that known depths have ``guided``."""
        return gives_uncertainty(members, self.expected_error and not guided)

    @property
    def pictures(self) -> int:
        """How many pictures the network makes at once, each a latent of four channels."""
        return count_pictures(self.layers)


_Metres = Annotated[float, Field(strict=True, gt=0, le=1e9)]


class _Claims(BaseModel):
    """What ``model_index.json`` says about the predictions; null stands for the default."""

    model_config = ConfigDict(strict=True)

    prediction_type: str | None = (
        None  # diffusers' key: "depth", "disparity", which is larger where it is near, "normals", "intrinsics"
    )
    initial_noise: Literal["gaussian", "zeros"] | None = None  # a key of ours
    scale_invariant: bool | None = None
    shift_invariant: bool | None = None
    use_full_z_range: bool | None = None
    default_denoising_steps: int | None = None
    default_processing_resolution: int | None = None
    depth_space: Literal["depth", "log"] | None = None  # a key of ours, for checkpoints trained on log depth
    metric_range_m: tuple[_Metres, _Metres] | None = Field(default=None, strict=False)  # a key of ours, as the next one
    canonical_focal_px: float | None = Field(default=None, gt=0, le=1e6)
    depth_curve: str | None = None  # a key of ours; diffusers ignores it and shows the grey of the picture
    target_properties: dict[str, object] | None = None  # diffusers' key: what the pictures of intrinsics hold


_Rgb = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]


class _Target(BaseModel):
    """What ``target_properties`` says about one picture, or about one layer of a picture that stacks several."""

    model_config = ConfigDict(strict=True)

    prediction_space: Literal["srgb", "linear", "stack", "grey"] = "srgb"
    sub_target_names: Annotated[list[str | None], Field(max_length=len(COLOURS))] = []
    up_to_scale: bool = False
    classes: dict[str, _Rgb] = {}  # of a segmentation: their colours


_NAMES, _LAYER_NAME = TypeAdapter(list[str]), TypeAdapter[LayerName](LayerName)


def describe(folder: Path) -> Capabilities:
    """Read a folder's configuration files -> what the checkpoint can do.

    Raises: CheckpointError when it is not a checkpoint that this library runs.
    """
    index = read_index(folder)
    unet, vae, schedule = (read_config(folder, name) for name in ("unet/config.json", "vae/config.json", SCHEDULE))
    claims, family = _read_claims(index), recognise(index, unet, schedule)
    modality = _modality(index)
    layers = _layers(claims) if modality in ("intrinsics", "segmentation") else ()
    if (modality == "segmentation") != (len(layers) == 1 and bool(layers[0].classes)):
        raise CheckpointError(
            f"In {INDEX} of the checkpoint target_properties: a segmentation has one target, with classes, others have"
            " none or more."
        )
    check_unet(unet, family, count_pictures(layers))
    if modality == "normals" and family.normals_x is None:
        raise CheckpointError(
            f"Which way the normals of a {family.name} checkpoint point is not documented; give another."
        )
    classes = {part: _component_class(index, part, family) for part in CLASSES}
    latent_channels, scaling = vae.get("latent_channels", 4), vae.get("scaling_factor", 1)
    if latent_channels != 4:
        raise CheckpointError(f"The autoencoder has {latent_channels} latent channels; a Marigold autoencoder has 4.")
    if not isinstance(scaling, int | float) or not 0 < scaling < math.inf:
        raise CheckpointError(f"The autoencoder's scaling_factor is {scaling!r}; it must be a number above 0: {AGAIN}.")
    length = schedule.get("num_train_timesteps", 1000)
    if type(length) is not int or not 50 <= length <= MAX_TIMESTEPS:
        raise CheckpointError(
            f"In {SCHEDULE} num_train_timesteps is {length!r}; it must be 50 to {MAX_TIMESTEPS}: {AGAIN}."
        )
    if family.prediction_type == "v_prediction" != schedule.get("prediction_type"):
        predicted = schedule.get("prediction_type", "epsilon")
        raise CheckpointError(f"The scheduler predicts {predicted}; Marigold checkpoints predict v_prediction.")
    _check_classes(classes, {"unet": unet, "vae": vae, "scheduler": schedule})
    _check_text(folder)
    scheduler = "lcm" if classes["scheduler"] == "LCMScheduler" else "ddim"
    trailing = schedule.get("timestep_spacing") == "trailing"
    steps, resolution = _defaults(claims, steps=1 if scheduler == "lcm" else 4 if trailing else 10)
    kind, prior = _kind(claims, modality), _has_prior(folder)
    is_usable = kind == "affine" and prior  # of networks that read relative depth off the features of a prior
    return Capabilities(
        family=family,
        modality=modality,
        kind=kind,
        space=_space(claims, modality),
        depth_transfer=_depth_transfer(claims, modality),
        scheduler=scheduler,
        vae_class=cast(Literal["AutoencoderKL", "AutoencoderTiny"], classes["vae"]),
        full_z_range=claims.use_full_z_range is not False,
        layers=layers,
        default_steps=1 if family.one_step else steps,
        default_resolution=resolution,
        prior=prior,
        draft=_has_for_depth(folder, DRAFT, is_usable),
        displacement=_has(folder, DISPLACEMENT),
        expected_error=_has_for_depth(folder, ERROR, is_usable),
        metric_range_m=_metric_range(claims, kind),
        focal_px=claims.canonical_focal_px,
    )


def read_index(folder: Path) -> Config:
    """Read ``model_index.json`` of a pipeline of ours, with what is known of a published one beside it.

    Raises: CheckpointError when the folder is empty, of another layout or of another pipeline.
    """
    if not (folder / INDEX).is_file():
        found = "it is empty" if not any(folder.iterdir()) else f"it has no {INDEX}"
        raise CheckpointError(
            f"The folder {folder.name!r} is not a checkpoint in diffusers' layout: {found}. Give the folder that "
            f"holds {INDEX}, unet, vae, scheduler, text_encoder and tokenizer."
        )
    index = unstated(folder) | read_config(folder, INDEX)
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in (*MODALITIES, *OTHER_PIPELINES):
        raise CheckpointError(
            f"This is a {name if isinstance(name, str) else 'custom-code'} checkpoint; only the depth, normals "
            "and intrinsic-image checkpoints of Marigold, E2E-FT, Lotus and GenPercept can be used here."
        )
    return index


def _modality(index: Config) -> Modality:
    """Tell the modalities apart. Raises: CheckpointError where neither the class nor ``prediction_type`` does."""
    if stated := index.get(QUANTITY):
        return stated if stated in ("normals", "intrinsics", "segmentation") else "depth"
    name = str(index["_class_name"])
    if name not in MODALITIES:
        raise CheckpointError(
            f"This {name} does not say what it predicts: add "
            f'"{QUANTITY}": "depth", "disparity" or "normals" to its {INDEX}.'
        )
    return MODALITIES[name]


def read_config(folder: Path, name: str) -> Config:
    """Read one JSON object of a checkpoint.

    A byte-order mark, which editors add, is passed over where no library reads the file as well.

    Raises: CheckpointError when it is missing or garbled.
    """
    try:
        content = (folder / name).read_bytes()
        if content.startswith(BOM_UTF8) and name != INDEX:
            raise CheckpointError(f"The file {name} of the checkpoint begins with a byte-order mark; save it without.")
        return _CONFIG.validate_json(content.removeprefix(BOM_UTF8))
    except FileNotFoundError:
        raise CheckpointError(f"The checkpoint is incomplete: {name} is missing; {AGAIN}.") from None
    except OSError as error:
        raise CheckpointError(f"The file {name} of the checkpoint cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        what = "not JSON" if error.errors()[0]["type"] == "json_invalid" else "no JSON object of names and values"
        raise CheckpointError(f"The file {name} of the checkpoint is damaged, it is {what}; {AGAIN}.") from None


def check_unet(config: Mapping[str, object], family: Family = MARIGOLD, pictures: int = 1) -> None:
    """Compare a U-Net's channels with those of its family: photo and noisy pictures, 4 each, or the photo alone.

    Raises: CheckpointError naming the model that it looks like.
    """
    received, sent = config.get("in_channels"), config.get("out_channels")
    wanted = family.in_channels(pictures), 4 * pictures
    if (received, sent) != wanted:
        other = OTHER_UNETS.get(received, "another") if isinstance(received, int) else "another"
        raise CheckpointError(
            f"The U-Net has {received} input and {sent} output channels, {other} model; "
            f"a {family.name} U-Net for {'one map' if pictures == 1 else f'{pictures} pictures'} has {wanted[0]} and"
            f" {wanted[1]}."
        )


def check_tiny_autoencoder(folder: Path) -> None:
    """See that a folder holds one ``AutoencoderTiny`` with latents of four channels. Raises: CheckpointError."""
    config = read_config(folder, "config.json")
    if (config.get("_class_name"), config.get("latent_channels", 4)) != ("AutoencoderTiny", 4):
        raise CheckpointError(f"{folder.name!r} is no AutoencoderTiny with 4 latent channels; give another.")


def canonical(config: Config) -> str:
    """Write a configuration as text that does not depend on line ends, order or the library version that saved it."""
    return json.dumps({key: value for key, value in config.items() if not key.startswith("_")}, sort_keys=True)


def fingerprint(folder: Path) -> str:
    """Hash all configuration files of a checkpoint -> sha256 in hex, the same for equal content."""
    optional = (f"{name}/config.json" for name in (PRIOR, DRAFT, DISPLACEMENT, ERROR))
    names = (*CONFIGS, *(name for name in optional if (folder / name).exists()))
    text = "\n".join(f"{name} {canonical(read_config(folder, name))}" for name in names)
    text += canonical(known) if (known := unstated(folder)) else ""
    return hashlib.sha256(text.encode()).hexdigest()


def _has_prior(folder: Path) -> bool:
    """Tell whether there is an image prior. Raises: CheckpointError when the U-Net takes none or another."""
    taken = read_config(folder, "unet/config.json").get(GUIDED)
    if taken is None and not (folder / PRIOR_CONFIG).exists():
        return False
    prior = read_config(folder, PRIOR_CONFIG)
    try:
        blocks, taps = cast(list[list[int]], prior["block_sizes"]), cast(list[int], prior["taps"])
        given = [blocks[tap][2] for tap in taps]
    except (KeyError, IndexError, TypeError):
        given = None
    if given is None or given != taken:
        raise CheckpointError(f"The checkpoint has an image prior that its U-Net does not take; {AGAIN}.")
    return True


def _has(folder: Path, network: str) -> bool:
    """Tell whether a checkpoint has an optional network. Raises: CheckpointError when its configuration is missing."""
    return (folder / network).is_dir() and bool(read_config(folder, f"{network}/config.json"))


def _has_for_depth(folder: Path, network: str, is_usable: bool) -> bool:
    """Tell whether there is an optional network for relative depth. Raises: CheckpointError where it cannot be used."""
    if not _has(folder, network):
        return False
    if not is_usable:
        raise CheckpointError(
            f"The checkpoint has a network in {network}, which reads relative depth or its errors from the features of"
            f" an image prior, and it does not predict that or has no prior; remove {network}."
        )
    return True


def _component_class(index: Config, part: str, family: Family) -> str:
    accepted = ONE_STEP_SCHEDULERS if part == "scheduler" and family.one_step else CLASSES[part]
    entry = index.get(part)
    pair = cast(list[object], entry) if isinstance(entry, list) else []  # [library, class]
    name = pair[1] if len(pair) == 2 else None
    if not isinstance(name, str) or name not in accepted:
        raise CheckpointError(f"The checkpoint's {part} is {name or 'missing'}; it must be {' or '.join(accepted)}.")
    return name


def _read_claims(index: Config) -> _Claims:
    try:
        return _Claims.model_validate(index)
    except ValidationError as error:
        raise CheckpointError(f"In {INDEX} of the checkpoint {sentence(error).rstrip('.')}; {AGAIN}.") from None


def _check_classes(classes: dict[str, str], configs: dict[str, Config]) -> None:
    """Compare the class that each configuration names with that of the index."""
    for part, config in configs.items():
        name = config.get("_class_name", classes[part])
        if name != classes[part] and (part, name) != ("unet", GUIDED_CLASS):
            raise CheckpointError(f"The {part} is a {name}, but {INDEX} says {classes[part]}; {AGAIN}.")


def _check_text(folder: Path) -> None:
    """See that the tokenizer is whole and has as many tokens as the text encoder: another one gives another depth."""
    encoder = read_config(folder, "text_encoder/config.json")
    named = encoder.get("architectures")
    if named and not set(CLASSES["text_encoder"]) & set(cast(list[str], named) if isinstance(named, list) else ()):
        raise CheckpointError(f"The text_encoder is {named}; it must be {CLASSES['text_encoder'][0]}.")
    names = {f"tokenizer/{path.name}" for path in (folder / "tokenizer").glob("*")}
    files = {name: read_config(folder, name) for name in sorted(names & {*TOKENIZER})}
    if VOCABULARY not in names and FAST_TOKENIZER not in names:
        raise CheckpointError(f"The checkpoint is incomplete: {VOCABULARY} is missing; {AGAIN}.")
    if VOCABULARY in names and not ((folder / MERGES).is_file() and (folder / MERGES).stat().st_size):
        raise CheckpointError(f"The checkpoint is incomplete: {MERGES} is missing or empty; {AGAIN}.")
    model = files.get(FAST_TOKENIZER, {}).get("model")
    fast = cast(Config, model).get("vocab") if isinstance(model, dict) else None
    vocabularies = {VOCABULARY: files.get(VOCABULARY), FAST_TOKENIZER: fast}
    size = encoder.get("vocab_size", 49408)  # of CLIP
    for name, words in vocabularies.items():
        count = len(cast(Config, words)) if isinstance(words, dict) else 0
        if name in names and count != size:
            raise CheckpointError(
                f"The tokenizer has {count} tokens in {name} and the text encoder {size}: they do not belong together; "
                f"{AGAIN}."
            )


def _layers(claims: _Claims) -> tuple[Layer, ...]:
    """Read which layers lie in which channels of the pictures of an intrinsics checkpoint.

    A picture is a layer in colour, one number in "grey", or "stack" up to three layers without colour, null where a
    channel is unused.
    Raises: CheckpointError where ``target_properties`` does not say so, or names a layer that is not known.
    """
    stated, layers = claims.target_properties or {}, list[Layer]()
    try:
        for picture, target in enumerate(_NAMES.validate_python(stated.get("target_names"))):
            about = _Target.model_validate(stated.get(target, {}))
            stacked = [(name, (channel,)) for channel, name in enumerate(about.sub_target_names) if name]
            for name, channels in stacked if about.prediction_space == "stack" else [(target, COLOURS)]:
                own = _Target.model_validate(stated.get(name, {}))
                space = "linear" if own.prediction_space == "linear" else "srgb"
                classes = tuple(ClassColour(word, (rgb[0], rgb[1], rgb[2])) for word, rgb in own.classes.items())
                named = _LAYER_NAME.validate_python(name)
                grey = own.prediction_space == "grey"
                layers.append(Layer(named, picture, channels, space, own.up_to_scale, classes, grey))
    except ValidationError as error:
        raise CheckpointError(f"In {INDEX} of the checkpoint target_properties: {sentence(error)}") from None
    if len({layer.name for layer in layers}) < max(len(layers), 1):
        raise CheckpointError(f"In {INDEX} of the checkpoint target_properties names no layer, or one twice; {AGAIN}.")
    return tuple(layers)


def _kind(claims: _Claims, modality: Modality) -> Kind:
    if modality != "depth":
        kinds: dict[Modality, Kind] = {"normals": "unit-vector", "segmentation": "class"}
        return kinds.get(modality, "unit-range")
    scale, shift = claims.scale_invariant is not False, claims.shift_invariant is not False
    if shift and not scale:
        raise CheckpointError(
            "A checkpoint that knows scale but not shift cannot be ensembled; neither can it be used here."
        )
    kind = "affine" if shift else "scale" if scale else "metric"
    if kind != "affine" and _space(claims, modality) != "depth":
        raise CheckpointError(
            "A checkpoint that predicts disparity or log depth of a known scale or shift cannot be used here; "
            "those of unknown scale and shift can."
        )
    return kind


def _space(claims: _Claims, modality: Modality) -> Space:
    predicted = claims.prediction_type or modality
    accepted = ("depth", "disparity") if modality == "depth" else (modality,)
    if predicted not in accepted:
        raise CheckpointError(
            f"The checkpoint predicts {predicted}; a {modality} checkpoint predicts {' or '.join(accepted)}."
        )
    if predicted == "disparity":
        if claims.depth_space is not None:
            raise CheckpointError(
                f"The checkpoint claims to predict disparity, and depth as {claims.depth_space}; it can be one of them."
            )
        return "disparity"
    return "log" if claims.depth_space == "log" else "depth"


def _metric_range(claims: _Claims, kind: Kind) -> tuple[float, float] | None:
    """Return the depths in metres that are black and white, of metric depth. Raises: CheckpointError."""
    if claims.metric_range_m is None:
        return None
    near, far = claims.metric_range_m
    if kind != "metric" or claims.canonical_focal_px is None or not 0 < near < far < math.inf:
        raise CheckpointError(
            f"In {INDEX} of the checkpoint metric_range_m is {[near, far]}; it needs 0 < near < far, "
            "canonical_focal_px, and scale_invariant and shift_invariant that are false."
        )
    return near, far


def _depth_transfer(claims: _Claims, modality: Modality) -> DepthTransfer:
    curve = claims.depth_curve or "linear"
    if curve not in ("linear", "root") or (modality != "depth" and curve != "linear"):
        raise CheckpointError(
            f"The checkpoint encodes {modality} with the transfer function {curve!r}, "
            "which this version does not support; update marigold-depth-studio."
        )
    return curve


def _defaults(claims: _Claims, steps: int) -> tuple[int, int]:
    """Take the checkpoint's own steps and resolution where it states them, in the ranges that settings accept."""
    resolution = 768
    if claims.default_denoising_steps is not None:
        steps = claims.default_denoising_steps
    if claims.default_processing_resolution is not None:
        resolution = claims.default_processing_resolution
    try:
        Settings(num_inference_steps=steps, processing_resolution=resolution)
    except SettingsError as error:
        raise CheckpointError(f"The defaults in {INDEX} cannot be used: {error}") from None
    return steps, resolution

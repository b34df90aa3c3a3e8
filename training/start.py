"""The checkpoint that training begins with: made of Stable Diffusion 2, another checkpoint, or random weights.

    python -m training.start stable-diffusion-2 runs/start --noise-schedule v1-1

Every folder opens in ``marigold_core.load`` and in diffusers' own Marigold pipelines.
"""

import os
import shutil
from pathlib import Path
from typing import Literal, cast

import tyro

from marigold_core.checkpoints.families import E2E_FT, MARIGOLD, NOISE
from marigold_core.checkpoints.layout import CLASSES, DRAFT, ERROR, INDEX, MODALITIES, Config, read_config, read_index
from marigold_core.checkpoints.registry import NAMED, Checkpoint, find
from marigold_core.checkpoints.weights import OPTIONAL, choose, read_checksums, write_checksums
from marigold_core.errors import CheckpointError, MarigoldError
from marigold_core.pipeline.modalities import modality_for
from marigold_core.prediction import DepthTransfer
from marigold_core.storage import atomic_folder, link, write_json
from training.data.targets import CLAIM_KEYS, CLAIMS, TargetName, name_of, target_of
from training.engine import checkpoints
from training.engine.command import run
from training.models.networks import PIPELINE_CLASSES, SHAPES, STEPS, Spacing, new_checkpoint, new_scheduler, reset_unet
from training.models.stable_diffusion import PIPELINE, check_stable_diffusion, finish_stable_diffusion, set_pictures
from training.recipe import NoiseSchedule, ObjectiveName

TransferChoice = DepthTransfer | Literal["start"]
TargetChoice = TargetName | Literal["start"]
NetworkChoice = Literal["start", "random"]
SPACINGS: dict[NoiseSchedule, Spacing] = {"v1-0": "leading", "v1-1": "trailing"}
VARIANTS = (None, "fp16")  # of weights: full precision is preferred to half
RECORD = "start.json"  # in a start folder: its source, noise schedule and depth transfer function
DEFAULTS = ("start", "latent")  # choices that a record leaves out
DESCRIBED = {  # how a message names the others
    "target": " and target {}",
    "objective": " for {}",
    "network": " and a U-Net of {}",
    "depth_curve": " and depth curve {}",
}


def prepare_start(
    source: str | Path,
    out: Path,
    *,
    noise_schedule: NoiseSchedule = "start",
    target: TargetChoice = "start",
    depth_curve: TransferChoice = "start",
    objective: ObjectiveName = "latent",
    network: NetworkChoice = "start",
    seed: int = 0,
    replace: bool = False,
) -> Path:
    """Make the checkpoint folder ``out`` that a run begins with, unless an earlier call made it -> ``out``.

    Unchanged weights become hard links. Memory: one component at a time.

    Args:
        source: a Stable Diffusion 2 folder, a Marigold checkpoint as for ``marigold_core.load``, a run (its
            newest checkpoint), or ``new:SHAPE`` for random weights (SHAPE as in ``SHAPES``).
        out: folder to write.
        noise_schedule: of the published checkpoints, or "start" for the source's own.
        target: what the network is to predict, or "start" for the source's own. Another target begins with a linear
            depth transfer function.
        depth_curve: depth transfer function, or "start" for the source's own.
        objective: of the training; one of ``end_to_end`` makes a checkpoint that begins with zeros.
        network: "random" gives a U-Net of the same sizes that has learned nothing; all else stays.
        seed: of random weights.
        replace: whether a start that was made from something else makes way.

    Raises:
        CheckpointError: before anything is written: the source is missing, damaged or does not fit, or ``out`` was made
            from another and is not to be replaced.
        ExportError: ``out`` cannot be written.
    """
    weights_of = f"random weights, seed {seed}" if network == "random" else network
    choices = {"target": target, "depth_curve": depth_curve, "objective": objective, "network": weights_of}
    record: Config = {"source": _label(source, seed), "noise_schedule": noise_schedule}
    record |= {name: choice for name, choice in choices.items() if choice not in DEFAULTS}
    if (out / RECORD).exists():
        made = read_config(out, RECORD)
        if made == record:
            find(out)
            return out
        if not replace:
            raise CheckpointError(
                f"{out} was made from {_describe(made)}, not from {_describe(record)}: ask for the same again, or give "
                "another folder."
            )
    shape = _new_shape(source)
    folder = None if shape else find_start(source, objective)
    made_before = (out / RECORD).exists()
    weights = read_checksums(out) if made_before else {}
    with atomic_folder(out, replace=made_before, known=lambda name: name in weights or _is_config(name)) as aside:
        if shape:
            new_checkpoint(aside, shape, seed=seed)
        elif folder:
            _copy_components(folder, aside)
            is_marigold = _pipeline(folder) in MODALITIES
            (_finish_marigold if is_marigold else finish_stable_diffusion)(folder, aside)
        if network == "random":
            reset_unet(aside / "unet", seed)
            _remove(aside, DRAFT, ERROR)
        if noise_schedule != "start":
            _replace_schedule(aside, SPACINGS[noise_schedule])
        if target != "start":
            _change_target(aside, target)
        if objective == "end_to_end":
            _state(aside, {NOISE: "zeros", "default_denoising_steps": 1})
        if depth_curve != "start":
            if find(aside).depth_transfer != depth_curve:
                _remove(aside, DRAFT)  # its greys are those of the other curve
            _state(aside, {"depth_curve": depth_curve})
        write_json(aside / RECORD, record)
        write_checksums(aside)
        check_targets(find(aside))
    return out


def _describe(record: Config) -> str:
    """Describe the record of a start, for messages."""
    more = "".join(words.format(record[name]) for name, words in DESCRIBED.items() if name in record)
    return f"{record.get('source')} with noise schedule {record.get('noise_schedule')}{more}"


def find_start(source: str | Path, objective: ObjectiveName = "latent") -> Path:
    """Find a start model and check it -> its folder.

    Raises: CheckpointError when it is missing, damaged or does not fit.
    """
    folder = Path(source).expanduser()
    if len(folder.parts) > 1 and folder.parent.is_dir() and not folder.exists():
        raise CheckpointError(f"There is no folder {source} to start from.")  # and it is no hub id
    if str(source) in NAMED or not folder.is_dir():
        folder = find(source).folder
    elif not (folder / INDEX).exists():
        folder = checkpoints.latest(folder) or folder
    pipeline = _pipeline(folder)
    if pipeline == PIPELINE:
        check_stable_diffusion(folder, VARIANTS)
    elif pipeline not in MODALITIES:
        raise CheckpointError(
            f"This is a {pipeline} checkpoint; training starts from Stable Diffusion 2 ({PIPELINE}) or from a Marigold "
            "checkpoint."
        )
    else:
        _check_family(find(folder), objective)
    _check_text(folder)
    return folder


def check_targets(checkpoint: Checkpoint) -> None:
    """Check that a checkpoint predicts what training has targets for.

    Raises: CheckpointError when it claims to predict something else.
    """
    try:
        target_of(modality_for(checkpoint))
    except MarigoldError as error:
        raise CheckpointError(f"The start model cannot be trained as it is. {error}") from None
    if checkpoint.kind == "scale" or (checkpoint.kind == "metric" and checkpoint.metric_range_m is None):
        raise CheckpointError(
            f"The start model predicts {checkpoint.kind} depth without a fixed range, for which training has no "
            f"targets: give --target, one of {', '.join(CLAIMS)}."
        )


def _check_family(checkpoint: Checkpoint, objective: ObjectiveName) -> None:
    """Check that a checkpoint is run as one that was trained with the objective. Raises: CheckpointError."""
    if checkpoint.family is MARIGOLD or (checkpoint.family is E2E_FT and objective == "end_to_end"):
        return
    raise CheckpointError(
        f"The start model is of the {checkpoint.family.name} family, whose networks are not trained to denoise in "
        "steps; training starts from Stable Diffusion 2 or from a Marigold checkpoint."
    )


def check_shape(shape: str) -> None:
    """Check the name of layer sizes. Raises: CheckpointError."""
    if shape not in SHAPES:
        raise CheckpointError(f"There is no shape {shape!r}; choose new:{', new:'.join(SHAPES)}.")


def _new_shape(source: str | Path) -> str | None:
    """Return the shape of ``new:SHAPE``, None for anything else. Raises: CheckpointError for an unknown shape."""
    kind, _, shape = str(source).partition(":")
    if kind != "new":
        return None
    check_shape(shape)
    return shape


def _label(source: str | Path, seed: int) -> str:
    """Name a source, the same for a relative and an absolute path, and also after it has been moved or removed."""
    if shape := _new_shape(source):
        return f"random weights of shape {shape}, seed {seed}"
    if str(source) in NAMED:
        return str(source)
    return "/".join(Path(os.path.abspath(Path(source).expanduser())).parts[-2:])  # "owner/name" of a hub id as well


def _pipeline(folder: Path) -> str:
    """Return the pipeline class of a folder. Raises: CheckpointError."""
    if not (folder / INDEX).is_file():
        read_index(folder)  # raises an error that describes the folder
    return str(read_config(folder, INDEX).get("_class_name"))


def _check_text(folder: Path) -> None:
    """Check that tokenizer, text encoder and U-Net are of one model. Raises: CheckpointError."""
    text, unet = read_config(folder, "text_encoder/config.json"), read_config(folder, "unet/config.json")
    given, taken = text.get("hidden_size"), unet.get("cross_attention_dim")
    if given != taken:
        raise CheckpointError(
            f"The start model's text encoder gives {given} numbers a word and its U-Net takes {taken}: they are of "
            "different models."
        )
    words = _vocabulary(folder)
    known = cast(int, text.get("vocab_size", 0))
    if max(words.values(), default=known) >= known:
        raise CheckpointError(
            f"The start model's tokenizer has {len(words)} words and its text encoder {known}: they are of different "
            "models."
        )


def _vocabulary(folder: Path) -> dict[str, int]:
    """Read the tokenizer's vocabulary, in either of the two layouts."""
    if (folder / "tokenizer" / "vocab.json").exists():
        return cast(dict[str, int], read_config(folder, "tokenizer/vocab.json"))
    model = cast(Config, read_config(folder, "tokenizer/tokenizer.json").get("model") or {})
    return cast(dict[str, int], model.get("vocab") or {})


def _copy_components(folder: Path, out: Path) -> None:
    """Link the weights of a checkpoint, under their names in full precision, and copy its configurations."""
    variant, weights = choose([path.relative_to(folder).as_posix() for path in folder.glob("*/*")], VARIANTS)
    mark = f".{variant}" if variant else ""
    sharded = {name.partition("/")[0] for name in weights if "-of-" in name}
    for path in sorted(path for part in (*CLASSES, *OPTIONAL) for path in (folder / part).glob("*")):
        part, name = path.parent.name, f"{path.parent.name}/{path.name}"
        target = out / (name.replace(mark, "") if mark else name)
        target.parent.mkdir(exist_ok=True)
        if name in weights:
            link(path, target)
        elif ".safetensors.index" in name:
            if part in sharded and name.endswith(f".index{mark}.json"):
                target.write_text(path.read_text(encoding="utf-8").replace(f"{mark}-", "-"), encoding="utf-8")
        elif path.suffix in (".json", ".txt"):
            shutil.copyfile(path, target)


def _is_config(name: str) -> bool:
    """Tell whether a file of a start folder is a configuration that ``_copy_components`` may have copied."""
    part, _, file = name.partition("/")
    return part in (*CLASSES, *OPTIONAL) and "/" not in file and file.endswith((".json", "merges.txt"))


def _finish_marigold(folder: Path, out: Path) -> None:
    """Write the pipeline index of a copied Marigold checkpoint, with keys that older ones lack."""
    index, found = read_config(folder, INDEX), find(folder)
    defaults = {} if found.layers else CLAIMS["normals" if found.modality == "normals" else "depth"]
    stated: Config = {
        "_class_name": PIPELINE_CLASSES[found.modality],
        "default_denoising_steps": found.default_steps,
        "default_processing_resolution": found.default_resolution,
    }
    write_json(out / INDEX, defaults | index | stated)


def _replace_schedule(out: Path, spacing: Spacing) -> None:
    """Replace the noise schedule of a checkpoint by a published one."""
    new_scheduler("ddim", spacing).save_pretrained(out / "scheduler")
    _state(out, {"scheduler": ["diffusers", "DDIMScheduler"], "default_denoising_steps": STEPS[spacing]})


def _change_target(out: Path, target: TargetName) -> None:
    """Let a checkpoint predict a target; what it stated of another one and the networks that know it are left out."""
    stated = read_config(out, INDEX)
    if name_of(modality_for(find(out))) != target:
        stated = {key: value for key, value in stated.items() if key not in CLAIM_KEYS}
        _remove(out, DRAFT, ERROR)
    pictures = CLAIMS[target].get("target_properties", {}).get("target_names", [""])
    set_pictures(out / "unet", len(pictures))
    write_json(out / INDEX, stated | CLAIMS[target])


def _state(out: Path, claims: Config) -> None:
    """Add to what the pipeline index of a checkpoint states, or change it."""
    write_json(out / INDEX, read_config(out, INDEX) | claims)


def _remove(out: Path, *parts: str) -> None:
    """Remove networks of a checkpoint, where it has them."""
    for part in parts:
        shutil.rmtree(out / part, ignore_errors=True)


def main(
    source: tyro.conf.Positional[str],
    out: tyro.conf.Positional[Path],
    noise_schedule: NoiseSchedule = "start",
    target: TargetChoice = "start",
    depth_curve: TransferChoice = "start",
    network: NetworkChoice = "start",
    seed: int = 0,
) -> None:
    """Make the checkpoint folder that training begins with.

    Args:
        source: Stable Diffusion 2 folder, Marigold checkpoint, run, or shape for random weights: tiny, nano, public.
        out: folder to write.
        noise_schedule: v1-0 as Stable Diffusion 2, v1-1 zero terminal SNR and trailing, start as the source has it.
        target: what the network is to predict: depth, disparity, log (of depth), metric (depth in metres), normals,
            segmentation, objects, albedo or intrinsics (albedo and shading); start as the source has it.
        depth_curve: linear as published; root, the square root of depth, finer where near; start as in the source.
        network: random, a U-Net of the same sizes that has learned nothing, beside autoencoder and prior of the source.
        seed: of random weights.
    """
    prepare_start(
        source,
        out,
        noise_schedule=noise_schedule,
        target=target,
        depth_curve=depth_curve,
        network=network,
        seed=seed,
    )
    print(f"{out}: {find(out).size_bytes / 1e6:,.0f} MB of weights from {_label(source, seed)}")


if __name__ == "__main__":
    run(main, "python -m training.start")

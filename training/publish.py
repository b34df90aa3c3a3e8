"""Write a run as a checkpoint to distribute, ``python -m training.publish RUN assets/marigold-nano``.

In half precision, in files small enough for an ordinary repository, with checksums and a model card that states recipe,
data, scores and licence.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import HfApi, ModelCard, ModelCardData, constants
from huggingface_hub.errors import HFValidationError, HTTPError, LocalTokenNotFoundError
from transformers import CLIPTextModel
from yaml import YAMLError

from marigold_core import Settings, load
from marigold_core.checkpoints.layout import CLASSES, DISPLACEMENT, DRAFT, ERROR, INDEX, PRIOR, read_config, read_index
from marigold_core.checkpoints.registry import HUB_ID, Checkpoint, find
from marigold_core.checkpoints.weights import CHECKSUMS, OPTIONAL, STEMS, digest, read_checksums, write_checksums
from marigold_core.errors import ExportError, MarigoldError
from marigold_core.pipeline.displacement import DisplacementNetwork
from marigold_core.pipeline.draft import DraftNetwork
from marigold_core.pipeline.expected_error import ErrorNetwork
from marigold_core.pipeline.image_prior import GuidedUNet, ImagePrior
from marigold_core.pipeline.modalities import modality_for
from marigold_core.storage import atomic_folder, real_path, write_json
from training.data.targets import name_of
from training.engine import checkpoints, command
from training.engine.fingerprint import RECORD as RUN
from training.engine.fingerprint import read_run
from training.engine.metrics_log import MetricsLog
from training.models.networks import PIPELINE_CLASSES
from training.recipe import Recipe
from training.scoring.targets import metric_of
from training.start import RECORD

SHARD = "8MB"
DEPTH_TASK, DEPTH_TAGS = "depth-estimation", ("depth", "monocular-depth-estimation")
PLANES = "0 is the near plane, 1 the far plane; scale and\nshift are unknown"
CARD, OLD_CARD = "README.md", "README.old.md"
REASON = 300  # letters of a message of the hub that are shown
# by target: the hub's task, tags, what the card says of the output, figures beside the one that decides
ABOUT: dict[str, tuple[str, tuple[str, ...], str, tuple[str, ...]]] = {
    "depth": (DEPTH_TASK, DEPTH_TAGS, f"affine-invariant depth: {PLANES}", ("delta1",)),
    "disparity": (
        DEPTH_TASK,
        DEPTH_TAGS,
        f"affine-invariant disparity, turned to grow with depth: {PLANES}",
        ("delta1",),
    ),
    "log": (DEPTH_TASK, DEPTH_TAGS, f"the logarithm of depth: {PLANES}", ("delta1",)),
    "metric": (DEPTH_TASK, DEPTH_TAGS, "depth in metres, for the photo's focal length", ("delta1", "mae", "rmse")),
    "normals": ("image-to-image", ("surface-normals",), "surface normals", ("median_angle", "within_11.25")),
    "segmentation": ("image-segmentation", ("semantic-segmentation",), "classes of pixels", ("accuracy",)),
    "objects": ("object-detection", ("object-detection",), "centres, sizes and classes of objects", ("recall",)),
    "albedo": ("image-to-image", ("intrinsic-images",), "albedo, the colours of surfaces without light", ("psnr_db",)),
    "intrinsics": ("image-to-image", ("intrinsic-images",), "albedo and shading in [0, 1]", ("psnr_db",)),
}
FITTED = {  # by kind: what is fitted in validations
    "affine": ", scale and shift fitted by least squares to each picture",
    "metric": "; scale and shift of the baselines alone are fitted, to each picture",
}
# optional networks by their folders; the field of ``Checkpoint`` with the same name tells whether there is one
ADDED = {PRIOR: ImagePrior, DRAFT: DraftNetwork, DISPLACEMENT: DisplacementNetwork, ERROR: ErrorNetwork}
TEMPLATE = Path(__file__).with_name("model_card.md.j2")
OWN_LICENCE, UNKNOWN_LICENCE = "apache-2.0", "other"  # of weights that began at random; of any others
PARTS = (*CLASSES, *OPTIONAL)
COPIED = {  # files of the parts without weights
    "scheduler": ("scheduler_config.json",),
    "tokenizer": (
        *("merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json"),
        *("special_tokens_map.json", "added_tokens.json"),
    ),
}
FILES = {  # of a published checkpoint, beside the weights that its checksums list
    *(INDEX, CHECKSUMS, CARD, OLD_CARD),
    *(f"{part}/{name}" for part, names in COPIED.items() for name in names),
    *(f"{part}/{name}" for part, stem in STEMS.items() for name in ("config.json", f"{stem}.safetensors.index.json")),
}


def publish(
    source: Path,
    out: Path,
    card: Path | None = None,
    resolution_px: int | None = None,
    licence: str | None = None,
) -> Path:
    """Write a checkpoint in half precision, in the place of an older published one -> ``out``.

    Args:
        source: folder or name of the checkpoint, which may be a step of a run.
        out: folder to write: absent, empty, or a checkpoint that was published before.
        card: Markdown file that becomes the model card; by default one is written from the records of the run. A card
            in ``out`` that was written by hand is kept as ``README.old.md``.
        resolution_px: default processing resolution, pixels; by default that of the training, where it is recorded.
        licence: for the written card, an identifier such as "apache-2.0".

    Raises:
        CheckpointError: the source is incomplete.
        SettingsError: the resolution is invalid.
        MarigoldError: ``out`` holds anything but a published checkpoint, or is the source, in it or around it.
        ExportError: the result cannot be written.
    """
    Settings(processing_resolution=resolution_px)  # checked before the work
    found = find(source)
    source = found.folder  # of one that is given by its name too
    _check_target(source, out)
    run = read_run(source.parent / RUN)
    if resolution_px is None:
        resolution_px = run.get("resolution_px")
    with atomic_folder(out, replace=True, known=lambda _: True) as aside:  # _check_target has looked
        for part, names in COPIED.items():
            (aside / part).mkdir()
            for path in (source / part / name for name in names):
                if path.exists():
                    shutil.copyfile(path, aside / part / path.name)
        index = read_index(source)  # with what is known of a published checkpoint by its name
        if resolution_px is not None:
            index["default_processing_resolution"] = resolution_px
        write_json(aside / INDEX, index)
        parts = {"unet": GuidedUNet if found.prior else UNet2DConditionModel, "vae": AutoencoderKL}
        parts |= {name: kind for name, kind in ADDED.items() if getattr(found, name)}
        for name, kind in parts.items():
            network = kind.from_pretrained(source / name, torch_dtype=torch.float16)
            network.save_pretrained(aside / name, max_shard_size=SHARD)
        # diffusers loads half precision as single by default, transformers as stored: this small part is stored single
        text = CLIPTextModel.from_pretrained(source / "text_encoder", dtype=torch.float32)
        text.save_pretrained(aside / "text_encoder", max_shard_size=SHARD)
        for path in aside.glob("*/config.json"):  # where it lay before is nobody's concern
            config = read_config(aside, path.relative_to(aside).as_posix())
            write_json(path, {key: value for key, value in config.items() if key != "_name_or_path"})
        for path in aside.rglob("*.safetensors"):
            path.chmod(0o644)  # safetensors makes files that only the owner can read
        if (kept := _hand_written(out)) is not None:
            shutil.copyfile(kept, aside / OLD_CARD)
        if card is not None:
            shutil.copyfile(card, aside / CARD)
        else:
            text_of_card = write_card(source, out.name, found, run, resolution_px, licence)
            (aside / CARD).write_text(text_of_card, encoding="utf-8")
        write_checksums(aside)
        write_json(aside / CHECKSUMS, read_checksums(aside) | ({CARD: digest(aside / CARD)} if card is None else {}))
        load(aside)
    return out


def push(folder: Path, hub_id: str, private: bool = False) -> str:
    """Upload a published checkpoint to the hub -> the address of its page.

    Its card is validated by the hub first. Raises: MarigoldError when the hub refuses it or cannot be reached.
    """
    check_hub_id(hub_id)
    try:
        ModelCard.load(folder / CARD).validate(repo_type="model")
        api = HfApi()
        api.create_repo(hub_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=hub_id, folder_path=folder, commit_message=f"Upload {folder.name}", ignore_patterns=[OLD_CARD]
        )
    except (HTTPError, HFValidationError, LocalTokenNotFoundError, ValueError, OSError) as error:
        reason = _reason(error)
        raise MarigoldError(
            f"The hub did not take {hub_id}: {reason}. Log in with: hf auth login, and give the id of a "
            "repository that is yours; the checkpoint is in "
            f"{folder} and can be pushed again."
        ) from error
    return f"{constants.ENDPOINT}/{hub_id}"


def check_hub_id(hub_id: str) -> None:
    """Check that an id could be one of the hub's. Raises: MarigoldError."""
    if not HUB_ID.fullmatch(hub_id):
        raise MarigoldError(f"{hub_id!r} is no id of the hub: give OWNER/NAME.")


def _reason(error: Exception) -> str:
    """Return what an error says on one line; what the hub finds wrong with a card comes as JSON."""
    said = str(error)
    with suppress(ValueError, KeyError, TypeError):
        said = "; ".join(str(fault["message"]) for fault in json.loads(said)["errors"])
    return (" ".join(said.split()) or type(error).__name__)[:REASON].rstrip(".")


def _check_card(path: Path) -> None:
    """Check that a model card has metadata that can be read. Raises: MarigoldError."""
    try:
        ModelCard.load(path)
    except (ValueError, YAMLError) as error:
        reason = _reason(error)
        raise MarigoldError(f"The metadata of the model card {path} cannot be read: {reason}.") from None


def _check_target(source: Path, out: Path) -> None:
    """Check that writing ``out`` removes nothing but a published checkpoint. Raises: MarigoldError."""
    here, there = source.resolve(), real_path(out)
    run = here.parent if checkpoints.is_run(here.parent) else here
    if here.is_relative_to(there) or there.is_relative_to(run):
        raise MarigoldError(f"{out} is what is published, a folder in it or around it: give another folder.")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise MarigoldError(f"{out} is a link or a file: give a folder.")
    if not out.exists():
        return
    if any(out.iterdir()) and not all(
        (out / name).is_file() for name in (INDEX, CHECKSUMS, CARD)
    ):  # others lack a card
        raise MarigoldError(f"{out} holds something that training.publish did not write: give another folder.")
    written = {*PARTS, *FILES, *(name for name in read_checksums(out) if name.endswith(".safetensors"))}
    others = sorted({path.relative_to(out).as_posix() for path in out.rglob("*")} - written)
    if others:
        raise MarigoldError(f"{out} holds {others[0]}, which publishing would delete: give another folder.")


def _hand_written(out: Path) -> Path | None:
    """Find the card in ``out`` that this command did not write. Raises: ExportError when there are two."""
    card, old = out / CARD, out / OLD_CARD
    if not card.exists() or read_checksums(out).get(CARD) == digest(card):
        return old if old.exists() else None
    if old.exists():
        raise ExportError(f"{out} holds two model cards written by hand, {CARD} and {OLD_CARD}: move one of them away.")
    return card


def write_card(
    source: Path,
    name: str,
    checkpoint: Checkpoint,
    run: dict[str, Any],
    resolution_px: int | None,
    licence: str | None = None,
) -> str:
    """Write the model card of a checkpoint -> Markdown with the metadata that the hub reads.

    Args:
        source: folder of the checkpoint; a step of a run has its scores in the log of the run.
        name: title of the card.
        checkpoint: what is known of the checkpoint.
        run: ``run.json``; empty for a checkpoint of which no training is recorded.
        resolution_px: default processing resolution, None for the checkpoint's own.
        licence: identifier; by default that of this project for weights that began at random, else "other".
    """
    start = read_config(source, RECORD) if (source / RECORD).is_file() else {}
    begun_with = str(start.get("source", ""))
    records = MetricsLog(source.parent / checkpoints.METRICS).read() if run else []
    step = checkpoints.step_of(source) if run else None
    scores = [record for record in records if "score" in record and record["step"] == step]
    validated = scores[-1] if scores else {}
    chosen, default = run.get("recipe", {}), Recipe().model_dump(mode="json")
    always = ("steps", "batch_size", "lr", "seed")
    modality = modality_for(checkpoint)
    layers = ("image-to-image", ("intrinsic-images",), f"layers in [0, 1]: {name_of(modality)}", ())
    tag, tags, output, more = ABOUT.get(name_of(modality), layers)
    metric = metric_of(modality) if validated else None
    data = ModelCardData(
        license=licence or (OWN_LICENCE if begun_with.startswith("random weights") else UNKNOWN_LICENCE),
        library_name="diffusers",
        pipeline_tag=tag,
        tags=[*tags, "marigold", "diffusion"],
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        checkpoint=checkpoint,
        pipeline_class=PIPELINE_CLASSES[checkpoint.modality],
        output=output,
        fitted=FITTED.get(checkpoint.kind, ""),
        figures=(metric.decides, *more) if metric else (),
        titles=(metric.title, *(name.replace("_", " ") for name in more)) if metric else (),
        resolution_px=resolution_px or checkpoint.default_resolution,
        licence=data.license,
        unknown_licence=UNKNOWN_LICENCE,
        start=begun_with,
        step=step,
        recipe={key: value for key, value in chosen.items() if key in always or value != default.get(key)},
        pictures=run.get("pictures", run.get("data", [])),
        versions=run.get("versions", {}),
        validation=validated.get("validation", {}),
        baselines=validated.get("baselines", {}),
    )
    return str(card)


def main(
    run: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    step: str = checkpoints.BEST,
    card: Path | None = None,
    resolution_px: int | None = None,
    licence: str | None = None,
    push_to: Annotated[str | None, tyro.conf.arg(name="push", metavar="OWNER/NAME")] = None,
    private: bool = False,
) -> None:
    """Publish a checkpoint of a run, by default the one that validated best.

    Args:
        run: folder of a run, or folder or name of a single checkpoint.
        out: folder to write; of older content only a published checkpoint is replaced.
        step: which checkpoint of the run: best, newest, or a number of steps.
        card: Markdown file that becomes the model card; by default one is written from the records of the run.
        resolution_px: default processing resolution; by default that of the training.
        licence: of the weights, for the model card, such as apache-2.0; by default that of this project for weights
            that began at random, and "other" for those of another model.
        push_to: repository on the hub to upload to; it is made where there is none. Log in before with hf auth login.
        private: make a repository that only its owner sees.
    """
    if card is not None and not card.is_file():
        raise MarigoldError(f"There is no model card {card}.")
    if card is not None:
        _check_card(card)
    if push_to is not None:
        check_hub_id(push_to)
    chosen = checkpoints.choose(run, step)
    if chosen.reason:
        print(chosen.reason)
    publish(Path(chosen.source), out, card, resolution_px, licence)
    sizes_mb = [path.stat().st_size / 1e6 for path in out.rglob("*.safetensors")]
    resolution = find(out).default_resolution
    print(f"{out}: {sum(sizes_mb):.1f} MB, largest file {max(sizes_mb):.1f} MB, {resolution} pixels by default")
    if (out / OLD_CARD).exists():
        print(f"The model card that was there before is {out / OLD_CARD}.")
    if push_to is not None:
        print(push(out, push_to, private))


if __name__ == "__main__":
    command.run(main, "python -m training.publish")

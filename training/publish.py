"""Write a run as a checkpoint to distribute, ``python -m training.publish RUN assets/marigold-nano``.

In half precision, in files small enough for an ordinary repository, with checksums and a model card that states recipe,
data, scores and licence.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import tyro
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import ModelCard, ModelCardData
from transformers import CLIPTextModel

from marigold_core import Settings, load
from marigold_core.checkpoints.layout import CLASSES, INDEX, PRIOR, read_config, read_index
from marigold_core.checkpoints.registry import Checkpoint, find
from marigold_core.checkpoints.weights import CHECKSUMS, STEMS, digest, read_checksums, write_checksums
from marigold_core.errors import ExportError, MarigoldError
from marigold_core.pipeline.image_prior import GuidedUNet, ImagePrior
from marigold_core.storage import atomic_folder, write_json
from training.engine import checkpoints, command
from training.engine.fingerprint import RECORD as RUN
from training.engine.fingerprint import read_run
from training.engine.metrics_log import MetricsLog
from training.recipe import Recipe
from training.start import RECORD

SHARD = "8MB"
CARD, OLD_CARD = "README.md", "README.old.md"
TEMPLATE = Path(__file__).with_name("model_card.md.j2")
OWN_LICENCE, UNKNOWN_LICENCE = "apache-2.0", "other"  # of weights that began at random; of any others
PARTS = (*CLASSES, PRIOR)
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
        source: folder of the checkpoint, which may be a step of a run.
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
    _check_target(source, out)
    run = read_run(source.parent / RUN)
    if resolution_px is None and (trained_px := run.get("resolution_px")):
        resolution_px = int(str(trained_px))
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
        parts |= {PRIOR: ImagePrior} if found.prior else {}
        for name, kind in parts.items():
            network = kind.from_pretrained(source / name, torch_dtype=torch.float16)
            network.save_pretrained(aside / name, max_shard_size=SHARD)
        # diffusers loads half precision as single by default, transformers as stored: this small part is stored single
        text = CLIPTextModel.from_pretrained(source / "text_encoder", dtype=torch.float32)
        text.save_pretrained(aside / "text_encoder", max_shard_size=SHARD)
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


def _check_target(source: Path, out: Path) -> None:
    """Check that writing ``out`` removes nothing but a published checkpoint. Raises: MarigoldError."""
    here, there = source.resolve(), out.resolve()
    run = here.parent if checkpoints.is_run(here.parent) else here
    if here.is_relative_to(there) or there.is_relative_to(run):
        raise MarigoldError(f"{out} is what is published, a folder in it or around it: give another folder.")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise MarigoldError(f"{out} is a link or a file: give a folder.")
    if not out.exists():
        return
    if any(out.iterdir()) and not all((out / name).is_file() for name in (INDEX, CHECKSUMS)):
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
    run: dict[str, object],
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
    scores: list[dict[str, Any]] = [record for record in records if "score" in record and record["step"] == step]
    default = Recipe().model_dump(mode="json")
    recipe: dict[str, Any] = json.loads(json.dumps(run.get("recipe", {})))
    always = ("steps", "batch_size", "lr", "seed")
    data = ModelCardData(
        license=licence or (OWN_LICENCE if begun_with.startswith("random weights") else UNKNOWN_LICENCE),
        library_name="diffusers",
        pipeline_tag="depth-estimation",
        tags=["depth", "monocular-depth-estimation", "marigold", "diffusion"],
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        checkpoint=checkpoint,
        resolution_px=resolution_px or checkpoint.default_resolution,
        licence=data.license,
        unknown_licence=UNKNOWN_LICENCE,
        start=begun_with,
        step=step,
        recipe={key: value for key, value in recipe.items() if key in always or value != default.get(key)},
        pictures=run.get("pictures", run.get("data", [])),
        versions=run.get("versions", {}),
        validation=scores[-1]["validation"] if scores else {},
        baselines=scores[-1].get("baselines", {}) if scores else {},
    )
    return str(card)


def main(
    run: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    step: str = checkpoints.BEST,
    card: Path | None = None,
    resolution_px: int | None = None,
    licence: str | None = None,
) -> None:
    """Publish a checkpoint of a run, by default the one that validated best.

    Args:
        run: folder of a run, or of a single checkpoint.
        out: folder to write; of older content only a published checkpoint is replaced.
        step: which checkpoint of the run: best, newest, or a number of steps.
        card: Markdown file that becomes the model card; by default one is written from the records of the run.
        resolution_px: default processing resolution; by default that of the training.
        licence: of the weights, for the model card, such as apache-2.0; by default that of this project for weights
            that began at random, and "other" for those of another model.
    """
    if card is not None and not card.is_file():
        raise MarigoldError(f"There is no model card {card}.")
    chosen = checkpoints.choose(run, step)
    if chosen.reason:
        print(chosen.reason)
    publish(Path(chosen.source), out, card, resolution_px, licence)
    sizes_mb = [path.stat().st_size / 1e6 for path in out.rglob("*.safetensors")]
    resolution = find(out).default_resolution
    print(f"{out}: {sum(sizes_mb):.1f} MB, largest file {max(sizes_mb):.1f} MB, {resolution} pixels by default")
    if (out / OLD_CARD).exists():
        print(f"The model card that was there before is {out / OLD_CARD}.")


if __name__ == "__main__":
    command.run(main, "python -m training.publish")

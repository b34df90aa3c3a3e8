"""The whole recipe of the bundled checkpoint in one command, ``python -m training.nano --out runs/nano``.

Each stage is a command of this folder with its options, stated here once. The same command goes on with the first stage
that is not finished, and inside it where the stage was stopped. What was run, with which seeds and for how long, stands
in ``nano.json``, what the stages printed in ``log.txt``; the result is ``published``.
"""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO, cast

from pydantic import Field

from marigold_core.checkpoints.layout import read_config
from marigold_core.errors import MarigoldError
from marigold_core.options import Presets, call
from marigold_core.pipeline.loading import pick_device
from marigold_core.settings import Frozen
from marigold_core.storage import write_json
from training import (
    autoencoder,
    average,
    displacement,
    draft,
    evaluate,
    expected_error,
    label,
    latents,
    prior,
    publish,
    recipe,
    render,
    start,
    train,
)
from training.data.photographs import photographs
from training.data.sets import open_set
from training.engine import checkpoints
from training.engine.command import run
from training.engine.workers import locked

RECORD, LOG = "nano.json", "log.txt"
FULL_HOURS = 4.5  # of all stages at their full size, on one core of a CPU with AVX-512
FEWEST_PICTURES, FEWEST_STEPS = 32, 2
Device = Literal["auto", "cpu", "cuda"]


class Sizes(Frozen):
    """How large each stage is; the defaults are the full recipe."""

    scenes: int = Field(default=8192, ge=32, description="rendered pictures of all kinds of scenes")
    streets: int = Field(default=4096, ge=32, description="wide rendered pictures of streets and drives")
    width_px: int = Field(default=384, ge=64, multiple_of=64, description="of the rendered pictures")
    autoencoder_steps: int = Field(default=1200, ge=2, description="of training.autoencoder")
    draft_steps: int = Field(default=2000, ge=2, description="of training.draft")
    coarse_steps: int = Field(default=3000, ge=2, description="of training.train on small pictures")
    fine_steps: int = Field(default=1500, ge=2, description="of training.train on pictures of the final size")
    labelled: int = Field(default=600, ge=32, description="photographs that are labelled, where there are so many")
    photo_steps: int = Field(default=600, ge=2, description="of training.train with labelled photographs")
    displacement_steps: int = Field(default=4000, ge=2, description="of training.displacement")
    error_steps: int = Field(default=400, ge=2, description="of training.expected_error")
    coarse_px: int = Field(default=160, ge=32, description="long edge of the small pictures")
    fine_px: int = Field(default=256, ge=32, description="long edge of the others, and of photos by default")
    shape: str = Field(default="nano", description="layer sizes, a name in training.models.networks")
    seed: int = Field(default=1, ge=0, description="every stage's seed is a function of it")

    def scaled(self, share: float) -> "Sizes":
        """Multiply numbers of pictures and steps."""
        counts = {name: FEWEST_PICTURES for name in ("scenes", "streets", "labelled")}
        counts |= {name: FEWEST_STEPS for name in type(self).model_fields if name.endswith("_steps")}
        return self.changed(**{name: max(least, round(getattr(self, name) * share)) for name, least in counts.items()})


@dataclass(frozen=True)
class Inputs:
    """What a run reads and where it computes."""

    assets: Path | None = None  # folder with models and textures for training.render; without it primitives are drawn
    photos: Path | None = None  # folder of photographs to learn from, without depth; may be left out
    validation: Path | None = None  # data set with measured depth to score the result on; may be left out
    weights: Path | None = None  # file with the classifier's weights; by default that of the installed package
    device: Device = "auto"  # where to train


@dataclass(frozen=True)
class Stage:
    """One command of the recipe."""

    name: str
    main: Callable[..., object]
    words: tuple[object, ...]
    steps: int | None = None  # of a training run
    whole: Path | None = None  # what the command makes whole or not at all, and refuses to make again
    presets: Presets | None = None

    @property
    def prog(self) -> str:
        """Name the command."""
        return f"python -m {self.main.__module__}"

    def run(self) -> None:
        """Run the command. Raises: MarigoldError as the command does, and when a training run was stopped early."""
        if self.whole is not None and self.whole.exists():
            return
        given = [str(word) for word in self.words]
        call(self.main, given, self.prog, self.presets)
        if self.steps is None:
            return
        newest = checkpoints.latest(Path(given[given.index("--out") + 1]))
        if newest is None or checkpoints.step_of(newest) < self.steps:
            raise MarigoldError(f"Stopped in stage {self.name}. The same command goes on where this one ended.")


def stages(out: Path, sizes: Sizes, inputs: Inputs) -> list[Stage]:
    """List the commands of the recipe."""
    seed = sizes.seed
    assets = ("--assets", inputs.assets) if inputs.assets else ()
    photos = ("--photos", inputs.photos) if inputs.photos else ()
    weights = ("--weights", inputs.weights) if inputs.weights else ()
    device = ("--device", "cpu" if inputs.device == "cpu" else "auto")
    half = sizes.width_px // 2

    def rendered(name: str, count: int, height: int, number: int, *more: object) -> Stage:
        words = ("--out", out / name, "--count", count, "--shard-samples", min(256, count), "--seed", number)
        return Stage(name, render.main, (*words, "--width", sizes.width_px, "--height", height, *assets, *more))

    def encoded(name: str, data: str, long_edge_px: int, upside_down: float, number: int) -> Stage:
        kind = "pairs" if data == "labels" else "rendered"
        words = ("--checkpoint", out / "start", "--data", f"{kind}:{out / data}", "--out", out / name, *photos)
        framing = ("--variants", 1, "--long-edge-px", long_edge_px, "--upside-down", upside_down, "--seed", number)
        return Stage(name, latents.main, (*words, *framing), presets=recipe.PRESETS)

    def learning(steps: int, cooldown: int) -> tuple[object, ...]:
        return ("--steps", steps, "--cooldown-steps", cooldown)

    def trained(name: str, source: Path, steps: int, cooldown: int, *more: object) -> Stage:
        words = ("--recipe", "nano", "--start-from", source, "--out", out / name, *device, *learning(steps, cooldown))
        return Stage(name, train.main, (*words, *more), steps, presets=recipe.PRESETS)

    def added(name: str, main: Callable[..., object], source: Path, pictures: int, steps: int) -> Stage:
        words = ("--start-from", source, "--data", out / "scenes", "--out", out / name, *device)
        words += ("--pictures", min(sizes.scenes, pictures), *learning(steps, steps * 9 // 10), "--seed", seed)
        return Stage(name, main, words, steps)

    natural = ("--out", out / "autoencoder", "--data", out / "scenes", *photos, "--start-from", f"new:{sizes.shape}")
    natural += (*device, *learning(sizes.autoencoder_steps, sizes.autoencoder_steps // 3), "--seed", seed)
    guided = (out / "autoencoder", out / "guided", "--data", f"rendered:{out / 'scenes'}", *weights)
    coarse, fine = ((out / f"{kind}_scenes", out / f"{kind}_streets") for kind in ("coarse", "fine"))
    own = ("--timestep-power", 1, "--picture-weight", 0.5, "--own-estimate")
    made = [
        rendered("scenes", sizes.scenes, sizes.width_px * 3 // 4 // 32 * 32, seed),
        rendered("streets", sizes.streets, half, seed + 1, "--kinds", "street,drive"),
        Stage("autoencoder", autoencoder.main, natural, sizes.autoencoder_steps),
        Stage("prior", prior.main, guided, whole=out / "guided"),
        Stage("start", start.main, (out / "guided", out / "start", "--depth-curve", "root")),
        encoded("coarse_scenes", "scenes", sizes.coarse_px, 0.15, seed),
        encoded("coarse_streets", "streets", sizes.coarse_px, 0.05, seed + 1),
        encoded("fine_scenes", "scenes", sizes.fine_px, 0.08, seed + 2),
        encoded("fine_streets", "streets", sizes.fine_px * 7 // 8, 0.05, seed + 3),
        trained(
            *("coarse", out / "start", sizes.coarse_steps, sizes.coarse_steps // 8 + 1, "--latents", *coarse),
            *("--lr", 7e-4, "--image-noise", 0.6, "--shares", "0.7,0.3", "--seed", seed),
        ),
        trained(
            *("fine", out / "coarse", sizes.fine_steps, sizes.fine_steps * 5 // 6, "--latents", *fine),
            *("--batch-size", 32, "--micro-batch-size", 16, "--lr", 5e-4, "--ema-decay", 0.98),
            *("--shares", "0.7,0.3", *own, 0.8, "--seed", seed + 1),
        ),
    ]
    result = out / "draft"
    made.append(added("draft", draft.main, out / "fine", 4096, sizes.draft_steps))
    if inputs.photos:
        result = out / "mean"
        labels = (out / "draft", "--photos", inputs.photos, "--out", out / "labels", "--limit", sizes.labelled)
        mean = (out / "draft", out / "photographs", "--shares", "0.25,0.75", "--out", result)
        made += [
            Stage("labels", label.main, (*labels, "--seed", seed)),
            encoded("fine_labels", "labels", sizes.fine_px, 0.05, seed + 4),
            trained(
                *("photographs", out / "draft", sizes.photo_steps, sizes.photo_steps * 9 // 10),
                *("--latents", *fine, out / "fine_labels", "--shares", "0.46,0.28,0.26"),
                *("--lr", 2e-4, "--ema-decay", 0.98, *own, 0.6, "--seed", seed + 2),
            ),
            Stage("mean", average.main, mean, whole=result),
        ]
    made.append(added("displacement", displacement.main, result, 2000, sizes.displacement_steps))
    made.append(added("expected_error", expected_error.main, out / "displacement", 2000, sizes.error_steps))
    result = out / "expected_error"
    if inputs.validation:
        sampling = ("--num-inference-steps", 4, "--ensemble-size", 4, "--seed", 0)
        words = (result, inputs.validation, *sampling, "--json-out", out / "scores.json")
        made.append(Stage("evaluate", evaluate.main, words))
    words = (result, out / "published", "--resolution-px", sizes.fine_px)
    return [*made, Stage("publish", publish.main, words)]


def make(out: Path, sizes: Sizes, inputs: Inputs) -> Path:
    """Run all stages that are not finished -> the published checkpoint.

    Raises: MarigoldError when the folder was begun with other settings, and what the stages raise.
    """
    pick_device(inputs.device)
    _check(out, sizes, inputs)
    settings = sizes.model_dump() | {name: str(value) for name, value in vars(inputs).items()}
    record: dict[str, Any] = read_config(out, RECORD) if (out / RECORD).exists() else {}
    if any(row["finished"] for row in record.get("stages", {}).values()):
        _refuse_changes(out, record["settings"], settings)
    else:  # a first stage compares its own settings with what it left
        record = {"settings": settings, "stages": {}}
    times = record["stages"]
    with (
        locked(out),
        (out / LOG).open("a", encoding="utf-8") as log,
        redirect_stdout(cast(TextIO, _Both(sys.stdout, log))),
    ):
        for stage in stages(out, sizes, inputs):
            row = times.setdefault(stage.name, {"seconds": 0.0, "finished": False})
            if row["finished"]:
                continue
            row["command"] = " ".join([stage.prog, *map(str, stage.words)])
            print(f"\n{stage.name}: {row['command']}", flush=True)
            began = time.monotonic()
            try:
                stage.run()
                row["finished"] = True
            finally:
                row["seconds"] = round(row["seconds"] + time.monotonic() - began, 1)
                write_json(out / RECORD, record)
        print(f"\n{table(times)}\n{out / 'published'}")
    return out / "published"


def _check(out: Path, sizes: Sizes, inputs: Inputs) -> None:
    """Check all that is read before the first of many hours. Raises: MarigoldError."""
    render.check_assets(inputs.assets)
    start.check_shape(sizes.shape)
    if inputs.photos:
        photographs(inputs.photos)
    if inputs.validation:
        open_set(str(inputs.validation), evaluate.SPLIT)
    if not (out / "guided").exists():
        prior.new_prior(prior.classifier_weights(inputs.weights))


def table(times: Mapping[str, Mapping[str, Any]]) -> str:
    """Write the stages and their minutes as aligned text."""
    rows = {name: row["seconds"] / 60 for name, row in times.items()}
    rows["all"] = sum(rows.values())
    return "\n".join(f"{name:16s}{minutes:8.1f} min" for name, minutes in rows.items())


def _refuse_changes(out: Path, begun: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Compare settings with those a folder was begun with. Raises: MarigoldError naming the differences."""
    if changed := [f"{name} {begun.get(name)}, now {now[name]}" for name in now if begun.get(name) != now[name]]:
        raise MarigoldError(f"{out} was begun with {'; '.join(changed)}: give the same settings, or another --out.")


class _Both:
    """Writes to the screen and to the log."""

    def __init__(self, *files: TextIO) -> None:
        self.files = files

    def write(self, text: str) -> int:
        for file in self.files:
            file.write(text)
        return len(text)

    def flush(self) -> None:
        for file in self.files:
            file.flush()


def main(
    out: Path,
    sizes: Sizes,
    inputs: Inputs,
    hours: float | None = None,
    minutes: float | None = None,
) -> None:
    """Make the bundled checkpoint from nothing; the same command goes on where it was stopped.

    Args:
        out: folder of everything that is made; the checkpoint is in its folder published.
        sizes: of the stages.
        inputs: what is read.
        hours: scales pictures and steps to about this time on one core of a CPU; by default the full recipe.
        minutes: the same in minutes.
    """
    if hours is not None or minutes is not None:
        wanted = (hours or 0) + (minutes or 0) / 60
        if wanted <= 0:
            raise MarigoldError(f"hours and minutes must be more than 0, but got {wanted:g} hours.")
        sizes = sizes.scaled(wanted / FULL_HOURS)
    make(out, sizes, inputs)


if __name__ == "__main__":
    run(main, "python -m training.nano")

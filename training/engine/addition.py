"""Small networks that a finished checkpoint is given last, trained on its predictions of rendered scenes."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast

import numpy as np
import torch
from accelerate.utils import send_to_device
from diffusers import ModelMixin
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from marigold_core import load
from marigold_core.errors import MarigoldError
from marigold_core.pipeline.modalities import Depth
from marigold_core.pipeline.pipeline import MarigoldPipeline
from marigold_core.storage import replacing, write_json
from training.data.augmentation import photographic
from training.data.random_streams import stream
from training.data.sets.rendered import RenderedScenes
from training.data.sets.sample import Sample, spread
from training.engine.checkpoints import derived
from training.engine.figures import FigureCallback
from training.engine.fingerprint import check_folder, run_fingerprint
from training.engine.loop import Item, Losses, Run, run_loop
from training.engine.processes import accelerator_for
from training.engine.progress import follow
from training.engine.workers import locked, say_disk_need
from training.models.networks import seeded
from training.recipe import AdditionRecipe, PhotographedRecipe
from training.scoring.plots import draw_sheet

Network = TypeVar("Network", bound=ModelMixin)
MAPS, RECORD = "maps", "maps.json"  # a file for each picture, and what all of them were made with
SHOWN = 4  # pictures of a sheet; none of them is trained on
NUMBERS_EACH = 90_000  # of the features of a picture, about
FLIPPED = 0.5  # share of pictures that are mirrored


@dataclass(frozen=True)
class Task:
    """What to train on and where, beside the recipe."""

    start_from: str  # checkpoint of depth, or a run; one that has such a network goes on with it
    data: Path  # rendered scenes, from training.render
    out: Path  # folder of the run; its newest step_* folder is a whole checkpoint
    minutes: float | None = None  # stop after this time
    device: Literal["auto", "cpu"] = "auto"  # where to train


def photographed(sample: Sample, recipe: PhotographedRecipe, number: int) -> Sample:
    """Give a rendered picture the faults of photographs and turn some, with their depth, upside down.

    It is a function of (seed, number).
    """
    chances = stream(recipe.seed, number)
    picture = torch.from_numpy(sample.rgb.copy()).permute(2, 0, 1)[None].float() / 255
    picture = photographic(picture, chances)[0].clamp(0, 1)
    rgb = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    rows = slice(None, None, -1 if torch.rand((), generator=chances) < recipe.upside_down else 1)
    return Sample(sample.name, rgb[rows].copy(), sample.depth_m[rows].copy())


def store(path: Path, parts: Sequence[Tensor]) -> None:
    """Write the tensors [C, H, W] that are learned from one picture, in float16. Raises: ExportError."""
    with replacing(path) as aside:
        save_file({f"{place:02d}": part.half().contiguous() for place, part in enumerate(parts)}, aside)


class Stored:
    """Reads what ``store`` wrote: batches of pictures of one size, each a function of (seed, step)."""

    def __init__(self, recipe: AdditionRecipe, numbers: Sequence[int], folder: Path) -> None:
        self.recipe, self.numbers, self.folder = recipe, numbers, folder
        sizes: dict[tuple[int, ...], list[int]] = {}
        for number in numbers[SHOWN:]:
            with safe_open(self._path(number), "pt") as file:
                sizes.setdefault(tuple(file.get_slice("00").get_shape()), []).append(number)
        self._of_size = list(sizes.values())

    def draw(self, step: int) -> tuple[list[Tensor], np.random.Generator]:
        """Draw the batch of a step -> its tensors [B, C, H, W], and the generator to draw more of it from."""
        rng = np.random.default_rng([self.recipe.seed, step])
        counts = np.array([len(numbers) for numbers in self._of_size])
        alike = self._of_size[rng.choice(len(counts), p=counts / counts.sum())]
        found = [self.read(number) for number in rng.choice(alike, self.recipe.batch_size)]
        found = [[one.flip(-1) for one in read] if rng.random() < FLIPPED else read for read in found]
        return [torch.stack(parts) for parts in zip(*found, strict=True)], rng

    def read(self, number: int) -> list[Tensor]:
        """Read the tensors [C, H, W] of a picture in the order in which ``store`` was given them."""
        found = load_file(self._path(number))
        return [found[place].float() for place in sorted(found)]

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"


class Addition:
    """A run that trains one network beside the others of a checkpoint, which stay as they are."""

    def __init__(self, task: Task, recipe: AdditionRecipe, start: Path, folder: str) -> None:
        """Look at start and data; ``folder`` is that of the network in a checkpoint.

        Raises: MarigoldError for a start that predicts no depth, too few pictures, or several processes.
        """
        self.task, self.recipe, self.folder, self._start = task, recipe, folder, start
        check_folder(task.out)
        self._accelerator = accelerator_for(recipe, task.device)
        if self._accelerator.num_processes > 1:
            raise MarigoldError(f"The network {folder} is small and is trained by one process; use no launcher.")
        self.scenes = RenderedScenes(task.data)
        self.numbers = spread(self.scenes, recipe.pictures)
        if len(self.numbers) <= SHOWN:
            raise MarigoldError(f"{task.data.name} has {len(self.scenes)} pictures, and more than {SHOWN} are needed.")

    def missing(self, suffix: str, bytes_each: int) -> Iterator[tuple[MarigoldPipeline, int, Path]]:
        """Yield the pipeline, the number of a picture and the path of its file, for every picture that has no file yet.

        Raises: MarigoldError when the folder holds files of another checkpoint or of other data.
        """
        pipeline = load(self._start)
        if not (isinstance(pipeline.modality, Depth) and pipeline.modality.kind == "affine"):
            raise MarigoldError(
                f"The network {self.folder} is one of relative depth, and the start predicts {pipeline.modality.kind}"
                f" {pipeline.modality.name}."
            )
        first = hashlib.sha256(self.scenes[self.numbers[0]].rgb.tobytes()).hexdigest()
        made = {"checkpoint": pipeline.checkpoint.sha256, "pictures": len(self.scenes)}
        made |= {"first": first, "numbers": self.numbers}
        path = self.task.out / RECORD
        if path.exists() and json.loads(path.read_text(encoding="utf-8")) != made:
            raise MarigoldError(f"{self.task.out.name} holds maps of another checkpoint or data: give another --out.")
        with locked(self.task.out, "trains", within=[MAPS]):
            (self.task.out / MAPS).mkdir(exist_ok=True)
            write_json(path, made)
            say_disk_need(self.task.out, bytes_each * len(self.numbers), "Maps need")
            for number in follow(self.numbers, len(self.numbers), "predict"):
                target = self.task.out / MAPS / f"{number:06d}{suffix}"
                if not target.exists():
                    yield pipeline, number, target

    def train(
        self,
        kind: type[Network],
        make: Callable[[], Network],
        batch: Callable[[int], Item],
        loss: Callable[[Network, int, Item], Losses],
        columns: Sequence[str],
        show: Callable[[Network, int], Sequence[np.ndarray]],
    ) -> Path:
        """Train the network that ``make`` builds, or the one that the start has -> the newest checkpoint of the run.

        Args:
            kind: class of the network.
            make: builds the network.
            batch: makes the batch of a step, a function of its number.
            loss: scores the network at a step on its batch, which lies on the device of the run.
            columns: titles of the pictures that are drawn now and then.
            show: makes these [H, W, 3] uint8 of the network and the number of a picture that no step trains on.

        Raises: what ``loop.run_loop`` raises.
        """
        run, device = self._begin(make), self._accelerator.device
        network = kind.from_pretrained(run.base / self.folder).train()

        def load_batches(steps: range) -> Iterator[Item]:
            return (cast(Item, send_to_device(batch(step), device)) for step in steps)

        def score(network: nn.Module, step: int, item: Item) -> Losses:
            return loss(cast(Network, network), step, item)

        @torch.inference_mode()
        def draw(network: ModelMixin, step: int, path: Path) -> None:
            rows = [(f"picture {number}", show(cast(Network, network), number)) for number in self.numbers[:SHOWN]]
            draw_sheet(f"pictures that no step trains on, after step {step}", columns, rows, path)

        figures = FigureCallback(self.recipe, self.task.out, draw)
        given = network, score, load_batches, self.recipe, run, self._accelerator
        folder = run_loop(*given, callback=figures, minutes=self.task.minutes)
        load(folder)  # checks that the folder is complete
        return folder

    def _begin(self, make: Callable[[], ModelMixin]) -> Run:
        """Write what the run starts from, with a new network or the one that there is -> the settings of the run."""
        base = self.task.out / "start"
        if not base.exists():
            add_network(self._start, base, self.folder, make, self.recipe.seed)
        data = [f"{len(self.numbers)} of {len(self.scenes)} pictures"]
        identity = load(base).checkpoint.sha256
        fingerprint = run_fingerprint(self.recipe, identity, data, self._accelerator.device.type)
        return Run(self.task.out, base, self.folder, fingerprint)


def add_network(source: Path, out: Path, folder: str, make: Callable[[], ModelMixin], seed: int = 0) -> Path:
    """Write a checkpoint with a new network in ``folder``, or with the one that it has -> ``out``.

    Raises: ExportError when ``out`` cannot be written.
    """
    with derived(source, out) as aside:
        if not (aside / folder).exists():
            with seeded(seed, torch.float32):
                make().save_pretrained(aside / folder)
    return out

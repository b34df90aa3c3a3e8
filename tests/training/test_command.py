"""The command lines of training: options made from models, exit status, and bad input told in one sentence."""

import importlib
import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from pydantic import Field

from marigold_core.errors import MarigoldError
from marigold_core.options import Presets
from marigold_core.settings import Frozen
from tests.helpers.command_line import ROOT
from tests.helpers.damage import edit
from training.engine.command import run
from training.engine.progress import Progress
from training.recipe import PRESETS as training_presets
from training.recipe import RECIPES, AutoencoderRecipe, Framing, Recipe
from training.train import Task, jsonable, with_config

# ------------------------------------------------------------------------------- options


class Part(Frozen):
    size_px: int | None = Field(default=None, ge=32, description="how large; auto: as it is")
    share: float = Field(default=0.5, ge=0, lt=1, description="how much")


class Whole(Part):
    rate: float = Field(default=1e-3, gt=0, description="how fast")
    shares: tuple[float, ...] | None = Field(default=None, description="of each")
    corner: tuple[float, float] = Field(default=(0.0, 1.0), description="from, to")
    free: float = Field(default=-1.5, description="any number")
    kind: Literal["plain", "annealed"] = Field(default="plain", description="which one")
    words: tuple[Literal["a", "b"], ...] = Field(default=("a",), description="which ones")
    turned: bool = Field(default=True, description="the other way round")


PRESETS = Presets("recipe", {"large": Whole(size_px=768, turned=False), "small": Whole(rate=0.25)}, "small", "of all")
Ended = Callable[..., tuple[int | str | None, str]]


@pytest.fixture
def ended(capsys: pytest.CaptureFixture[str]) -> Ended:
    """``ended(function, words..., presets)`` runs a command -> (exit status, what it wrote on stderr)."""

    def ended(function: Callable[..., int | None], *words: object, presets: Presets | None = None):
        with pytest.raises(SystemExit) as stopped:
            run(function, "python -m command", list(map(str, words)), presets)
        return stopped.value.code, capsys.readouterr().err

    return ended


def parse(*words: object, presets: Presets | None = None, model: type[Frozen] = Whole) -> Frozen:
    """Read words as the options of a model."""
    given: list[Frozen] = []

    def command(recipe: model) -> None:  # type: ignore (a variable, as a test may have it)
        given.append(recipe)

    with pytest.raises(SystemExit) as stopped:
        run(command, "python -m command", list(map(str, words)), presets)
    assert stopped.value.code in (0, None)
    return given[0]


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ([], {}),
        (["--rate", "3e-5", "--size-px", "64"], {"rate": 3e-5, "size_px": 64}),
        (["--size-px", "auto", "--shares", "auto"], {}),
        (["--shares", "0.9,.1"], {"shares": (0.9, 0.1)}),
        (["--shares", "1"], {"shares": (1.0,)}),
        (["--corner", "0.25, 1"], {"corner": (0.25, 1.0)}),
        (["--free", "-7"], {"free": -7.0}),
        (["--kind", "annealed", "--words", "b,a"], {"kind": "annealed", "words": ("b", "a")}),
        (["--no-turned"], {"turned": False}),
        (["--no-turned", "--turned"], {"turned": True}),
    ],
)
def test_words_become_values(words: list[str], values: dict[str, object]) -> None:
    assert parse(*words) == Whole.model_validate(values)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rate", "0"], "rate must be greater than 0, but got 0."),
        (["--rate", "fast"], "rate must be a valid number, but got 'fast'."),
        (["--rate", "auto"], "rate must be a valid number, but got 'auto'."),
        (["--share", "1"], "share must be less than 1, but got 1."),
        (["--size-px", "31"], "size_px must be greater than or equal to 32, but got 31."),
        (["--size-px", "64.5"], "size_px must be a valid integer, but got 64.5."),
        (["--shares", "0.9,x"], "shares must be a valid number, but got 'x'."),
        (["--shares", ""], r"An argument is empty: '' after --shares; give a value or leave it out .*\."),
        (["--corner", "1"], "corner must be .* but got .*"),
        (["--kind", "fancy"], "kind must be 'plain' or 'annealed', but got 'fancy'."),
        (["--recipe", "huge"], "recipe must be one of large, small, but got 'huge'."),
    ],
)
def test_a_wrong_value_is_one_sentence_and_status_2(words: list[str], message: str, ended: Ended) -> None:
    def command(recipe: Whole) -> None:
        raise AssertionError("the command must not run")

    status, said = ended(command, *words, presets=PRESETS)
    assert status == 2
    assert re.fullmatch(message, said.removesuffix("\n"))


@pytest.mark.parametrize("words", [["--sise-px", 64], ["--rate"], ["--recipe"], ["stray"]])
def test_unknown_options_and_missing_values_are_usage(words: list[object], ended: Ended) -> None:
    def command(recipe: Whole) -> None:
        raise AssertionError("the command must not run")

    status, said = ended(command, *words, presets=PRESETS)
    assert status == 2
    assert "python -m command --help" in said


def test_a_preset_gives_the_defaults_of_all_other_options() -> None:
    assert parse(presets=PRESETS) == Whole(rate=0.25)
    assert parse("--recipe", "large", presets=PRESETS) == Whole(size_px=768, turned=False)
    assert parse("--turned", "--recipe=large", presets=PRESETS) == Whole(size_px=768)
    assert parse("--recipe", "large", "--size-px", "auto", presets=PRESETS) == Whole(turned=False)
    assert parse("--recipe", "large", presets=PRESETS, model=Part) == Part(size_px=768)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_comes_through_the_command_line_unchanged(name: str) -> None:
    recipes = Presets("recipe", RECIPES, "nano", "what to reproduce")
    recipe = RECIPES[name]
    assert parse("--recipe", name, presets=recipes, model=Recipe) == recipe
    part = {field: getattr(recipe, field) for field in Framing.model_fields}
    assert parse("--recipe", name, presets=recipes, model=Framing) == Framing(**part)


def test_help_shows_ranges_defaults_and_descriptions(capsys: pytest.CaptureFixture[str]) -> None:
    def command(out: Path, recipe: Whole) -> None:
        """Do it.

        Args:
            out: where to.
            recipe: how.
        """

    with pytest.raises(SystemExit) as stopped:
        run(command, "python -m command", ["--recipe", "large", "--help"], PRESETS)
    assert stopped.value.code == 0
    shown = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    for line in (
        "--recipe large|small of all (default: small)",
        "--size-px 32.. how large; auto: as it is (default: 768)",
        "--share 0..<1 how much (default: 0.5)",
        "--rate >0.. how fast (default: 0.001)",
        "--shares NUMBER,... of each (default: auto)",
        "--corner NUMBER,NUMBER from, to (default: 0.0,1.0)",
        "--free NUMBER any number (default: -1.5)",
        "--kind plain|annealed which one (default: plain)",
        "--words a,b which ones (default: a)",
        "--turned, --no-turned the other way round (default: False)",
        "--out PATH where to. (required)",
    ):
        assert line in shown


@pytest.mark.parametrize("model", [Recipe, AutoencoderRecipe])
def test_every_choice_of_a_recipe_explains_itself(model: type[Frozen]) -> None:
    assert all(len(field.description or "") > 10 for field in model.model_fields.values())


# ------------------------------------------------------------------------------- exit status


class Lost(MarigoldError):
    exit_code = 4


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (None, None, ""),
        (0, 0, ""),
        (1, 1, ""),
        (MarigoldError("The folder is empty: fill it."), 2, "The folder is empty: fill it.\n"),
        (Lost("The loss is lost."), 4, "The loss is lost.\n"),
        (KeyboardInterrupt(), 130, "Stopped. The same command goes on where this one ended.\n"),
    ],
)
def test_how_a_command_ends(outcome: int | BaseException | None, status: int, said: str, ended: Ended) -> None:
    def command() -> int | None:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    assert ended(command) == (status, said)


def test_a_fault_of_the_program_keeps_its_trace() -> None:
    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(command, "python -m command", [])


def test_the_libraries_draw_no_bars(tiny_depth: Path, ended: Ended) -> None:
    from diffusers import UNet2DConditionModel
    from diffusers.utils import logging as diffusers_logging
    from transformers import CLIPTextModel
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.enable_progress_bar()  # an earlier command in this process may have done its work

    def command() -> None:
        UNet2DConditionModel.from_pretrained(tiny_depth / "unet")
        CLIPTextModel.from_pretrained(tiny_depth / "text_encoder")

    assert ended(command) == (None, "")


# ------------------------------------------------------------------------------- bad input, command by command


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, tiny_depth: Path, tiny_normals: Path) -> Path:
    """A folder to stand in: checkpoints good and bad, data good and bad."""
    ground = tmp_path_factory.mktemp("ground")
    for name, source in (("good", tiny_depth), ("facing", tiny_normals), ("epsilon", tiny_depth)):
        shutil.copytree(source, ground / name)
    edit(ground / "epsilon" / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    (ground / "empty").mkdir()
    (ground / "file.txt").write_text("no folder")
    for name, size in (("mine", (24, 32)), ("uneven", (20, 32))):
        (ground / name / "a").mkdir(parents=True)
        Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(ground / name / "a" / "rgb.png")
        np.savez(ground / name / "a" / "depth.npz", depth=np.ones(size, np.float32))
    return ground


BAD = [
    ("render", "--out new --width 250", "width must be a multiple of 32, but got 250."),
    ("render", "--out new --count 0", "count must be greater than or equal to 1, but got 0."),
    ("render", "--out new --workers some", "workers must be a valid integer, but got 'some'."),
    ("render", "--out new --assets empty", "empty has no index.json; leave --assets out .*"),
    ("start", "empty new", "The folder 'empty' is not a checkpoint in diffusers' layout: it is empty. .*"),
    ("start", "good/nowhere new", "There is no folder good/nowhere to start from."),
    ("start", "sd3 new", "There is no checkpoint 'sd3': give one of .*"),
    ("start", "file.txt new", "There is no checkpoint 'file.txt': .*"),
    ("start", "epsilon new", "The scheduler predicts epsilon; .*"),
    ("start", "new:tiny good", "good holds something else already: .*"),
    ("publish", "empty new", "The folder 'empty' is not a checkpoint .*"),
    ("publish", "nowhere new", "There is no checkpoint 'nowhere': .*"),
    ("publish", "good new --card nowhere.md", "There is no model card nowhere.md."),
    ("publish", "good new --resolution-px 33", "processing_resolution must be a multiple of 8, but got 33."),
    ("train", "--start-from good --out new", "There is nothing to train on: .*"),
    ("train", "--start-from good --out new --data nowhere", "There is no folder nowhere."),
    ("train", "--start-from good --out new --data nyuv3:empty", "'nyuv3' is no kind of data set; .*"),
    ("train", "--start-from good --out new --data hypersim:empty", "empty holds no pictures of hypersim: .*"),
    ("train", "--start-from good --out new --data rendered:mine", "mine has no rendered shard; .*"),
    ("train", "--start-from epsilon --out new --data mine", "The scheduler predicts epsilon; .*"),
    ("train", "--start-from nowhere --out new --data mine", "There is no checkpoint 'nowhere': .*"),
    ("train", "--start-from good --out new --data mine --lr 0", "lr must be greater than 0, but got 0."),
    ("train", "--start-from good --out new --data mine --recipe huge", "recipe must be one of paper, .*"),
    (
        "train",
        "--start-from good --out new --data mine --batch-size 6 --micro-batch-size 4",
        ".* give sizes that divide.",
    ),
    ("autoencoder", "--data nowhere --out new", "nowhere has no rendered shard; .*"),
    ("autoencoder", "--data mine --out new --crop-px 20", "crop_px must be a multiple of 16, but got 20."),
    (
        "autoencoder",
        "--data mine --out new --depth-share 0.9 --labels-share 0.5",
        "Depth, normals and labels cannot be 1.5 of the pictures: .*",
    ),
    ("latents", "--checkpoint good --data nowhere --out new", "There is no folder nowhere."),
    ("latents", "--checkpoint empty --data mine --out new", "The folder 'empty' is not a checkpoint .*"),
    ("latents", "--checkpoint good --data mine --out new --flip 2", "flip must be less than or equal to 1, but got 2."),
    ("evaluate", "good nowhere", "There is no folder nowhere."),
    ("evaluate", "nowhere mine", "There is no checkpoint 'nowhere': .*"),
    ("evaluate", "facing mine", "a has no normals, which rendered scenes alone have: .*"),
    ("evaluate", "good mine --alignment none", "good predicts depth whose scale and shift are not known, .*"),
    ("evaluate", "good mine --protocol nyu2", "There is no protocol 'nyu2'; choose from nyu, .*"),
    ("evaluate", "good mine --ensemble-size 0", "ensemble_size must be greater than or equal to 1, but got 0."),
    ("evaluate", "good uneven", ".*uneven.*"),
    ("doctor", "nowhere", "There is no folder nowhere."),
    ("doctor", "empty", "empty has neither shards .*"),
    ("prepare", "vkitti nowhere new", "There is no folder nowhere."),
    ("prepare", "vkitti empty new", "empty holds no pictures of vkitti: .*"),
    ("prepare", "hypersim empty new", "empty has no metadata_images_split_scene_v1.csv; .*"),
]


def execute(module: str, words: str, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """Run ``python -m training.MODULE WORDS`` in this process -> its exit status."""
    monkeypatch.delitem(sys.modules, f"training.{module}", raising=False)
    monkeypatch.setattr(sys, "argv", [module, *words.split()])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(f"training.{module}", run_name="__main__")
    return stopped.value.code


@pytest.mark.parametrize(("module", "words", "message"), BAD, ids=[f"{row[0]} {row[1]}" for row in BAD])
def test_bad_input_is_one_sentence_and_leaves_nothing(
    module: str, words: str, message: str, ground: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ground)
    before = sorted(ground.rglob("*"))
    assert execute(module, words, monkeypatch) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(message + r"\n", said), said
    assert sorted(ground.rglob("*")) == before


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        ("train", "--start-from good --out {} --latents empty --device cpu", ".*empty.*"),
        ("latents", "--checkpoint good --data uneven --out {}", "uneven/a/depth.npz has 20 x 32 pixels, .*"),
    ],
    ids=["train", "latents"],
)
def test_bad_input_that_shows_later_is_one_sentence_too(
    module: str, words: str, message: str, ground: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ground)
    assert execute(module, words.format(tmp_path / "new"), monkeypatch) == 2
    last = capsys.readouterr().err.splitlines()[-1]  # after a progress bar
    assert re.fullmatch(message, last), last


SCRIPTS = sorted(path for path in (ROOT / "training").glob("*.py") if path.stem[0] != "_")
COMMANDS = [path.stem for path in SCRIPTS if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_has_help_and_refuses_unknown_options(
    module: str, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(module, "--help", monkeypatch) == 0
    assert f"usage: python -m training.{module}" in capsys.readouterr().out
    assert execute(module, "--no-such-option 1", monkeypatch) == 2
    assert "--help" in capsys.readouterr().err


def test_the_commands_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["training"])
    runpy.run_module("training", run_name="__main__")
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert listed == {*COMMANDS}


def test_a_run_begins_anew_with_the_options_of_another(tmp_path: Path) -> None:
    recipe = RECIPES["nano"].changed(lr=1e-5, shares=(0.9, 0.1), flip=0.25)
    task = Task("new:tiny", tmp_path / "a", data=("rendered:x", "pairs:y z"), photos=Path("photos"), workers=2)
    record = {"recipe": recipe.model_dump(mode="json"), "task": jsonable(task)}
    (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8-sig")  # as some editors save it
    given: list[tuple[Task, Recipe]] = []

    def take(task: Task, recipe: Recipe) -> None:
        """Keep them."""
        given.append((task, recipe))

    words = ["--config", str(tmp_path / "run.json"), "--out", str(tmp_path / "b")]
    for more in ([], ["--lr", "0.5", "--workers=0"]):
        with pytest.raises(SystemExit):
            run(take, "train", [*words, *more], training_presets, with_config)
    (again, same), (other, changed) = given
    assert same == recipe
    assert (again.start_from, again.data, again.workers, again.out) == ("new:tiny", task.data, 2, tmp_path / "b")
    assert again.photos == Path("photos").absolute()
    assert changed == recipe.changed(lr=0.5)
    assert other.workers == 0


def test_what_is_no_record_of_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MarigoldError, match="There is no"):
        with_config(["--config", str(tmp_path / "run.json")])
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(MarigoldError, match="does not hold the options"):
        with_config(["--config", str(tmp_path / "run.json")])


def test_a_log_without_a_terminal_has_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("training.engine.progress.time.monotonic", lambda: now[0])
    with Progress(10, "my_run", "step", done=2) as progress:
        for _ in range(5):
            now[0] += 20
            progress.update(loss=0.25)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "my_run: step 4 of 10, loss 0.25, 0.05 a second, 02:00 left"
    assert len(lines) == 3 and lines[-1].startswith("my_run: step 7 of 10")
    with Progress(10, "my_run", "step", silent=True) as progress:
        now[0] += 100
        progress.update(loss=0.25)
    assert not capsys.readouterr().err


def test_a_command_as_a_word_of_its_own_is_answered_with_how_it_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["training", "trian", "--out", "runs"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("training", run_name="__main__")
    assert stopped.value.code == 2
    assert "python -m training.train;" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["__main__", "device", "metres", "stopping"])
def test_a_measurement_is_not_written_over_a_file_of_the_users(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text('{"mine": 1}')
    data = ["measured:nowhere"] if command == "metres" else []
    monkeypatch.setattr(sys, "argv", [command, *data, "--json", str(mine)])
    with pytest.raises(MarigoldError, match="is no result of this command"):
        importlib.import_module(f"tests.bench.{command}").main()


INTERRUPTED = """
import runpy, signal, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "torch":
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's command in the background ignores
sys.meta_path.insert(0, Interrupt())
sys.argv = ["-m"]  # as python -m imports the package
import training
sys.argv = ["train", "--help"]
runpy.run_module("training.train", run_name="__main__")
"""


def test_ctrl_c_while_libraries_are_imported_leaves_no_trace() -> None:
    process = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, cwd=ROOT, text=True)
    assert (process.returncode, process.stderr) == (130, "Stopped.\n")

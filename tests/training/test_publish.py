"""A run becomes a checkpoint to ship: half precision, small files, a card; nothing but an older one is replaced."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import MarigoldDepthPipeline
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from marigold_core import load
from marigold_core.checkpoints.registry import find
from marigold_core.checkpoints.weights import write_checksums
from marigold_core.errors import CheckpointError, ExportError, MarigoldError, SettingsError
from marigold_core.storage import ASSETS
from tests.helpers.command_line import exit_status, fingerprints
from tests.helpers.damage import DISK_FULL, failing
from tests.helpers.displacement import with_displacement
from tests.helpers.fake_hub import FakeHub, fake_hub
from tests.helpers.families import as_lotus
from training import publish as module
from training.data.targets import TargetName
from training.engine import checkpoints
from training.models.networks import new_checkpoint
from training.publish import publish
from training.recipe import RECIPES, Recipe
from training.start import prepare_start

SCORES = {10: 0.2, 20: 0.1, 30: 0.15}


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run of three checkpoints, of which the second validated best."""
    run = tmp_path / "my_run"
    lines = []
    for step, score in SCORES.items():
        folder = prepare_start("new:tiny", run / f"step_{step:08d}", seed=step)
        (folder / "training_state.safetensors").write_bytes(b"state")
        validation = {"measured dev": {"abs_rel": score, "delta1": 0.9}}
        baselines = {"measured dev": {"vertical ramp": 0.162}}
        lines.append({"step": step, "score": score, "validation": validation, "baselines": baselines})
    recipe = RECIPES["nano"].changed(lr=0.000123)
    return record(run, lines, recipe, pictures=["1,234 pictures of rendered"], resolution_px=192)


def record(run: Path, lines: list[dict], recipe: Recipe, **more: object) -> Path:
    """Write what a run keeps beside its checkpoints."""
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "run.json").write_text(json.dumps({"recipe": recipe.model_dump(mode="json"), **more}))
    return run


def command(*words: object) -> int:
    return exit_status(module.main, *words)


def test_a_published_checkpoint_is_half_precision_and_predicts_the_same(tiny_depth: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("# A card\n")
    out = publish(tiny_depth, tmp_path / "out", card)
    assert (out / "README.md").read_text() == "# A card\n"
    assert {value.dtype for value in load(out, dtype="float16").unet.state_dict().values()} == {torch.float16}
    photo = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    opened = MarigoldDepthPipeline.from_pretrained(out)
    assert opened.dtype == opened.unet.dtype == torch.float32  # as diffusers does by default: a CPU cannot run half
    difference = np.abs(load(out)(photo).values - load(tiny_depth)(photo).values)
    assert difference.max() < 0.02


def test_parts_of_our_own_are_published_in_half_precision_too(tiny_guided: Path, tmp_path: Path) -> None:
    source = with_displacement(tiny_guided, tmp_path / "source")
    out = publish(source, tmp_path / "out")
    for part in ("unet", "prior", "displacement"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        kept, published = load_file(source / name), load_file(out / name)
        assert kept.keys() == published.keys()
        assert {value.dtype for value in published.values()} == {torch.float16}
        assert name in json.loads((out / "checksums.json").read_text())
        assert str(tmp_path) not in (out / part / "config.json").read_text(encoding="utf-8")
    photo = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    assert np.abs(load(out)(photo).values - load(source)(photo).values).max() < 0.02


def test_a_newer_one_replaces_the_older_and_nothing_of_the_run_is_shipped(tmp_path: Path) -> None:
    first, second = (new_checkpoint(tmp_path / str(seed), "tiny", seed=seed) for seed in (0, 1))
    (second / "training_state.safetensors").write_bytes(b"state")
    out = publish(first, tmp_path / "out")
    before = find(out).sha256
    publish(second, out, resolution_px=96)
    assert find(out).sha256 != before
    assert find(out).default_resolution == 96
    assert not list(out.glob("training_state*")) + list(out.glob("README.old*"))
    listed = json.loads((out / "checksums.json").read_text())
    assert set(listed) == {path.relative_to(out).as_posix() for path in out.rglob("*.safetensors")} | {"README.md"}


def test_a_card_written_by_hand_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    source = new_checkpoint(tmp_path / "source", "tiny")
    out = publish(source, tmp_path / "out")
    (out / "README.md").write_text("# By hand\n")
    publish(source, out)
    publish(source, out)
    assert (out / "README.old.md").read_text() == "# By hand\n"
    assert "By hand" not in (out / "README.md").read_text()
    (out / "README.md").write_text("# By hand, again\n")
    with pytest.raises(ExportError, match="two model cards written by hand"):
        publish(source, out)


@pytest.mark.parametrize(
    "foreign",
    [
        *("thesis.txt", "tokenizer/thesis.txt", "scheduler/notes.json", "vae/x.txt", "text_encoder/merges.txt"),
        *("unet/mine.safetensors", "prior/notes/a.txt", "mine/config.json"),
    ],
)
def test_a_published_folder_that_holds_a_file_of_the_users_is_not_replaced(
    foreign: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = new_checkpoint(tmp_path / "source", "tiny")
    out = publish(source, tmp_path / "out")
    (out / foreign).parent.mkdir(parents=True, exist_ok=True)
    (out / foreign).write_text("mine")
    before = fingerprints(tmp_path)
    assert command(source, out) == 2
    assert f"out holds {foreign.split('/a.txt')[0].removesuffix('/config.json')}, which" in capsys.readouterr().err
    assert fingerprints(tmp_path) == before


def test_a_checkpoint_is_published_by_its_name_too(tmp_path: Path) -> None:
    assert command("nano", tmp_path / "out") == 0
    assert find(tmp_path / "out").default_resolution == find("nano").default_resolution


def test_files_of_the_users_in_the_source_are_not_published(tmp_path: Path) -> None:
    source = new_checkpoint(tmp_path / "source", "tiny")
    for part in ("tokenizer", "scheduler"):
        (source / part / "notes.txt").write_text("mine")
    out = publish(source, tmp_path / "out")
    assert not list(out.rglob("notes.txt"))
    publish(source, out)


def test_the_bundled_checkpoint_which_an_earlier_version_published_can_be_replaced(tmp_path: Path) -> None:
    out = tmp_path / "nano"
    shutil.copytree(ASSETS / "marigold-nano", out)
    publish(new_checkpoint(tmp_path / "source", "tiny"), out)
    assert not (out / "prior").exists()


def _strange_file(out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("x")


def _published_with_a_strange_file(out: Path) -> None:
    publish(new_checkpoint(out.with_name("other"), "tiny"), out)
    (out / "unet" / "notes.md").write_text("x")


def _another_checkpoint(out: Path) -> None:
    new_checkpoint(out, "tiny")
    (out / "checksums.json").unlink()


def _a_step_of_a_run(out: Path) -> None:
    new_checkpoint(out, "tiny")
    save_file({"weights.a": torch.zeros(1)}, out / "training_state.safetensors")
    write_checksums(out)


def _a_start(out: Path) -> None:
    prepare_start("new:tiny", out)


def _a_file(out: Path) -> None:
    out.write_text("x")


@pytest.mark.parametrize(
    "fill",
    [_strange_file, _published_with_a_strange_file, _another_checkpoint, _a_step_of_a_run, _a_start, _a_file],
)
def test_what_is_no_published_checkpoint_is_not_replaced(
    fill: Callable[[Path], None], run_folder: Path, tmp_path: Path
) -> None:
    fill(tmp_path / "p")
    before = fingerprints(tmp_path)
    assert command(run_folder, tmp_path / "p") == 2
    assert fingerprints(tmp_path) == before


@pytest.mark.parametrize(
    "target", [".", "..", "step_00000020", "step_00000030", "new", "step_00000020/unet", "../link"]
)
def test_the_source_what_is_in_it_and_around_it_is_not_replaced(target: str, run_folder: Path) -> None:
    (run_folder.parent / "link").symlink_to(run_folder)
    before = fingerprints(run_folder.parent)
    assert command(run_folder, run_folder / target) == 2
    assert command(run_folder / "step_00000020", run_folder / target) == 2
    assert fingerprints(run_folder.parent) == before


def test_the_best_checkpoint_is_published_with_a_card_at_the_resolution_of_its_training(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(run_folder, tmp_path / "p") == 0
    assert "step 20 (validated best of 3" in capsys.readouterr().out
    assert find(tmp_path / "p").default_resolution == 192
    card = ModelCard.load(tmp_path / "p" / "README.md")
    stated = card.data.to_dict()
    assert [stated[key] for key in ("license", "library_name", "pipeline_tag")] == [
        *("apache-2.0", "diffusers"),
        "depth-estimation",
    ]
    for fact in ("random weights of shape tiny, seed 20", "| lr | 0.000123 |", "1,234 pictures of rendered"):
        assert fact in card.text
    assert "| measured dev | **this checkpoint** | 0.1000 | 0.9000 |" in card.text
    assert "vertical ramp, without looking at the photo | 0.1620" in card.text
    assert "after 20 of 5000 steps" in card.text.replace("\n", " ")


def test_another_checkpoint_resolution_and_licence_can_be_asked_for(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--step", "newest", "--resolution-px", "96", "--licence", "cc-by-4.0")
    assert command(run_folder, tmp_path / "p", *words) == 0
    assert "step 30 (the newest" in capsys.readouterr().out
    assert find(tmp_path / "p").default_resolution == 96
    assert ModelCard.load(tmp_path / "p" / "README.md").data.to_dict()["license"] == "cc-by-4.0"
    assert command(run_folder, tmp_path / "p", "--step", "7") == 2
    assert "give --step best, newest or one of 10, 20, 30" in capsys.readouterr().err
    assert command(tmp_path / "p", tmp_path / "q", "--step", "7") == 2


def test_a_checkpoint_that_is_gone_is_not_the_best(run_folder: Path) -> None:
    (run_folder / "step_00000020").rename(run_folder / "aside")
    assert checkpoints.choose(run_folder).source == run_folder / "step_00000030"
    (run_folder / "metrics.jsonl").unlink()
    assert "none of them was validated" in checkpoints.choose(run_folder).reason


def test_what_fails_leaves_the_older_one(tiny_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = publish(tiny_depth, tmp_path / "out")
    before = fingerprints(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        publish(tmp_path / "empty", out)
    with pytest.raises(SettingsError, match="processing_resolution must be"):
        publish(tiny_depth, out, resolution_px=4)

    monkeypatch.setattr("training.publish.AutoencoderKL.save_pretrained", failing(DISK_FULL))
    with pytest.raises(ExportError, match="out cannot be written: No space left on device"):
        publish(tiny_depth, out)
    assert fingerprints(tmp_path) == before


def test_a_source_is_never_its_own_target(tiny_depth: Path) -> None:
    with pytest.raises(MarigoldError, match="is what is published"):
        publish(tiny_depth, tiny_depth)


def test_what_the_name_of_a_repository_told_stays_known_under_another_name(tiny_depth: Path, tmp_path: Path) -> None:
    source = as_lotus(tiny_depth, tmp_path / "lotus-depth-d-v2-0-disparity", generative=False)
    out = publish(source, tmp_path / "mine")
    old, new = find(source), find(out)
    assert (new.family, new.space, new.modality) == (old.family, "disparity", "depth")
    assert "of the Lotus-D family (one step, no noise), for `marigold_core.load`" in (out / "README.md").read_text()


# ------------------------------------------------------------------------------- the hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with fake_hub(monkeypatch, tmp_path / "home") as hub:
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield hub


def test_a_checkpoint_is_pushed_whole_and_can_be_fetched(
    run_folder: Path, tmp_path: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p"
    assert command(run_folder, out, "--push", "me/my-marigold", "--private") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{hub.url}/me/my-marigold"
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert hub.pushed == {"me/my-marigold": files} and hub.private == {"me/my-marigold": True}
    assert hub.requests.index("/api/validate-yaml") < hub.requests.index("/api/repos/create")
    (out / "README.md").write_text("# by hand")
    assert command(run_folder, out, "--push", "me/my-marigold") == 0
    assert "README.old.md" not in hub.pushed["me/my-marigold"] and (out / "README.old.md").exists()
    hub.folders["me/my-marigold"] = out
    hub.folders["me/my-marigold"] = Path(shutil.copytree(out, tmp_path / "served"))
    assert load("me/my-marigold").checkpoint.default_resolution == 192


@pytest.mark.parametrize(
    ("words", "fault", "sentence"),
    [
        (("--push", "no id"), None, "'no id' is no id of the hub: give OWNER/NAME."),
        (("--push", "me/mine"), 403, "The hub did not take me/mine: "),
        (("--push", "me/mine"), 500, "The hub did not take me/mine: "),
    ],
)
def test_what_the_hub_refuses_is_one_sentence_and_leaves_the_folder(
    words: tuple[str, ...],
    fault: int | None,
    sentence: str,
    run_folder: Path,
    tmp_path: Path,
    hub: FakeHub,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.fail(fault, "/create")
    assert command(run_folder, tmp_path / "p", *words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(sentence) and (tmp_path / "p").exists() == (fault is not None) and not hub.pushed


def test_a_card_that_the_hub_or_anybody_cannot_read_is_refused(
    run_folder: Path, tmp_path: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tmp_path / "card.md"
    card.write_text("---\nlicense: [apache\n---\n# A card\n")
    assert command(run_folder, tmp_path / "p", "--card", card) == 2
    assert "The metadata of the model card" in capsys.readouterr().err and not (tmp_path / "p").exists()
    hub.card_errors = ['"license" must be one of the licences']
    assert command(run_folder, tmp_path / "p", "--push", "me/mine") == 2
    assert '"license" must be one of the licences' in capsys.readouterr().err and not hub.pushed


@pytest.mark.parametrize(
    ("target", "tag", "says"),
    [
        ("metric", "depth-estimation", "is depth in metres, for the photo's focal length."),
        ("normals", "image-to-image", "is surface normals."),
        ("segmentation", "image-segmentation", "is classes of pixels."),
        ("disparity", "depth-estimation", "is affine-invariant disparity"),
        ("objects", "object-detection", "is centres, sizes and classes of objects."),
        ("intrinsics", "image-to-image", "is albedo and shading in [0, 1]."),
    ],
)
def test_the_card_says_what_is_predicted(target: TargetName, tag: str, says: str, tmp_path: Path) -> None:
    row = {"miou": 0.4321, "accuracy": 0.5, "mean_angle": 0.4321, "median_angle": 1.0, "within_11.25": 0.5}
    row |= {"abs_rel": 0.4321, "delta1": 0.5, "mae": 0.4321, "rmse": 2.0, "ap50": 0.4321, "recall": 0.5, "psnr_db": 9.0}
    folder = prepare_start("new:tiny", tmp_path / "run" / "step_00000010", target=target)
    (folder / "training_state.safetensors").write_bytes(b"state")
    validated = {"validation": {"rendered test": row}, "baselines": {"rendered test": {"flat": 0.9}}}
    record(tmp_path / "run", [{"step": 10, "score": 0.1, **validated}], RECIPES["nano"])
    assert command(tmp_path / "run", tmp_path / "p") == 0
    card = ModelCard.load(tmp_path / "p" / "README.md")
    assert card.data.to_dict()["pipeline_tag"] == tag and says in card.text
    assert "| rendered test | **this checkpoint** | 0.4321 |" in card.text
    columns = {line.count("|") for line in card.text.splitlines() if "rendered test" in line or "flat, without" in line}
    assert len(columns) == 1  # a table of equal rows
    assert ("Not metres" in card.text) == (target == "disparity")
    assert ("of the baselines alone are fitted" in card.text) == (target == "metric")
    assert load(tmp_path / "p").modality == load(folder).modality

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marigold_core import load
from marigold_core.checkpoints.registry import find
from marigold_core.errors import MarigoldError
from marigold_core.pipeline.pipeline import MarigoldPipeline
from tests.helpers.draft import with_draft
from tests.helpers.set_writers import picture, write_measured, write_pairs
from tests.helpers.training_runs import unwatched
from training import ablate as ablate_module
from training import train as train_module
from training.ablate import Score, place_timesteps
from training.ablate import main as ablate
from training.data.sets import open_set
from training.engine import loop
from training.recipe import RECIPES, Recipe
from training.scoring.ablations import ABLATIONS, Name
from training.scoring.plots import draw_table
from training.scoring.targets import DEPTH
from training.train import Task

SMOKE = RECIPES["smoke"].changed(steps=2, figure_steps=100, validate_steps=100)


@pytest.fixture(scope="module")
def task(tiny_depth: Path, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """The tiny checkpoint, four small pictures to train on, two to score."""
    folder = tmp_path_factory.mktemp("sets")
    write_pairs(folder / "train", {f"{seed}": picture((48, 64), seed) for seed in range(4)})
    write_measured(folder / "val", {f"{seed}": picture((40, 56), seed) for seed in range(7, 9)})
    return Task(
        start_from=str(tiny_depth),
        out=folder / "unused",
        data=(f"pairs:{folder / 'train'}",),
        validation=(f"measured:{folder / 'val'}",),
        device="cpu",
    )


def given(task: Task, **changes: object) -> Task:
    return Task(**{**vars(task), **changes})


def read(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["rows"]


def cells(path: Path) -> list[list[str]]:
    """The lines of a Markdown table, its rule left out."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figures, which take as long as the rest."""
    monkeypatch.setattr(train_module, "ValidationCallback", unwatched)
    monkeypatch.setattr(ablate_module, "draw_table", lambda *_: None)


def no_more(*_: object, **__: object) -> None:
    raise AssertionError("this was done before")


# ------------------------------------------------------------------------------- inference


def test_steps_are_compared_with_leading_and_trailing_timesteps(
    task: Task, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = given(task, out=out, data=())
    ablate("steps", asked, SMOKE, seeds=2, num_inference_steps=(2, 1))
    rows = read(out / "steps.json")
    assert [(row["label"], row["steps"]) for row in rows] == [*product(("trailing", "leading"), (1, 2))]
    assert [row["published"] for row in rows] == [
        ["5.7 / 96.2", "10.8 / 89.6"],
        ["-", "-"],
        ["about 35 / 46", "about 62"],
        ["-", "-"],
    ]
    head, *lines = cells(out / "steps.md")
    assert {len(line) for line in lines} == {len(head)}
    assert "spread" not in head
    values = [row["scores"]["measured val"]["means"]["abs_rel"] for row in rows]
    assert len(set(values)) == 4  # where timesteps lie matters
    monkeypatch.setattr(MarigoldPipeline, "grid", no_more)
    ablate("steps", asked, SMOKE, seeds=2, num_inference_steps=(1, 2))
    assert read(out / "steps.json") == rows
    with pytest.raises(AssertionError):
        ablate("steps", asked, SMOKE, seeds=3, num_inference_steps=(1, 2))  # other ways: scored anew


def test_scoring_goes_on_after_the_last_picture(task: Task, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, calls, grid = given(task, out=out), [], MarigoldPipeline.grid

    def breaks_down(self: MarigoldPipeline, *words, **options):
        calls.append(options["seeds"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return grid(self, *words, **options)

    monkeypatch.setattr(MarigoldPipeline, "grid", breaks_down)
    with pytest.raises(KeyboardInterrupt):
        ablate("ensemble", asked, SMOKE, seeds=1, ensemble_sizes=(1, 2))
    ablate("ensemble", asked, SMOKE, seeds=1, ensemble_sizes=(1, 2))
    assert len(calls) == 3  # one, then the one that broke down, then that one alone


def test_scores_are_not_written_over_a_file_of_the_users(task: Task, out: Path) -> None:
    mine = out / "checkpoint" / "scores_measured_val.json"
    mine.parent.mkdir(parents=True)
    mine.write_text('{"mine": 1}')
    ablate("ensemble", given(task, out=out, data=()), SMOKE, num_inference_steps=(1,), ensemble_sizes=(1,))
    assert mine.read_text() == '{"mine": 1}'


def test_seeds_give_mean_deviation_and_range(task: Task, out: Path) -> None:
    ablate("ensemble", given(task, out=out), SMOKE, seeds=3, ensemble_sizes=(1, 3), num_inference_steps=(1,))
    one, three = (row["scores"]["measured val"] for row in read(out / "ensemble.json"))
    kept = json.loads((out / "checkpoint" / "scores_measured_val.json").read_text())["rows"]
    by_seed = [
        np.mean([rows[f"1 steps, 1 members, seed {seed}"]["abs_rel"] for rows in kept.values()]) for seed in range(3)
    ]
    assert one["means"]["abs_rel"] == pytest.approx(np.mean(by_seed))
    assert one["std"] == pytest.approx(np.std(by_seed))
    assert one["range"] == pytest.approx(max(by_seed) - min(by_seed))
    assert one["range"] > 0
    assert one["spread"] is None
    assert three["spread"] > 0
    head, *lines = cells(out / "ensemble.md")
    assert head[3:7] == ["measured val: AbsRel / delta1", "std / max-min of 3 seeds", "beside the first", "spread"]
    assert {len(line) for line in lines} == {len(head)}
    assert [line[:3] for line in lines] == [["checkpoint", "1", "1"], ["checkpoint", "1", "3"]]
    assert [line[6] for line in lines] == ["-", f"{100 * three['spread']:.2f}"]
    assert one["inference_range"] is None and lines[0][5] == "-"
    assert lines[0][3] == f"{100 * one['means']['abs_rel']:.2f} / {100 * one['means']['delta1']:.1f}"


def test_one_leading_step_lies_where_there_is_hardly_any_noise(tiny_depth: Path, tiny_depth_leading: Path) -> None:
    for folder in (tiny_depth, tiny_depth_leading):
        pipeline = load(folder, device="cpu")
        assert place_timesteps(pipeline, "trailing")._scheduler(1).timesteps.tolist() == [999]
        assert place_timesteps(pipeline, "leading")._scheduler(1).timesteps.tolist() == [1]
        assert pipeline._scheduler(1).timesteps.tolist() == [999]  # itself as before


def test_timesteps_of_a_scheduler_without_spacing_are_refused(tiny_depth_lcm: Path) -> None:
    with pytest.raises(MarigoldError, match="no DDIM scheduler"):
        place_timesteps(load(tiny_depth_lcm, device="cpu"), "leading")


# ------------------------------------------------------------------------------- training


def test_every_noise_is_a_run_of_its_own_and_none_is_made_twice(
    task: Task, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = given(task, out=out)
    ablate("noise", asked, SMOKE, train_seeds=2, num_inference_steps=(1,))
    rows = read(out / "noise.json")
    assert [row["label"] for row in rows] == ["Gaussian", "multi-resolution", "annealed multi-resolution"]
    assert rows[2]["published"][0] == "5.6 / 96.5"
    cells_of = [out / name / "seed_1" for name in ("Gaussian", "multi_resolution", "annealed_multi_resolution")]
    begun = [json.loads((folder / "run.json").read_text())["recipe"] for folder in cells_of]
    chosen = [(one["noise_strength"], one["noise_annealed"], one["seed"]) for one in begun]
    assert chosen == [(0, False, 1), (0.9, False, 1), (0.9, True, 1)]
    assert all((folder / "step_00000002").is_dir() for folder in cells_of)
    assert len({row["scores"]["measured val"]["means"]["abs_rel"] for row in rows}) == 3
    monkeypatch.setattr(loop, "_step", no_more)
    monkeypatch.setattr(MarigoldPipeline, "grid", no_more)
    ablate("noise", asked, SMOKE, train_seeds=2, num_inference_steps=(1,))
    assert read(out / "noise.json") == rows
    assert all(len(row["scores"]["measured val"]["seeds"]) == 2 and row["seconds"] > 0 for row in rows)


def test_what_is_trained_is_scored_without_a_draft(task: Task, out: Path, tiny_guided: Path, tmp_path: Path) -> None:
    starts = {"plain": tiny_guided, "drafted": with_draft(tiny_guided, tmp_path / "drafted", grey=0.5)}
    found: dict[tuple[Name, str], float] = {}
    for label, start in starts.items():
        asked = given(task, out=out / label, start_from=str(start))
        for name in ("noise", "ensemble"):
            ablate(name, asked, SMOKE, train_seeds=1, num_inference_steps=(1,), ensemble_sizes=(1,))
            found[name, label] = read(out / label / f"{name}.json")[0]["scores"]["measured val"]["means"]["abs_rel"]
    assert found["noise", "plain"] == found["noise", "drafted"]
    assert found["ensemble", "plain"] != found["ensemble", "drafted"]  # nothing is trained there


def test_a_run_that_was_stopped_is_not_scored_but_goes_on(task: Task, out: Path) -> None:
    with pytest.raises(MarigoldError, match="v1_0, seed_0 was stopped at step 1 of 2"):
        ablate("schedule", given(task, out=out, minutes=0), SMOKE, train_seeds=1)
    assert not (out / "schedule.json").exists()
    ablate("schedule", given(task, out=out), SMOKE, train_seeds=1)
    rows = [(row["label"], row["steps"]) for row in read(out / "schedule.json")]
    assert rows == [*product(("v1-0", "v1-1"), (1, 4))]
    spacings = [
        json.loads((out / name / "seed_0" / "step_00000002" / "scheduler" / "scheduler_config.json").read_text())
        for name in ("v1_0", "v1_1")
    ]
    assert [one["timestep_spacing"] for one in spacings] == ["leading", "trailing"]


def test_what_another_domain_adds_is_compared_at_equal_compute(task: Task, out: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "real", {f"{seed}": picture((48, 64), seed) for seed in range(20, 22)})
    asked = given(task, out=out, data=(*task.data, f"pairs:{tmp_path / 'real'}"), start_from=str(task.start_from))
    ablate("real", asked, SMOKE.changed(batch_size=2), train_seeds=1, num_inference_steps=(1,))
    rows = read(out / "real.json")
    records = {path.parts[-3]: json.loads(path.read_text()) for path in out.glob("*/seed_0/run.json")}
    steps = {name: record["recipe"]["steps"] for name, record in records.items()}
    whole = ("synthetic_only", "augmented", "hybrid_9_1")
    assert steps == {name: 2 if name in whole else 1 for name in records} and len(records) == 7 and len(rows) == 6
    told = {name: record["task"] for name, record in records.items()}
    synthetic, real = ([spec] for spec in asked.data)
    assert (told["transfer"]["data"], told["feature_aligned"]["data"]) == (real, synthetic)
    assert told["feature_aligned"]["unlabelled"] == asked.data[1]
    assert told["transfer"]["start_from"].endswith("synthetic_first_half/seed_0/step_00000001")
    labels = open_set(f"pairs:{out / 'pseudo_labelled' / 'seed_0' / 'labels'}")
    truth = open_set(asked.data[1])
    assert len(labels) == 2 and not np.allclose(labels[0].depth_m, truth[0].depth_m)
    assert told["pseudo_labelled"]["data"] == [asked.data[0], f"pairs:{labels.folder}"]


# ------------------------------------------------------------------------------- the table and its figure


def score(*abs_rel: float) -> Score:
    return Score({}, 0, 0, tuple((value, 0.5) for value in abs_rel), None, None)


@pytest.mark.parametrize(
    ("own", "word"),
    [((0.1, 0.2), "better"), ((0.3, 0.5), "undecided"), ((0.6, 0.7), "worse"), ((0.4, 0.4), "undecided"), ((1,), "-")],
)
def test_a_row_whose_seeds_overlap_with_those_of_the_first_is_undecided(own: tuple[float, ...], word: str) -> None:
    first = score(0.4, 0.5)
    assert score(*own).beside(first) == word and first.beside(first) == "-"
    turned = {"better": "worse", "worse": "better"}.get(word, word)  # where more is better, as of mIoU
    assert score(*own).beside(first, higher_is_better=True) == turned


def test_seeds_of_training_and_of_inference_are_kept_apart() -> None:
    runs = [[{"abs_rel": 0.1, "delta1": 0.8}, {"abs_rel": 0.3, "delta1": 0.6}], [{"abs_rel": 0.4, "delta1": 0.5}] * 2]
    found = ablate_module._sum_up(DEPTH, runs, trained=True)
    assert np.allclose(found.seeds, [(0.2, 0.7), (0.4, 0.5)]) and found.inference_range == pytest.approx(0.1)
    assert found.means == pytest.approx({"abs_rel": 0.3, "delta1": 0.6})
    assert (found.std, found.range) == pytest.approx((0.1, 0.2))
    alone = ablate_module._sum_up(DEPTH, runs[:1], trained=False)
    assert alone.seeds == ((0.1, 0.8), (0.3, 0.6)) and alone.inference_range is None


def test_the_figure_has_ours_and_the_published_curve_and_leaves_what_is_unpublished_empty(
    task: Task, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple] = []
    monkeypatch.setattr(ablate_module, "draw_table", lambda *words: (drawn.append(words), draw_table(*words)))
    ablate("steps", given(task, out=out, data=()), SMOKE, seeds=2, num_inference_steps=(1, 2))
    ((_, start, _, panels, _),) = drawn
    ours, published, _ = panels.values()
    assert [*panels] == ["measured val", "published: NYUv2", "published: KITTI"]
    assert [(curve.label, curve.varied, list(curve.places)) for curve in published] == [
        ("trailing", "steps", [1, 2]),
        ("leading", "steps", [1, 2]),
    ]
    assert published[1].seeds[0] == [(35, 46)] and np.isnan(published[1].seeds[1]).all()
    assert [len(seeds) for seeds in ours[0].seeds] == [2, 2]
    with Image.open(out / "steps.png") as figure:
        assert figure.width > 300 and (out / "steps.pdf").read_bytes().startswith(b"%PDF")
    assert start == f"tiny-depth, sha256 {find(task.start_from).sha256[:8]}"  # whose figures these are
    assert f"\nOf {start}. AbsRel in %" in (out / "steps.md").read_text()
    assert json.loads((out / "steps.json").read_text())["start"] == start


# ------------------------------------------------------------------------------- what is known, what is refused


@pytest.mark.parametrize("name", ABLATIONS)
def test_published_figures_belong_to_rows(name: Name) -> None:
    ablation = ABLATIONS[name]
    labels = [variant.label for variant in ablation.variants]
    assert len(set(labels)) == len(labels)
    for row in ablation.published:
        assert row.label in labels
        assert len(row.figures) == len(ablation.columns)
    for variant in ablation.variants:
        Recipe().changed(**variant.changes)
    assert ablation.figures("no such row", 1, 1) == ("-",) * len(ablation.columns)


def test_shares_are_those_of_the_paper() -> None:
    shares = [variant.changes["shares"] for variant in ABLATIONS["mix"].variants]
    assert shares == [(100, 0), (95, 5), (90, 10), (50, 50), (0, 100)]


@pytest.mark.parametrize(
    ("name", "changes", "seeds", "sentence"),
    [
        ("steps", {"validation": ()}, 1, "give --validation"),
        ("steps", {}, 0, "seeds must be at least 1"),
        ("mix", {}, 1, "mix compares shares of two data sets"),
        ("real", {}, 1, "give two, rendered and real"),
        ("noise", {"data": ()}, 1, "nothing to train on"),
        ("steps", {"validation": ("measured:nowhere",)}, 1, "no folder"),
    ],
)
def test_bad_input_is_refused(
    task: Task, out: Path, name: Name, changes: dict[str, Any], seeds: int, sentence: str
) -> None:
    with pytest.raises(MarigoldError, match=sentence):
        ablate(name, given(task, out=out, **changes), SMOKE, seeds=seeds)


@pytest.mark.parametrize(
    ("file", "text"), [("steps.json", '{"rows": "mine"}'), ("steps.md", "# My steps\n"), ("steps.pdf", "mine")]
)
def test_a_file_of_the_users_is_not_replaced(task: Task, out: Path, file: str, text: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / file).write_text(text)
    with pytest.raises(MarigoldError, match=f"{file} is there already and is no"):
        ablate("steps", given(task, out=out, data=()), SMOKE)
    assert (out / file).read_text() == text


def test_a_launcher_is_refused(task: Task, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MarigoldError, match="without a launcher"):
        ablate("steps", given(task, out=out), SMOKE)

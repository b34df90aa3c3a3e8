"""The recipe as one command: from nothing to a checkpoint that predicts, on with what a stopped run left."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from marigold_core import Settings, load
from marigold_core.errors import CheckpointError, MarigoldError
from tests.helpers.tiny_prior import tiny_prior
from tests.helpers.training_runs import newest
from training import draft, nano, prior, render
from training.data.sets import open_set
from training.nano import Inputs, Sizes, make, stages

SMALL = Sizes(
    scenes=32,
    streets=32,
    width_px=128,
    autoencoder_steps=2,
    draft_steps=2,
    displacement_steps=2,
    error_steps=2,
    coarse_steps=2,
    fine_steps=2,
    labelled=32,
    photo_steps=2,
    coarse_px=64,
    fine_px=64,
    shape="tiny",
)
CPU = Inputs(device="cpu")


@pytest.fixture(autouse=True)
def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small trunk in the place of the published classifier, which is not among the tests' packages."""
    monkeypatch.setattr(prior, "classifier_weights", lambda path: {})
    monkeypatch.setattr(prior, "new_prior", lambda weights: tiny_prior())


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(MarigoldError) as caught:
        act()
    return str(caught.value)


def test_a_stopped_run_goes_on_to_a_checkpoint_that_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, rendered, before = tmp_path / "nano", [], render.render

    def counted(*words, **named) -> int:
        rendered.append(words)
        return before(*words, **named)

    def killed(*words) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(render, "render", counted)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(draft, "train_draft", killed)
        make(out, SMALL, CPU)
    begun = json.loads((out / nano.RECORD).read_text())["stages"]
    assert [name for name, row in begun.items() if not row["finished"]] == ["draft"]
    assert refusal(lambda: make(out, SMALL.changed(fine_steps=3, seed=2), CPU)) == (
        f"{out} was begun with fine_steps 2, now 3; seed 1, now 2: give the same settings, or another --out."
    )
    published = make(out, SMALL, CPU)
    assert len(rendered) == 2  # scenes and streets, once each
    record = json.loads((out / nano.RECORD).read_text())
    assert list(record["stages"]) == [stage.name for stage in stages(out, SMALL, CPU)]
    assert all(row["finished"] and row["seconds"] >= 0 for row in record["stages"].values())
    assert record["settings"]["seed"] == 1
    log = (out / nano.LOG).read_text()
    assert "training.train --recipe nano" in log and all(name in log for name in record["stages"])
    pipe = load(published)
    assert pipe.draft is not None
    assert (pipe.checkpoint.depth_transfer, pipe.checkpoint.default_resolution) == ("root", 64)
    values = pipe(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8), Settings(ensemble_size=2)).values
    assert values.shape == (48, 64) and np.isfinite(values).all()


def test_with_photographs_they_are_labelled_and_learned_from(tmp_path: Path) -> None:
    photos, rng = tmp_path / "photos", np.random.default_rng(0)
    photos.mkdir()
    for number in range(26):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(photos / f"{number}.png")
    inputs = Inputs(photos=photos, device="cpu")
    out = tmp_path / "nano"
    published = make(out, SMALL, inputs)
    names = [stage.name for stage in stages(out, SMALL, inputs)]
    last = [
        "fine",
        "draft",
        "labels",
        "fine_labels",
        "photographs",
        "mean",
        "displacement",
        "expected_error",
        "publish",
    ]
    assert names[names.index("fine") :] == last
    assert len(open_set(f"pairs:{out / 'labels'}")) == 18  # two thirds
    fine, photographs, mean = (
        load(out / name, dtype="float32") if name == "mean" else load(newest(out / name), dtype="float32")
        for name in ("fine", "photographs", "mean")
    )
    for name, weight in mean.unet.state_dict().items():
        before, after = fine.unet.state_dict()[name], photographs.unet.state_dict()[name]
        torch.testing.assert_close(weight, 0.25 * before + 0.75 * after, msg=name)
    assert load(published).checkpoint.default_resolution == 64


def test_what_is_read_is_checked_before_the_first_hours_and_a_refusal_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, broken = tmp_path / "nano", tmp_path / "broken"
    broken.mkdir()
    (broken / "index.json").write_text('{"a": 1}')

    def missing(path: Path | None) -> None:
        raise CheckpointError("The weights of the image prior are not installed")

    for sizes, inputs, said in (
        (SMALL, Inputs(assets=tmp_path), "has no index.json"),
        (SMALL, Inputs(assets=broken), "is no list of assets"),
        (SMALL, Inputs(photos=tmp_path), "holds no photograph"),
        (SMALL, Inputs(validation=tmp_path), "has neither shards"),
        (SMALL.changed(shape="huge"), CPU, "There is no shape 'huge'"),
    ):
        assert said in refusal(lambda sizes=sizes, inputs=inputs: make(out, sizes, inputs))
    with monkeypatch.context() as patch:
        patch.setattr(prior, "classifier_weights", missing)
        assert "are not installed" in refusal(lambda: make(out, SMALL, CPU))
    assert not out.exists()


def test_settings_may_change_while_no_stage_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MarigoldError("The disk is full.")

    first = nano.Stage("scenes", full, ())
    monkeypatch.setattr(nano, "call", lambda main, *_: main())
    monkeypatch.setattr(nano, "stages", lambda *_: [first])
    for sizes in (SMALL, SMALL.changed(scenes=64)):
        assert refusal(lambda sizes=sizes: make(tmp_path, sizes, CPU)) == "The disk is full."
    assert json.loads((tmp_path / nano.RECORD).read_text())["settings"]["scenes"] == 64


def test_a_training_run_that_ends_early_ends_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [stage for stage in stages(tmp_path, SMALL, CPU) if stage.name in ("scenes", "autoencoder")]
    short = [*kept[1].words, "--minutes", 1e-9]
    early = nano.Stage(kept[1].name, kept[1].main, tuple(short), steps=kept[1].steps)
    monkeypatch.setattr(nano, "stages", lambda *_: [kept[0], early])
    assert refusal(lambda: make(tmp_path, SMALL, CPU)) == (
        "Stopped in stage autoencoder. The same command goes on where this one ended."
    )


def test_hours_scale_pictures_and_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(nano, "make", lambda out, sizes, inputs: made.append(sizes))
    nano.main(tmp_path, Sizes(), CPU)
    nano.main(tmp_path, Sizes(), CPU, hours=1, minutes=60)
    nano.main(tmp_path, Sizes(), CPU, minutes=1e-3)
    full, half, least = made
    share = 2 / nano.FULL_HOURS
    assert full == Sizes()
    assert (half.scenes, half.fine_steps) == (round(full.scenes * share), round(full.fine_steps * share))
    assert (half.fine_px, half.seed) == (full.fine_px, full.seed)
    assert (least.streets, least.draft_steps) == (32, 2)
    assert "must be more than 0" in refusal(lambda: nano.main(tmp_path, Sizes(), CPU, hours=0))

"""Labels of photographs: means of members and drafts, kept where these agree, gone on with after a stop."""

import json
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from marigold_core import load
from marigold_core.errors import MarigoldError
from marigold_core.images.photo import Photo, load_photo
from marigold_core.pipeline.views import View
from tests.helpers.command_line import fingerprints
from tests.helpers.draft import with_draft
from tests.helpers.kills import killed_at
from tests.helpers.set_writers import picture, write_pairs
from training import label as label_module
from training.data.sets import open_set
from training.label import RECORD, Labelling, draft_map, guess, label
from training.prepare import Preparation, split_own

pytestmark = pytest.mark.numeric
ALL = Labelling(kept=1, members=1, steps=1)


@pytest.fixture(scope="module")
def drafted(tiny_guided: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_draft(tiny_guided, tmp_path_factory.mktemp("drafted") / "drafted")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for name, size in {"a": (48, 64), "b": (64, 48), "wide": (20, 90)}.items():
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


def test_the_labels_are_a_data_set_and_another_seed_gives_others(drafted: Path, photos: Path, tmp_path: Path) -> None:
    assert label([str(drafted)], photos, tmp_path / "out", ALL) == 2  # the third is too wide
    a_set = open_set(f"pairs:{tmp_path / 'out'}")
    assert [a_set.name(item) for item in range(len(a_set))] == ["a.png", "b.png"]
    depth_m = a_set[0].depth_m
    assert a_set[0].rgb.shape == (48, 64, 3) and depth_m.min() >= 1 and depth_m.max() <= 10
    label([str(drafted)], photos, tmp_path / "other", ALL.changed(seed=1))
    assert not np.array_equal(open_set(f"pairs:{tmp_path / 'other'}")[0].depth_m, depth_m)


def test_a_guess_is_the_mean_of_members_and_drafts_in_one_frame(drafted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = load_photo(np.zeros((48, 64, 3), np.uint8))
    ramp = torch.linspace(-1, 1, 64).expand(1, 1, 48, 64)
    steps = torch.where(ramp > 0, 1.0, -1.0)
    monkeypatch.setattr(label_module, "draft_map", lambda *_: 5 + 3 * steps)

    class Said(SimpleNamespace):
        draft = "there is one"

        def __call__(self, photo: object, settings: object) -> SimpleNamespace:
            return SimpleNamespace(members=(0.5 + ramp[0] / 4).repeat(2, 1, 1).numpy())

    values, agreement = guess([Said()], photo, Labelling(), 0)  # type: ignore (stands in for a checkpoint)
    wanted = (ramp / ramp.std(correction=0) + steps)[0, 0].numpy()
    np.testing.assert_allclose(values, (wanted - wanted.min()) / np.ptp(wanted), atol=1e-3)
    assert agreement == pytest.approx(float(np.corrcoef(ramp.flatten(), steps.flatten())[0, 1]), abs=1e-3)


def test_photographs_that_the_guesses_agree_on_least_are_left_out(
    drafted: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter([(np.eye(48, 64, dtype=np.float32), -0.5), (np.eye(64, 48, dtype=np.float32), 0.5)])
    monkeypatch.setattr(label_module, "guess", lambda *_: next(said))
    out = tmp_path / "out"
    for _ in range(2):  # the second time nothing is left to do
        assert label([str(drafted)], photos, out, Labelling(kept=0.5)) == 1
        assert json.loads((out / RECORD).read_text())["agreement"] == {"a.png": -0.5, "b.png": 0.5}
        assert sorted(path.name for path in out.iterdir()) == ["b.png.depth.npy", "b.png.jpg", RECORD]


def test_a_limit_spreads_over_the_folder(drafted: Path, photos: Path, tmp_path: Path) -> None:
    assert label([str(drafted)], photos, tmp_path / "out", ALL.changed(limit=1)) == 1
    assert [path.name for path in sorted((tmp_path / "out").glob("*.jpg"))] == ["a.png.jpg"]


def test_the_same_command_goes_on_and_another_is_refused(
    drafted: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    label([str(drafted)], photos, whole, ALL)
    before = label_module.guess

    def stopped(pipelines, photo, how, seed):  # type: ignore
        if photo.pixels.shape[0] == 64:
            raise KeyboardInterrupt
        return before(pipelines, photo, how, seed)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(label_module, "guess", stopped)
        label([str(drafted)], photos, parts, ALL)
    label([str(drafted)], photos, parts, ALL)
    files = {path.name: path.read_bytes() for path in whole.iterdir()}
    assert {path.name: path.read_bytes() for path in parts.iterdir()} == files
    with pytest.raises(MarigoldError, match="holds labels of other checkpoints or settings"):
        label([str(drafted)], photos, parts, ALL.changed(seed=1))


def test_killed_at_any_change_of_the_disk_the_same_command_ends_as_if_it_had_not_been(
    drafted: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "sub").mkdir()
    (photos / "b.png").rename(photos / "sub" / "b.png")
    pipeline = load(drafted)

    def ramp(pipelines: object, photo: Photo, how: object, seed: int) -> tuple[np.ndarray, float]:
        height, width = photo.pixels.shape[:2]
        return np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width), float(height > width)

    monkeypatch.setattr(label_module, "guess", ramp)
    monkeypatch.setattr(label_module, "load", lambda *_: pipeline)

    def files(out: Path) -> dict[str, bytes]:
        return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def work(out: Path) -> None:
        label([str(drafted)], photos, out, Labelling(kept=0.5))

    work(tmp_path / "whole")
    assert [*files(tmp_path / "whole")] and "sub/b.png.jpg" in files(tmp_path / "whole")
    for number in count():
        out = tmp_path / str(number)
        killed = killed_at(number, partial(work, out))
        assert not killed_at(1000, partial(work, out))
        assert files(out) == files(tmp_path / "whole")
        if not killed:
            break
    assert number > 20


def test_what_was_left_out_comes_back_when_worse_photographs_are_added(
    drafted: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agreements = {48: 0.5, 64: 0.9, 40: 0.1, 52: 0.2}

    def by_height(pipelines: object, photo: Photo, how: object, seed: int) -> tuple[np.ndarray, float]:
        height, width = photo.pixels.shape[:2]
        return np.eye(height, width, dtype=np.float32), agreements[height]

    def depths() -> list[str]:
        return sorted(path.name for path in (tmp_path / "out").glob("*.npy"))

    monkeypatch.setattr(label_module, "guess", by_height)
    assert label([str(drafted)], photos, tmp_path / "out", Labelling(kept=0.5)) == 1
    assert depths() == ["b.png.depth.npy"]
    for name, height in {"c": 40, "d": 52}.items():
        Image.new("RGB", (50, height)).save(photos / f"{name}.png")
    assert label([str(drafted)], photos, tmp_path / "out", Labelling(kept=0.5)) == 2
    assert depths() == ["a.png.depth.npy", "b.png.depth.npy"]


def test_a_draft_of_a_mirrored_view_comes_back_on_the_grid_of_the_photo(drafted: Path, tiny_guided: Path) -> None:
    rng = np.random.default_rng(1)
    photo = load_photo(rng.integers(0, 255, (40, 64, 3), np.uint8))
    turned = load_photo(np.ascontiguousarray(photo.pixels[:, ::-1]))
    pipe = load(drafted)
    found, mirrored = draft_map(pipe, photo, View()), draft_map(pipe, turned, View(mirrored=True))
    assert found.shape == (1, 1, 40, 64)
    torch.testing.assert_close(mirrored, found.flip(-1))
    assert draft_map(pipe, photo, View(scale=1.25)).shape == found.shape
    with pytest.raises(MarigoldError, match="makes no draft: run training.draft first"):
        draft_map(load(tiny_guided), photo, View())


@pytest.mark.parametrize("kind", ["pairs:", ""])
def test_measured_pictures_and_photographs_are_never_replaced_by_labels(
    kind: str, drafted: Path, tmp_path: Path
) -> None:
    write_pairs(tmp_path / "set", {"a": picture((48, 64), 0), "b": picture((48, 64), 1)})
    before = fingerprints(tmp_path)
    with pytest.raises(MarigoldError, match="set holds something else already, which labels could replace"):
        label([str(drafted)], f"{kind}{tmp_path / 'set'}", tmp_path / "set", ALL)
    assert fingerprints(tmp_path) == before


def test_without_a_draft_two_halves_of_the_members_have_to_agree(tiny_guided: Path, tmp_path: Path) -> None:
    write_pairs(tmp_path / "set", {"a b": picture((48, 64), 0), "c": picture((48, 64), 1)})
    split_own(tmp_path / "set", tmp_path / "set", Preparation(shares=(1, 0, 0)))
    spec, how = f"pairs/train:{tmp_path / 'set'}", Labelling(kept=1, members=2, steps=1)
    assert label([str(tiny_guided)], spec, tmp_path / "out", how) == 2
    agreement = json.loads((tmp_path / "out" / RECORD).read_text())["agreement"]
    assert [*agreement] == ["a b", "c"] and all(-1 <= value < 1 for value in agreement.values())
    with pytest.raises(MarigoldError, match="nothing to agree with: give --members 2 or more"):
        guess([load(tiny_guided)], load_photo(np.zeros((48, 64, 3), np.uint8)), how.changed(members=1), 0)

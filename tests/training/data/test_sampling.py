"""Micro-batches as a function of their number."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from marigold_core import load
from marigold_core.errors import MarigoldError
from marigold_core.pipeline.modalities import Depth
from tests.helpers.damage import edit
from tests.helpers.drawn_sets import DrawnSet
from tests.helpers.training_runs import write_latents
from training.data.latent_cache import INDEX, autoencoder_sha256, prior_sha256
from training.data.sampling import Latents, Pictures, Plan
from training.recipe import Framing

pytestmark = pytest.mark.numeric

FRAMING = Framing(flip=0.0)


def pictures(count: int, portrait: int = 0, kind: str = "drawn", **framing: object) -> Pictures:
    a_set = DrawnSet(count, portrait, kind)
    return Pictures(a_set, Framing(**{"flip": 0.0, "long_edge_px": 32, **framing}), factor=8)  # type: ignore


def test_shares_are_those_of_micro_batches() -> None:
    plan = Plan([pictures(50, kind="many"), pictures(400, kind="few")], 2, (0.9, 0.1), seed=2024)
    drawn = Counter(plan(number)[0].label for number in range(10_000))
    assert drawn["many"] / 10_000 == pytest.approx(0.9, abs=0.01)  # 3.3 standard deviations
    assert drawn["few"] / 10_000 == pytest.approx(0.1, abs=0.01)


def test_without_shares_every_picture_is_as_likely() -> None:
    plan = Plan([pictures(300, kind="many"), pictures(100, kind="few")], 2, None, seed=0)
    assert plan.shares.tolist() == [0.75, 0.25]


def test_an_epoch_shows_every_picture_once_in_another_order_each_time() -> None:
    plan = Plan([pictures(24)], 4, None, seed=1)
    epochs = [[item for number in range(first, first + 6) for item in plan(number)[1]] for first in (0, 6, 12)]
    for items in epochs:
        assert sorted(items) == list(range(24))
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != [item for number in range(6) for item in Plan([pictures(24)], 4, None, seed=2)(number)[1]]


def test_epochs_are_kept_in_a_mix() -> None:
    """Each source is seen through before any of its pictures comes again, whatever is drawn between."""
    plan = Plan([pictures(24, kind="a"), pictures(8, kind="b")], 4, (0.5, 0.5), seed=3)
    seen = {"a": [], "b": []}
    for number in range(2000):
        source, items = plan(number)
        seen[source.label] += items
    for label, count in (("a", 24), ("b", 8)):
        for first in range(0, len(seen[label]) - count, count):
            assert sorted(seen[label][first : first + count]) == list(range(count))


def test_what_does_not_fill_a_micro_batch_waits_for_another_epoch() -> None:
    plan = Plan([pictures(10)], 4, None, seed=0)
    epochs = [{item for number in (first, first + 1) for item in plan(number)[1]} for first in range(0, 40, 2)]
    assert {len(items) for items in epochs} == {8}
    assert set.union(*epochs) == set(range(10))


def test_pictures_that_are_framed_as_they_are_seen_have_their_depth_on_the_curve() -> None:
    linear = pictures(4)
    root = Pictures(linear.a_set, linear.framing, linear.factor, modality=Depth(transfer="root"))
    one, other = (source.read([0, 1], (0, 7)) for source in (linear, root))
    assert torch.equal(one.image, other.image)
    # squared rather than rooted: near 0 a root magnifies rounding
    torch.testing.assert_close(((other.target + 1) / 2).square(), (one.target + 1) / 2, atol=1e-5, rtol=0)
    assert not torch.equal(one.target, other.target)


def test_any_order_of_looking_gives_the_same() -> None:
    def plan() -> Plan:
        return Plan([pictures(24, portrait=7, kind="a"), pictures(9, kind="b")], 3, (0.7, 0.3), seed=4)

    in_order = plan()
    expected = [(source.label, items) for source, items in map(in_order, range(3000))]
    at_random = plan()
    for number in np.random.default_rng(0).permutation(3000)[:400].tolist():
        source, items = at_random(number)
        assert (source.label, items) == expected[number]


def test_kinds_do_not_mix_in_a_micro_batch() -> None:
    source = pictures(20, portrait=8)
    plan = Plan([source], 4, None, seed=0)
    for number in range(50):
        items = plan(number)[1]
        assert len({item < 8 for item in items}) == 1  # the first eight are portraits
        after = list(plan.others(number))
        assert {item < 8 for item in after} == {items[0] < 8}
        assert set(after).isdisjoint(items)
        height, width = source.read(items, (0, number)).image.shape[2:]
        assert (height > width) == (items[0] < 8) or height == width


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.4, 0.1), (-0.1, 1.1), (0.0, 0.0)])
def test_shares_that_do_not_fit_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(MarigoldError, match="2 data sets need as many shares"):
        Plan([pictures(8), pictures(8)], 2, shares, seed=0)


def test_a_source_without_a_micro_batch_is_refused() -> None:
    with pytest.raises(MarigoldError, match="drawn has less than a micro-batch of 4"):
        Plan([pictures(6, portrait=3)], 4, None, seed=0)


# ------------------------------------------------------------------------------------------- sources


def test_a_picture_is_framed_by_its_place_in_the_run() -> None:
    source = pictures(8, flip=0.5)
    once, again, later = (source.read([0, 1, 2, 3], place) for place in ((1, 5), (1, 5), (1, 6)))
    assert torch.equal(once.image, again.image)
    assert not torch.equal(once.image[:, :, :16, :16], later.image[:, :, :16, :16])
    assert once.names == tuple(name.split(": ")[1] for name in source.names([0, 1, 2, 3]))


def test_sources_are_told_apart() -> None:
    prints = {pictures(8).fingerprint(), pictures(9).fingerprint(), pictures(8, portrait=1).fingerprint()}
    assert len({*prints, pictures(8, kind="other").fingerprint()}) == 4
    assert pictures(8).fingerprint() in prints


def test_latents_are_grouped_by_size_and_named(tiny_depth: Path, tmp_path: Path) -> None:
    folder = write_latents(tmp_path / "latents", tiny_depth, count=6)
    turned = write_latents(tmp_path / "turned", tiny_depth, count=4, size=(6, 4))
    (turned / "shard_00000000_v0").rename(folder / "shard_00000006_v0")
    source = Latents(folder)
    assert [group.tolist() for group in source.groups()] == [list(range(6)), list(range(6, 10))]
    assert source.names([5, 6]) == ("latents: picture5", "latents: picture0")
    batch = source.read([6, 9], (0,))
    stored = np.load(folder / "shard_00000006_v0" / "image.npy")
    assert torch.equal(batch.image, torch.from_numpy(stored[[0, 3]]).float())
    assert batch.encoded
    assert batch.valid.dtype == torch.bool


def test_latents_of_another_autoencoder_are_refused(tiny_depth: Path, tmp_path: Path) -> None:
    source = Latents(write_latents(tmp_path / "latents", tiny_depth))
    source.check(autoencoder_sha256(load(tiny_depth, dtype="float32")))
    with pytest.raises(MarigoldError, match="another autoencoder"):
        source.check("0" * 64)


def test_latents_of_another_depth_curve_are_refused(tiny_depth: Path, tmp_path: Path) -> None:
    folder = write_latents(tmp_path / "latents", tiny_depth)
    autoencoder = autoencoder_sha256(load(tiny_depth, dtype="float32"))
    with pytest.raises(MarigoldError, match="painted on a linear curve and the start's on a root one; encode"):
        Latents(folder).check(autoencoder, modality=Depth(transfer="root"))
    edit(folder / INDEX, depth_curve="root")
    Latents(folder).check(autoencoder, modality=Depth(transfer="root"))
    with pytest.raises(MarigoldError, match="painted on a root curve and the start's on a linear one; encode"):
        Latents(folder).check(autoencoder)


def test_features_are_read_where_the_starts_prior_made_them(tiny_guided: Path, tmp_path: Path) -> None:
    folder = write_latents(tmp_path / "latents", tiny_guided, count=6)
    start = load(tiny_guided, dtype="float32")
    autoencoder, prior = autoencoder_sha256(start), prior_sha256(start)
    Latents(folder).check(autoencoder, prior)  # made without one: the training computes them
    stored = np.random.default_rng(0).normal(size=(6, 8, 2, 3)).astype(np.float16)
    np.save(folder / "shard_00000000_v0" / "features_0.npy", stored)
    edit(folder / INDEX, prior_sha256=prior)
    source = Latents(folder)
    source.check(autoencoder)  # a start without a prior
    assert source.read([4, 1], (0,)).features == ()
    source.check(autoencoder, prior)
    (found,) = source.read([4, 1], (0,)).features
    assert torch.equal(found, torch.from_numpy(stored[[4, 1]]).float())
    with pytest.raises(MarigoldError, match="The features in latents were made by another image prior"):
        source.check(autoencoder, "0" * 64)


def test_a_folder_without_latents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MarigoldError, match=r"training\.latents"):
        Latents(tmp_path)

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from marigold_core.errors import MarigoldError
from marigold_core.pipeline.modalities import Depth
from training.data.framing import ASPECTS, WIDE_ASPECTS, choose_size, crop_size, fill_unknown, frame, which_count
from training.data.random_streams import stream
from training.data.sets.sample import Sample
from training.recipe import Framing

pytestmark = pytest.mark.numeric

PLAIN = Framing(flip=0.0)
CROPS = Framing(long_edge_px=64, photographic=0.5, upside_down=0.5)
FACTOR = 8


@dataclass
class SampleSet:
    """Samples as a data set."""

    samples: list[Sample]
    size: tuple[int, int] | None = None
    near_m: float = 0.5
    far_m: float = 50.0
    kind: str = "samples"
    folder: Path = field(default_factory=lambda: Path("samples"))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def name(self, index: int) -> str:
        return self.samples[index].name

    def files(self, index: int) -> list[Path]:
        return []

    def sizes(self) -> list[tuple[int, int]]:
        return [(sample.depth_m.shape[0], sample.depth_m.shape[1]) for sample in self.samples]


def sample(height: int = 32, width: int = 48, seed: int = 0) -> Sample:
    """Grain of colours, and depths between 1 and 40 m."""
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Sample(f"picture {seed}", rgb, rng.uniform(1, 40, (height, width)).astype(np.float32))


def framed(samples: list[Sample], framing: Framing = PLAIN, place: tuple[int, ...] = (0,), **fields):
    a_set = SampleSet(samples, **fields)
    size = choose_size(a_set, 0, framing, np.random.default_rng(place))
    return frame(samples, a_set, size, framing, FACTOR, place)


# ------------------------------------------------------------------------------------------- sizes


def test_all_crop_sizes_cost_the_same_and_fit_the_autoencoder() -> None:
    assert crop_size(192, 4 / 3) == (144, 192)
    for aspect in (0.4, 0.75, 1.0, 16 / 9, 2.5):
        height, width = crop_size(192, aspect)
        assert height % 16 == width % 16 == 0
        assert height * width == pytest.approx(192 * 144, rel=0.15)
    assert min(crop_size(32, 2.5)) > 0


@pytest.mark.parametrize(("width", "aspects"), [(48, ASPECTS), (80, WIDE_ASPECTS)], ids=["ordinary", "wide"])
def test_crops_keep_the_orientation_and_vary_in_aspect(width: int, aspects: tuple[float, ...]) -> None:
    a_set, rng = SampleSet([sample(32, width), sample(width, 32)]), np.random.default_rng(0)
    framing = Framing(long_edge_px=640)
    landscape, portrait = ({choose_size(a_set, number, framing, rng) for _ in range(200)} for number in (0, 1))
    assert landscape == {crop_size(640, aspect) for aspect in aspects}
    assert len(landscape) == len(aspects)
    assert all(width >= height for height, width in landscape)
    assert portrait == {crop_size(640, 1 / aspect) for aspect in aspects} == {(w, h) for h, w in landscape}


def test_without_crops_the_size_is_the_published_one_or_the_one_that_all_have() -> None:
    rng = np.random.default_rng(0)
    assert choose_size(SampleSet([sample()], size=(16, 24)), 0, PLAIN, rng) == (16, 24)
    assert choose_size(SampleSet([sample(), sample()]), 1, PLAIN, rng) == (32, 48)
    with pytest.raises(MarigoldError, match=r"2 sizes, from 48 x 32 to 32 x 48, .* --long-edge-px"):
        choose_size(SampleSet([sample(), sample(48, 32)]), 0, PLAIN, rng)


def test_a_size_that_does_not_fit_the_autoencoder_is_cut_in_the_middle() -> None:
    given = sample(37, 53)
    batch = framed([given])
    assert batch.image.shape == batch.target.shape == (1, 3, 32, 48)
    assert batch.valid.shape == (1, 1, 4, 6)
    pixels = torch.from_numpy(given.rgb[2:34, 2:50].copy()).permute(2, 0, 1)
    assert torch.equal(batch.image[0], pixels / 255 * 2 - 1)  # no pixel is resampled


def test_photos_shrink_as_the_authors_do_or_smoothly() -> None:
    given = sample(96, 128)
    batch = framed([given], Framing(flip=0.0, nearest_rgb=True), size=(80, 80))
    rgb = F.interpolate(torch.from_numpy(given.rgb).permute(2, 0, 1)[None].float(), (80, 80), mode="nearest-exact")
    assert torch.equal(batch.image, rgb / 255 * 2 - 1)
    smooth = framed([given], size=(80, 80)).image
    assert smooth.std() < 0.8 * batch.image.std()  # antialiasing averages grain
    assert framed([given], size=(60, 83)).image.shape[2:] == (56, 80)  # cut to what the autoencoder takes


@pytest.mark.parametrize("size", [(480, 640), (768, 1024), (352, 1216)])
def test_depth_is_resized_as_the_authors_do_at_the_published_sizes(size: tuple[int, int]) -> None:
    rows = np.arange(768 * 1024, dtype=np.float32).reshape(768, 1024) / 1e5 + 1
    given = Sample("numbered", np.zeros((768, 1024, 3), np.uint8), rows)
    batch = framed([given], size=size)
    depth = F.interpolate(torch.from_numpy(rows)[None, None], size, mode="nearest-exact")
    assert torch.equal(batch.target, Depth().to_vae(depth, depth > 0))


# ------------------------------------------------------------------------------------------- moving pixels


@pytest.mark.parametrize("long_edge_px", [None, 64])
def test_picture_depth_and_mask_move_together(long_edge_px: int | None) -> None:
    framing = Framing(flip=0.5, upside_down=0.5, long_edge_px=long_edge_px, nearest_rgb=True, min_known=0.3)
    samples = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        depth = rng.permutation(48 * 64).reshape(48, 64).astype(np.float32) / 100 + 1
        depth[:20, :30] = np.nan
        tone = np.where(np.isnan(depth), 255, depth * 5)
        samples.append(Sample(str(seed), np.repeat(tone[..., None], 3, axis=2).astype(np.uint8), depth))
    batch = framed(samples, framing)
    upright = framed(samples, framing.model_copy(update={"flip": 0.0, "upside_down": 0.0}))
    turned = 0
    for image, valid, before in zip(batch.image, batch.valid, upright.image, strict=True):
        hole = (image[0] == 1).float()
        share = F.avg_pool2d(hole[None], FACTOR)
        assert torch.equal(valid, share <= 0.7 + 1e-6)
        turned += not torch.equal(image, before)
    assert 12 < turned < 24  # three of four are turned one way or another
    for image, target in zip(batch.image, batch.target, strict=True):
        tone, plane = image[0].flatten(), target[0].flatten()
        seen = (tone < 1) & (plane.abs() < 1)
        line = torch.corrcoef(torch.stack([tone[seen], plane[seen]]))[0, 1]
        assert line > 0.999


def test_shares_of_flips_are_kept() -> None:
    samples = [sample(seed=seed) for seed in range(64)]
    mirrored = framed(samples, Framing(flip=1.0))
    turned = framed(samples, Framing(flip=0.0, upside_down=1.0))
    plain, some = framed(samples), framed(samples, Framing(flip=0.5))
    assert torch.equal(mirrored.image, plain.image.flip(3))
    assert torch.equal(turned.target, plain.target.flip(2))
    count = sum(not torch.equal(a, b) for a, b in zip(some.image, plain.image, strict=True))
    assert 16 < count < 48


@pytest.mark.parametrize("framing", [CROPS, Framing(flip=0.5), Framing(flip=0.0, photographic=1.0)])
def test_a_batch_is_a_function_of_its_place(framing: Framing) -> None:
    samples = [sample(seed=seed) for seed in range(6)]
    once, again, *others = (
        frame(samples, SampleSet(samples), (32, 48), framing, FACTOR, place)
        for place in [(0, 7), (0, 7), (0, 8), (1, 7)]
    )
    assert torch.equal(once.image, again.image)
    assert torch.equal(once.target, again.target)
    assert not any(torch.equal(once.image, other.image) for other in others)


def test_a_crop_does_not_depend_on_what_comes_behind() -> None:
    samples = [sample(seed=seed) for seed in range(3)]
    two, three = (frame(samples[:n], SampleSet(samples), (48, 64), CROPS, FACTOR, (0, 7)).target for n in (2, 3))
    assert torch.equal(two, three[:2])
    assert not torch.equal(two[0], frame([samples[1]], SampleSet(samples), (48, 64), CROPS, FACTOR, (0, 7)).target[0])


def test_a_batch_says_what_it_holds() -> None:
    batch = framed([sample(seed=1), sample(seed=2)], Framing(photographic=1.0))
    assert batch.names == ("picture 1", "picture 2")
    assert not batch.encoded
    assert batch.image.dtype == batch.target.dtype == torch.float32
    assert batch.valid.dtype == torch.bool
    for part in (batch.image, batch.target):
        assert part.min() >= -1
        assert part.max() <= 1


def test_faulty_pictures_take_over_colours_of_real_ones() -> None:
    samples = [sample(seed=seed) for seed in range(32)]
    colours = torch.tensor([[[0.9, 0.01], [0.1, 0.01], [0.1, 0.01]]])  # red
    for share, redder in [(0.0, 0.0), (1.0, 0.2)]:
        image = frame(samples, SampleSet(samples), (32, 48), Framing(photographic=share), FACTOR, (0,), colours).image
        assert (image[:, 0] - image[:, 1]).mean().item() == pytest.approx(redder, abs=0.1)


# ------------------------------------------------------------------------------------------- which depths count


def test_depths_that_count() -> None:
    depth_m = torch.tensor([np.nan, 0.0, 0.5, 0.6, 9.9, 10.0, 49.9, 50.0, 90.0, np.inf])
    published = (False, False, False, True, True, True, True, False, False, False)
    below_10 = (False, False, False, True, True, False, False, False, False, False)
    known = (False, False, False, True, True, True, True, True, True, True)
    for far_m, wanted in [(None, (published, published)), (10.0, (below_10, known)), (80.0, (published, known))]:
        found = which_count(depth_m, SampleSet([]), Framing(far_m=far_m))
        assert tuple(tuple(mask.tolist()) for mask in found) == wanted


@pytest.mark.parametrize("hole", [np.nan, np.inf, 0.0, 60.0])
@pytest.mark.parametrize("place", [(0, 0), (7, 7), (8, 15), (31, 47)])
def test_one_unknown_pixel_spoils_exactly_one_cell(hole: float, place: tuple[int, int]) -> None:
    given = sample()
    given.depth_m[place] = hole
    valid = framed([given]).valid[0, 0]
    assert (~valid).nonzero().tolist() == [[place[0] // FACTOR, place[1] // FACTOR]]


def test_sky_is_the_far_plane_and_counts_when_asked() -> None:
    given = sample()
    given.depth_m[:8] = np.inf
    given.depth_m[8:16] = 49.0
    given.depth_m[31, 47] = np.nan
    batch = framed([given], Framing(flip=0.0, far_m=45.0))
    assert (~batch.valid).sum() == 1
    assert (batch.target[:, :, :16] == 1).all()
    known = torch.from_numpy(given.depth_m)[None, None]
    assert torch.equal(batch.target, Depth().to_vae(known, known < 45))  # the sky does not move the quantiles


def test_cells_count_from_a_share_of_known_pixels() -> None:
    given = sample()
    given.depth_m[:] = np.nan
    given.depth_m[0, 0] = 2.0
    given.depth_m[0:2, 8:10] = 3.0
    given.depth_m[8:16, 8:16] = 4.0
    counts = {0.01: 3, 1 / 16: 2, 0.07: 1, 1.0: 1}
    for min_known, cells in counts.items():
        assert framed([given], Framing(flip=0.0, min_known=min_known)).valid.sum() == cells


def test_unknown_pixels_take_the_value_of_the_nearest_known_one() -> None:
    random = stream(0)
    target = torch.rand(3, 1, 12, 17, generator=random).expand(-1, 3, -1, -1)
    known = torch.rand(3, 1, 12, 17, generator=random) < 0.1
    known[1], known[2] = True, False
    filled = fill_unknown(target, known)
    assert torch.equal(filled[1:], target[1:])
    places = known[0, 0].nonzero()
    for row in range(12):
        for column in range(17):
            away = (places - torch.tensor([row, column])).square().sum(dim=1)
            nearest = {target[0, 0, r, c].item() for r, c in places[away == away.min()]}
            assert filled[0, 0, row, column].item() in nearest


def test_sparse_truth_is_filled_and_dense_truth_is_not() -> None:
    given = sample()
    given.depth_m[:] = np.nan
    given.depth_m[4::8, 4::8] = np.linspace(2, 9, 24, dtype=np.float32).reshape(4, 6)
    sparse = framed([given], Framing(flip=0.0, min_known=0.01))
    assert sparse.valid.all()
    assert sparse.target[0, 0, 0, 0] == -1
    assert (sparse.target[0, 0, :9, :9] < -0.5).all()  # as near as what was measured close by
    dense = framed([given])
    assert not dense.valid.any()
    assert (dense.target == 1).float().mean() > 0.95  # holes are far, so that no near surface bleeds


def test_a_picture_without_known_depth_is_named() -> None:
    empty = sample(seed=5)
    empty.depth_m[:] = 0.2
    with pytest.raises(MarigoldError, match=r"^picture 5 of samples has no known depth between 0.5 and 50 m: "):
        framed([sample(), empty])


def test_a_crop_that_misses_all_known_depth_does_not_count() -> None:
    given = sample(64, 64)
    given.depth_m[:] = np.nan
    given.depth_m[0, 0] = 3.0
    batches = [framed([given], Framing(long_edge_px=64, min_known=0.01), (0, n)) for n in range(8)]
    assert any(not batch.valid.any() for batch in batches)


@pytest.mark.parametrize("far_m", [None, 40.0])
@pytest.mark.parametrize("crop", ["one depth", "nearly one depth", "but for rounding"])
def test_a_picture_of_one_depth_does_not_count(crop: str, far_m: float | None) -> None:
    """Its 2 % and 98 % quantiles are equal, but for rounding: it has no near and no far plane."""
    slope = np.linspace(1, 9, 32 * 48, dtype=np.float32).reshape(32, 48)
    flat = np.full((32, 48), 3.0, np.float32)
    if crop == "nearly one depth":
        flat[:1, :12] = 2.0  # 0.8 % of the pixels
    elif crop == "but for rounding":
        flat += np.random.default_rng(0).normal(0, 5e-7, flat.shape).astype(np.float32)
        assert len(np.unique(flat)) > 4
    rgb = np.zeros((32, 48, 3), np.uint8)
    pictures = SampleSet([Sample("flat", rgb, flat), Sample("slope", rgb, slope)])
    batch = frame(pictures.samples, pictures, (32, 48), PLAIN.changed(far_m=far_m), FACTOR, (0,))
    assert batch.valid.flatten(1).any(dim=1).tolist() == [False, True]
    assert batch.valid[1].all()

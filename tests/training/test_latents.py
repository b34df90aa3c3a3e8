import json
import signal
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data._utils import signal_handling

from marigold_core import load
from marigold_core.errors import MarigoldError
from marigold_core.options import Presets
from tests.helpers.command_line import exit_status
from tests.helpers.damage import DISK_FULL, edit, failing
from training import latents
from training.data import latent_cache
from training.data.framing import frame
from training.data.latent_cache import INDEX, autoencoder_sha256, prior_sha256, read_index, write_latents
from training.data.sets import open_set
from training.latents import Encoding, count_variants, encode_set, framing_of, plan
from training.recipe import RECIPES, Framing
from training.start import prepare_start

CROPS = Framing(long_edge_px=64, upside_down=0.5, photographic=0.5, far_m=80.0)
PUBLISHED = Framing(nearest_rgb=True)
EXACT = Encoding(precision="float32")


def write_pair(folder: Path, name: str, height: int = 24, width: int = 32) -> None:
    """Write a photo of grain whose depth falls with its brightness; the top row is not known."""
    rng = np.random.default_rng([height, *name.encode()])
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    depth = (10 - rgb.mean(axis=2) / 32).astype(np.float32)
    depth[0] = np.nan
    folder.mkdir(exist_ok=True)
    Image.fromarray(rgb).save(folder / f"{name}.png")
    np.save(folder / f"{name}.depth.npy", depth)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for number in range(5):
        write_pair(tmp_path / "pairs", f"p{number}")
    return tmp_path / "pairs"


@pytest.fixture(scope="module")
def pipeline(tiny_depth: Path):
    return load(tiny_depth)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "SHARD", 4)
    monkeypatch.setattr(latents, "BATCH", 3)


def read(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.glob("*/*"))}


# ------------------------------------------------------------------------------------------- what is stored


def test_latents_are_what_the_pipeline_encodes(pipeline, pairs: Path, out: Path, small_shards: None) -> None:
    a_set = open_set(f"pairs:{pairs}")
    encode_set(pipeline, a_set, out, PUBLISHED, EXACT)
    assert [path.name for path in sorted(out.iterdir())] == [
        INDEX,
        *("shard_00000000_v0", "shard_00000000_v1", "shard_00000004_v0", "shard_00000004_v1"),
    ]
    samples = [a_set[index] for index in range(4)]
    for variant in (0, 1):  # of the published recipe these are the two orientations
        wanted = frame(samples, a_set, (24, 32), Framing(flip=variant, nearest_rgb=True), pipeline.factor, (0,))
        shard = out / f"shard_00000000_v{variant}"
        with torch.inference_mode():
            for name, picture in (("image", wanted.image), ("target", wanted.target)):
                stored = np.load(shard / f"{name}.npy")
                assert stored.dtype == np.float16
                assert np.abs(stored - pipeline.encode(picture).numpy()).max() < 2e-3
        assert np.array_equal(np.load(shard / "valid.npy"), wanted.valid.numpy())
        cells = wanted.target[:, 0].unflatten(1, (-1, pipeline.factor)).unflatten(3, (-1, pipeline.factor))
        np.testing.assert_allclose(np.load(shard / "grey.npy")[:, 0], cells.mean(dim=(2, 4)).numpy(), atol=1e-3)
        assert json.loads((shard / "names.json").read_text()) == [sample.name for sample in samples]


def test_targets_are_painted_as_the_checkpoint_paints(
    pipeline, tiny_depth: Path, pairs: Path, tmp_path: Path, small_shards: None
) -> None:
    rooted, a_set = load(prepare_start(tiny_depth, tmp_path / "start", depth_curve="root")), open_set(f"pairs:{pairs}")
    for made_by, name in ((pipeline, "linear"), (rooted, "root")):
        encode_set(made_by, a_set, tmp_path / name, PUBLISHED, EXACT)
        assert read_index(tmp_path / name)["depth_curve"] == name
    linear, root = (np.load(tmp_path / name / "shard_00000000_v0" / "target.npy") for name in ("linear", "root"))
    assert np.abs(linear - root).max() > 0.01
    with pytest.raises(MarigoldError, match="The latents in root were made with another depth_curve;"):
        encode_set(pipeline, a_set, tmp_path / "root", PUBLISHED, EXACT)
    edit(tmp_path / "linear" / INDEX, "depth_curve")
    encode_set(pipeline, a_set, tmp_path / "linear", PUBLISHED, EXACT)  # made when there was no choice


def test_features_of_an_image_prior_lie_beside_its_latents(
    tiny_guided: Path, pairs: Path, out: Path, small_shards: None
) -> None:
    pipeline, a_set = load(tiny_guided), open_set(f"pairs:{pairs}")
    encode_set(pipeline, a_set, out, PUBLISHED, EXACT)
    for shard in out.glob("shard_*"):
        image = torch.from_numpy(np.load(shard / "image.npy")).float()
        with torch.inference_mode():
            features = pipeline.features(image)
        assert len(list(shard.glob("features_*.npy"))) == len(features) == 2
        for number, found in enumerate(features):
            stored = np.load(shard / f"features_{number}.npy")
            assert stored.dtype == np.float16
            np.testing.assert_allclose(stored, found, atol=5e-3)
    assert read_index(out)["prior_sha256"] == prior_sha256(pipeline)
    assert pipeline.prior is not None
    pipeline.prior.get_buffer("mean_0").add_(1e-3)
    with pytest.raises(MarigoldError, match="The latents in out were made with another prior;"):
        encode_set(pipeline, a_set, out, PUBLISHED, EXACT)


def test_shards_are_a_function_of_seed_and_variant(pipeline, pairs: Path, tmp_path: Path, small_shards: None) -> None:
    a_set = open_set(f"pairs:{pairs}")
    faulty = Framing(flip=0.0, photographic=1.0)  # of one size, so that nothing else tells them apart
    for name, seed in [("one", 3), ("again", 3), ("other", 4)]:
        encode_set(pipeline, a_set, tmp_path / name, faulty, Encoding(seed=seed, variants=2))
    one, again, other = (read(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again
    assert one["shard_00000000_v0/image.npy"] != one["shard_00000000_v1/image.npy"]
    assert one["shard_00000000_v0/image.npy"] != other["shard_00000000_v0/image.npy"]


def test_worker_processes_change_nothing(
    pipeline, pairs: Path, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)  # torch sets its handler once a process
    before = signal.getsignal(signal.SIGCHLD)
    a_set = open_set(f"pairs:{pairs}")
    for workers in (0, 2):
        encode_set(pipeline, a_set, tmp_path / str(workers), CROPS, Encoding(variants=1, workers=workers))
    assert read(tmp_path / "0") == read(tmp_path / "2")
    assert signal.getsignal(signal.SIGCHLD) is before


def test_crops_of_portraits_and_landscapes_are_apart(pairs: Path) -> None:
    write_pair(pairs, "p00", 32, 24)
    write_pair(pairs, "p9", 32, 24)
    shards = plan(open_set(f"pairs:{pairs}"), CROPS, variants=2)
    assert [(shard.indices, shard.variant) for shard in shards] == [
        *(((0, 2, 3, 4, 5), 0), ((1, 6), 0)),
        *(((0, 2, 3, 4, 5), 1), ((1, 6), 1)),
    ]


def test_half_precision_that_overflows_is_refused(pipeline, pairs: Path, out: Path, monkeypatch) -> None:
    monkeypatch.setattr(pipeline, "encode", lambda x: x * 1e6)
    with pytest.raises(MarigoldError, match=r"p0 .* --precision float32"):
        encode_set(pipeline, open_set(f"pairs:{pairs}"), out, PUBLISHED, Encoding())


# ------------------------------------------------------------------------------------------- variants


@pytest.mark.parametrize(
    ("framing", "asked", "variants"),
    [
        (PUBLISHED, None, 2),
        (PUBLISHED, 1, 1),
        (Framing(flip=0.0), None, 1),
        (Framing(flip=0.3), None, 4),
        (Framing(photographic=0.3), None, 4),
        (Framing(upside_down=0.3), None, 4),
        (CROPS, 7, 7),
    ],
)
def test_there_are_as_many_variants_as_make_sense(framing: Framing, asked: int | None, variants: int) -> None:
    assert count_variants(framing, asked) == variants


def test_the_variants_of_the_published_recipe_are_two_orientations() -> None:
    assert [framing_of(PUBLISHED, variant).flip for variant in (0, 1)] == [0, 1]
    assert framing_of(CROPS, 1) == CROPS
    with pytest.raises(MarigoldError, match="no more than 2 variants .* but 3 were asked for"):
        count_variants(PUBLISHED, 3)


# ------------------------------------------------------------------------------------------- going on


def test_encoding_goes_on_where_it_stopped(
    pipeline, pairs: Path, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_set = open_set(f"pairs:{pairs}")
    encode_set(pipeline, a_set, tmp_path / "whole", CROPS, Encoding(variants=2))
    written = []

    def stop(path: Path, arrays: dict, names: list[str]) -> None:
        if len(written) == 2:
            aside = path.with_name(f".{path.name}.marigold-unfinished")  # as a killed process leaves it
            write_latents(aside, {"left": np.zeros(1)}, names)
            raise KeyboardInterrupt
        written.append(path)
        write_latents(path, arrays, names)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(latents, "write_latents", stop)
        encode_set(pipeline, a_set, tmp_path / "parts", CROPS, Encoding(variants=2))
    before = {path: (path / "image.npy").stat().st_mtime_ns for path in written}
    encode_set(pipeline, a_set, tmp_path / "parts", CROPS, Encoding(variants=2))
    assert {path: (path / "image.npy").stat().st_mtime_ns for path in written} == before
    assert read(tmp_path / "parts") == read(tmp_path / "whole")


def test_pictures_may_be_added_but_not_exchanged(pipeline, pairs: Path, out: Path, small_shards: None) -> None:
    encode_set(pipeline, open_set(f"pairs:{pairs}"), out, PUBLISHED, EXACT)
    before = read(out)
    write_pair(pairs, "p7")
    encode_set(pipeline, open_set(f"pairs:{pairs}"), out, PUBLISHED, EXACT)
    after = read(out)
    assert read_index(out)["pictures"] == 6
    assert {name for name in after if after[name] != before[name]} == {
        f"shard_00000004_v{variant}/{part}"
        for variant in (0, 1)
        for part in ("image.npy", "target.npy", "valid.npy", "grey.npy", "names.json")
    }
    (pairs / "p7.png").unlink()
    (pairs / "p7.depth.npy").unlink()
    with pytest.raises(MarigoldError, match="made of 6 pictures and there are 5 now"):
        encode_set(pipeline, open_set(f"pairs:{pairs}"), out, PUBLISHED, EXACT)
    write_pair(pairs, "p1a")
    with pytest.raises(MarigoldError, match="shard_00000000_v0 in out holds other pictures"):
        encode_set(pipeline, open_set(f"pairs:{pairs}"), out, PUBLISHED, EXACT)


@pytest.mark.parametrize(
    ("framing", "encoding", "colours", "named"),
    [
        (CROPS.model_copy(update={"flip": 0.1, "far_m": 9.0}), Encoding(), None, "another flip, far_m;"),
        (CROPS, Encoding(seed=1), None, "another seed;"),
        (CROPS, EXACT, None, "another precision;"),
        (CROPS, Encoding(), torch.full((1, 3, 2), 0.5), "another photos;"),
    ],
)
def test_other_choices_are_refused(pipeline, pairs: Path, out: Path, framing, encoding, colours, named: str) -> None:
    a_set = open_set(f"pairs:{pairs}")
    encode_set(pipeline, a_set, out, CROPS, Encoding(variants=1))
    before = read(out)
    with pytest.raises(MarigoldError, match=f"^The latents in out were made with {named}"):
        encode_set(pipeline, a_set, out, framing, encoding, colours)
    assert read(out) == before


def test_another_autoencoder_is_refused(tiny_depth: Path, pairs: Path, out: Path) -> None:
    mine, other = load(tiny_depth), cast(Any, load(tiny_depth))
    encode_set(mine, open_set(f"pairs:{pairs}"), out, PUBLISHED, EXACT)
    assert autoencoder_sha256(other) == autoencoder_sha256(mine) == read_index(out)["autoencoder_sha256"]
    other.unet.conv_in.weight.data += 1  # no part of it
    assert autoencoder_sha256(other) == autoencoder_sha256(mine)
    other.vae.encoder.conv_in.bias.data += 1e-3
    with pytest.raises(MarigoldError, match="another autoencoder;"):
        encode_set(other, open_set(f"pairs:{pairs}"), out, PUBLISHED, EXACT)


def test_a_folder_without_latents_says_so(tmp_path: Path) -> None:
    with pytest.raises(MarigoldError, match=r"holds no latents: .* python -m training\.latents"):
        read_index(tmp_path)
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(MarigoldError, match="holds no latents"):
        read_index(tmp_path)


def test_a_full_disk_leaves_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_cache.np, "save", failing(DISK_FULL))
    with pytest.raises(MarigoldError, match="No space left on device"):
        write_latents(tmp_path / "shard_00000000_v0", {"image": np.zeros(1)}, ["a"])
    assert list(tmp_path.glob("shard_*")) == []


# ------------------------------------------------------------------------------------------- the command


def run(*words: object) -> int:
    return exit_status(latents.main, *words, presets=Presets("recipe", RECIPES, "nano", "framing"))


def test_several_sets_go_to_folders_of_their_own(tiny_depth: Path, pairs: Path, tmp_path: Path, out: Path) -> None:
    write_pair(tmp_path / "more", "q")
    sets = [f"pairs:{pairs}", f"pairs:{tmp_path / 'more'}"]
    assert run("--checkpoint", tiny_depth, "--data", *sets, "--out", out, "--recipe", "smoke", "--variants", 1) == 0
    assert {path.relative_to(out).as_posix() for path in out.glob("*/*")} == {
        *("1_pairs/latents.json", "1_pairs/shard_00000000_v0"),
        *("2_pairs/latents.json", "2_pairs/shard_00000000_v0"),
    }
    framing: Any = read_index(out / "1_pairs")["framing"]
    assert framing["long_edge_px"] == RECIPES["smoke"].long_edge_px


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_one_sentence(
    workers: int, tiny_depth: Path, pairs: Path, out: Path, capfd: pytest.CaptureFixture
) -> None:
    (pairs / "p3.depth.npy").write_bytes(b"nothing")
    words = ["--checkpoint", tiny_depth, "--data", f"pairs:{pairs}", "--out", out, "--workers", workers]
    assert run(*words) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert "p3" in said
    assert said.endswith(".")
    assert list(out.glob("shard_*")) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--recipe", "paper", "--variants", "5"), "no more than 2 variants"),
        (("--photos", "{out}"), "no photograph"),
        (("--data", "{out}"), "{out}"),
    ],
)
def test_bad_input_is_one_sentence(
    words: tuple[str, ...], said: str, tiny_depth: Path, pairs: Path, out: Path, capsys: pytest.CaptureFixture
) -> None:
    out.mkdir()
    given = [word.format(out=out) for word in words]
    assert run("--checkpoint", tiny_depth, "--data", f"pairs:{pairs}", "--out", out / "x", *given) == 2
    error = capsys.readouterr().err
    assert said.format(out=out.name) in error
    assert error.count("\n") == 1
    assert not (out / "x").exists()

"""Families of checkpoints: told by their files, by the name of a published repository, or by a key in the index."""

import shutil
from pathlib import Path

import pytest

from marigold_core.checkpoints import hub
from marigold_core.checkpoints.families import E2E_FT, GENPERCEPT, LOTUS_D, LOTUS_G, MARIGOLD, unstated
from marigold_core.checkpoints.registry import NAMED, find
from marigold_core.errors import CheckpointError
from tests.helpers.damage import edit
from tests.helpers.fake_hub import fake_hub
from tests.helpers.families import APPEARANCE, LIGHTING, as_e2e_ft, as_genpercept, as_intrinsics, as_lotus


def state(folder: Path, **keys: object) -> None:
    edit(folder / "model_index.json", **keys)


def test_what_the_files_of_published_repositories_do_not_say() -> None:
    assert unstated(Path("x/marigold-depth-v1-0")) == unstated(Path("my-lotus-depth-g-v1-0")) == {}
    assert unstated(Path("lotus-depth-g-v2-1-disparity")) == {"prediction_type": "disparity"}
    snapshot = Path("hub/models--GonzaloMG--marigold-e2e-ft-normals/snapshots/0123")
    assert unstated(snapshot) == {"prediction_type": "normals", "initial_noise": "zeros"}
    for entry in NAMED.values():
        known = unstated(Path((entry.hub_id or "nano").rpartition("/")[2]))
        assert bool(known) == (entry.family is not MARIGOLD), entry.name
        if known:
            assert (known["prediction_type"] == "normals") == (entry.modality == "normals"), entry.name
            assert ("initial_noise" in known) == (entry.family is E2E_FT), entry.name


def test_a_folder_of_another_name_says_what_it_predicts(tiny_depth: Path, tmp_path: Path) -> None:
    e2e_ft = as_e2e_ft(tiny_depth, tmp_path / "e2e")
    lotus_g, lotus_d = (as_lotus(tiny_depth, tmp_path / f"l{g}", generative=g) for g in (True, False))
    for folder, family in ((e2e_ft, E2E_FT), (lotus_g, LOTUS_G), (lotus_d, LOTUS_D)):
        with pytest.raises(CheckpointError, match='add "prediction_type": "depth", "disparity" or "normals" to its'):
            find(folder)
        seen = set()
        for stated in ("depth", "disparity", "normals"):
            state(folder, prediction_type=stated)
            found = find(folder)
            seen.add(found.sha256)
            assert (found.family, found.default_steps) == (family, 1)
            assert (found.modality, found.space) == {
                "depth": ("depth", "depth"),
                "disparity": ("depth", "disparity"),
                "normals": ("normals", "depth"),
            }[stated]
        assert len(seen) == 3


def test_a_marigold_folder_can_say_that_it_begins_without_noise(tiny_depth: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_depth, tmp_path / "mine"))
    plain = find(folder)
    assert plain.family is MARIGOLD and plain.default_steps == 4
    state(folder, initial_noise="zeros")
    own = find(folder)
    assert own.family is E2E_FT and own.default_steps == 1 and own.sha256 != plain.sha256
    state(folder, initial_noise="pyramid")
    with pytest.raises(CheckpointError, match="initial_noise must be 'gaussian' or 'zeros', but got 'pyramid'"):
        find(folder)


def test_the_name_of_a_repository_counts_where_its_class_says_otherwise(tiny_depth: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_depth, tmp_path / "marigold-e2e-ft-normals"))
    absent = ("prediction_type", "scale_invariant", "shift_invariant")
    edit(folder / "model_index.json", *absent, _class_name="MarigoldPipeline")
    found = find(folder)
    assert (found.family, found.modality) == (E2E_FT, "normals")
    renamed = find(folder.rename(tmp_path / "renamed"))  # what the name told is part of what is compared on replay
    assert (renamed.family, renamed.modality) == (MARIGOLD, "depth") and renamed.sha256 != found.sha256


def test_the_layers_of_intrinsics_are_those_that_the_index_names(tiny_depth: Path, tmp_path: Path) -> None:
    folder = as_intrinsics(tiny_depth, tmp_path / "appearance", APPEARANCE)
    found = find(folder)
    assert (found.modality, found.kind, found.pictures, found.default_steps) == ("intrinsics", "unit-range", 2, 4)
    places = [(layer.name, layer.picture, layer.channels, layer.space) for layer in found.layers]
    assert places[0] == ("albedo", 0, (0, 1, 2), "srgb")
    assert places[1:] == [("roughness", 1, (0,), "linear"), ("metallicity", 1, (1,), "linear")]
    state(folder, _class_name="MarigoldIIDPipeline", prediction_type=None)  # as the authors' own repository saves it
    assert find(folder).layers == found.layers
    light = find(as_intrinsics(tiny_depth, tmp_path / "lighting", LIGHTING)).layers
    assert [(layer.name, layer.up_to_scale) for layer in light] == [
        ("albedo", False),
        ("shading", True),
        ("residual", True),
    ]
    for properties, words in (
        (None, "target_properties"),
        ({**APPEARANCE, "target_names": ["albedo", "specular"]}, "but got 'specular'"),
        ({**APPEARANCE, "target_names": ["albedo", "albedo"]}, "names no layer, or one twice"),
        ({**APPEARANCE, "albedo": {"prediction_space": "cubic"}}, "but got 'cubic'"),
        ({**APPEARANCE, "target_names": ["albedo"]}, "12 input and 8 output channels"),
        (LIGHTING, "12 input and 8 output channels, an intrinsic-image model; a Marigold U-Net for 3 pictures has 16"),
    ):
        state(folder, target_properties=properties)
        with pytest.raises(CheckpointError, match=words):
            find(folder)


def test_other_models_in_the_same_clothes_are_refused(tiny_depth: Path, tmp_path: Path) -> None:
    folder = as_e2e_ft(tiny_depth, tmp_path / "marigold-e2e-ft-depth")
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    with pytest.raises(CheckpointError, match="predicts epsilon"):
        find(folder)
    lotus = as_lotus(tiny_depth, tmp_path / "lotus-depth-d-v1-0", generative=False)
    edit(lotus / "unet" / "config.json", class_embed_type=None)
    with pytest.raises(CheckpointError, match="4 input and 4 output channels, a plain Stable Diffusion"):
        find(lotus)


def test_normals_that_point_nobody_knows_where_are_refused(tiny_depth: Path, tmp_path: Path) -> None:
    folder = as_genpercept(tiny_depth, tmp_path / "genpercept")
    state(folder, prediction_type="depth")
    assert find(folder).family is GENPERCEPT
    state(folder, prediction_type="normals")
    with pytest.raises(
        CheckpointError, match="Which way the normals of a GenPercept checkpoint point is not documented"
    ):
        find(folder)


def test_a_published_one_is_fetched_by_its_short_name(
    tiny_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = NAMED["lotus-d-disparity"].hub_id
    assert published
    with fake_hub(monkeypatch, tmp_path / "home") as server:
        server.folders[published] = as_lotus(tiny_depth, tmp_path / "any", generative=False)
        found = find("lotus-d-disparity")
        assert (found.name, found.family, found.space) == ("lotus-d-disparity", LOTUS_D, "disparity")
        assert hub.is_complete(published)

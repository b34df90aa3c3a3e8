"""The page with checkpoints that predict in one step: what is left open, what is written instead, what is refused."""

from pathlib import Path
from typing import Any

import pytest

from marigold_core import Settings, SettingsError
from marigold_core.comparison.sweep import Comparison
from marigold_core.serving.jobs import Service
from marigold_core.ui import text
from marigold_core.ui.controls.settings import fit_to_checkpoint
from marigold_core.ui.offered_checkpoints import checkpoint_choices, family_of_result
from tests.helpers.families import as_e2e_ft


def changed(checkpoint: str, views: Any) -> dict[str, dict[str, Any]]:
    """What the event changes in steps, members, seed and presets; values, which may be newer, stay the visitor's."""
    names = ("steps", "members", "seed", "preset")
    updates = fit_to_checkpoint(checkpoint, views)
    assert not any("value" in update.constructor_args for update in updates)
    return {name: update.constructor_args for name, update in zip(names, updates, strict=True)}


def test_steps_and_members_are_closed_where_they_mean_nothing() -> None:
    found = changed("e2e-ft", "photo")
    assert not found["steps"]["interactive"] and not found["members"]["interactive"]
    assert found["members"]["info"] == text.SAME_MEMBERS and found["steps"]["info"] == text.ONE_STEP
    assert not found["seed"]["interactive"] and not found["preset"]["visible"]
    wide = changed("lotus-d", "mirrored-rescaled")["members"]
    assert (wide["maximum"], wide["interactive"]) == (6, True)


def test_members_of_a_generative_one_stay_open() -> None:
    found = changed("lotus-g", "photo")
    assert not found["steps"]["interactive"] and not found["preset"]["visible"]
    assert found["members"]["maximum"] == 20 and found["seed"]["interactive"]


def test_all_is_open_for_others(tmp_path: Path) -> None:
    for name in ("nano", str(tmp_path)):  # a folder without a checkpoint is refused when it is loaded
        found = changed(name, "photo")
        assert (
            all(found[widget]["interactive"] for widget in ("steps", "members", "seed")) and found["preset"]["visible"]
        )


def test_the_picker_says_it_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    labels = {name: label for label, name in checkpoint_choices()}
    assert labels["e2e-ft"] == "e2e-ft (one step, no noise, downloads 5.2 GB)"
    assert labels["lotus-g"] == "lotus-g (one step, downloads 5.2 GB)"


def test_a_folder_is_known_too(tiny_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = as_e2e_ft(tiny_depth, tmp_path / "marigold-e2e-ft-depth")
    monkeypatch.setenv("MARIGOLD_MODEL", str(folder))
    assert not changed(str(folder), "photo")["steps"]["interactive"]
    assert family_of_result(folder.name).deterministic and not family_of_result("unheard of").deterministic


def test_a_run_is_refused_before_anything_is_fetched(photo: Any, no_network: list[str], tmp_path: Path) -> None:
    service = Service(tmp_path)
    with pytest.raises(SettingsError, match="e2e-ft predicts in one step"):
        next(service.run(photo(), Settings(num_inference_steps=4), "e2e-ft"))
    with pytest.raises(SettingsError, match="lotus-d is deterministic"):
        next(service.run(photo(), Settings(ensemble_size=3), "lotus-d"))
    with pytest.raises(SettingsError, match="lotus-g predicts in one step: ask for 1 denoising step, not 4"):
        service.comparison_cost(Comparison(steps=(1, 4), sizes=(1, 3)), ["nano", "lotus-g"], (48, 64))
    assert no_network == []

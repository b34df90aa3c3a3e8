"""What a Space fetches while it builds: a commit that the hub listed, the files of a run, and no others."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import hf_hub_download  # pyright: ignore[reportUnknownVariableType]

from marigold_core.checkpoints.registry import find
from marigold_core.cli.space import THUMBNAIL, main, preloaded
from marigold_core.errors import CheckpointError, SettingsError
from tests.helpers.fake_hub import REVISION, fake_hub

ROOT = Path(__file__).resolve().parents[2]
V1_1 = "prs-eth/marigold-depth-v1-1"


def test_the_front_matter_names_the_commit_and_the_thumbnail(
    tiny_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "README.md").read_text())
    with fake_hub(monkeypatch, tmp_path) as hub:
        hub.folders[V1_1] = tiny_depth
        main(readme, space="somebody/depth", preload="v1-1")
        with pytest.raises(CheckpointError, match="There is no folder and no public hub checkpoint"):
            preloaded("somebody/nothing")
    head = readme.read_text().split("---\n")[1].splitlines()
    line = head[head.index("preload_from_hub:") + 1]
    hub_id, files, commit = line.removeprefix("  - ").split(" ")
    assert (hub_id, commit) == (V1_1, REVISION)
    assert {"model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"} <= {*files.split(",")}
    assert not any(name.startswith("checksums") for name in files.split(","))
    assert f"thumbnail: https://huggingface.co/spaces/somebody/depth/resolve/main/{THUMBNAIL}" in head
    assert (ROOT / THUMBNAIL).stat().st_size < 300_000
    for wrong in ("nano", "nowhere"):
        with pytest.raises(SettingsError, match="is not on the hub"):
            preloaded(wrong)
    with pytest.raises(SettingsError, match="A Space is called USER/NAME"):
        main(readme, space="somebody")


def test_what_the_host_has_fetched_is_used_without_asking_the_hub(
    tiny_depth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_hub(monkeypatch, tmp_path) as hub:
        hub.folders[V1_1] = tiny_depth
        hub_id, files, commit = preloaded("v1-1", REVISION).split(" ")
        for name in files.split(","):  # as the host does: by commit, so that no branch is known
            download: Any = hf_hub_download
            download(hub_id, name, revision=commit)
        hub.requests.clear()
        assert find("v1-1").folder.name == REVISION
        assert hub.requests == []

"""Clips, panoramas and effects as jobs: what is too much is refused, and what is stopped leaves nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marigold_core.errors import SettingsError, VideoError
from marigold_core.images.photo import load_photo
from marigold_core.serving import video
from marigold_core.serving.api.endpoints import ENDPOINT_OF
from marigold_core.serving.jobs import Service
from marigold_core.settings import Settings
from marigold_core.video.settings import VideoSettings
from tests.helpers.clips import scene, write_clip


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", scene(2).frames(3))


def test_all_frames_together_are_bounded(service: Service, clip: Path, tiny_depth: Path, tmp_path: Path, monkeypatch):
    """Three frames of .7 megapixels at 1024 pixels, 10 steps x 10 members, put 236 megapixels through the network."""
    settings = Settings(num_inference_steps=10, ensemble_size=10, processing_resolution=1024)
    monkeypatch.setattr(video, "MAX_CLIP_WORK", 230)
    predictor = video.SharedPredictor(service, str(tiny_depth), service.warm(str(tiny_depth)).result())
    with pytest.raises(SettingsError, match="is too much for one run"):
        list(video.run_clip(predictor, clip, tmp_path / "made", settings, VideoSettings()))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["panorama", "video"])
def test_what_the_cuts_leave_empty_is_noted(name: str, service, clip: Path, tiny_depth: Path, monkeypatch):
    monkeypatch.setenv("MARIGOLD_MODEL", str(tiny_depth))
    given: dict[str, Any] = {"num_inference_steps": 1, "processing_resolution": 32}
    given |= {"near_clip": 0.95, "far_clip": 0.951}
    if name == "video":
        given |= {"video": clip, "video_formats": ["ply", "png16"], "max_triangles": 1000}
    else:
        given["photo"] = load_photo(np.zeros((32, 64, 3), np.uint8))
    *_, answer = ENDPOINT_OF[name].run(service, ENDPOINT_OF[name].read(given))
    assert isinstance(answer, dict)
    assert "was left out" in answer["note"] and "The cuts leave nothing" in answer["note"]
    assert "png16" in answer and answer["record"]["left_out"]


def test_a_clip_whose_files_would_fill_the_disk_is_refused_and_leaves_none(service, clip, tiny_depth, monkeypatch):
    monkeypatch.setenv("MARIGOLD_MODEL", str(tiny_depth))
    monkeypatch.setattr(video, "MOST_WRITTEN", 30_000)
    monkeypatch.setattr(video, "LOOK_EVERY", 1)
    endpoint = ENDPOINT_OF["video"]
    given = endpoint.read({"video": clip, "num_inference_steps": 1, "video_formats": ["exr", "glb"]})
    with pytest.raises(VideoError, match="larger than the 0 GB that the server writes of one"):
        list(endpoint.run(service, given))
    assert not list(service._folder.glob("call-*"))


def test_a_call_that_is_stopped_leaves_no_files(service, clip: Path, tiny_depth: Path, monkeypatch):
    monkeypatch.setenv("MARIGOLD_MODEL", str(tiny_depth))
    endpoint = ENDPOINT_OF["video"]
    answers: Any = endpoint.run(service, endpoint.read({"video": clip, "num_inference_steps": 1}))
    while not next(answers).stage.startswith("frame 2"):
        pass
    assert list(service._folder.glob("call-*/unfinished"))
    answers.close()
    assert not list(service._folder.glob("call-*"))
    pixels = np.zeros((48, 64, 3), np.uint8)
    assert list(service.run(pixels, Settings(num_inference_steps=1), str(tiny_depth)))  # the model is free

"""A clip to its files: every frame, whatever the file is like; what cannot be read is a sentence."""

import csv
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import trimesh
from PIL import Image

from marigold_core import ExportError, Settings, VideoError, cli
from marigold_core.prediction import Progress
from marigold_core.settings import FrameSettings
from marigold_core.video import clips
from marigold_core.video.clips import Clip
from marigold_core.video.convert import predict_video, stream_video
from marigold_core.video.settings import VideoSettings
from tests.helpers.clips import PlantedPipe, disturbed, flicker, scene, write_clip
from tests.helpers.command_line import QUICK, fingerprints, run_command
from tests.helpers.damage import failing
from tests.helpers.kills import killed_at

FRAMES = 12


@pytest.fixture
def place():
    return scene(0)


def decoded(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as container:
        both = [(frame.to_ndarray(format="rgb24"), frame.time or 0.0) for frame in container.decode(video=0)]
    return [pixels for pixels, _ in both], [round(time, 3) for _, time in both]


def test_a_clip_becomes_clips_and_frames_over_one_range(place, tmp_path: Path) -> None:
    truths = place.truths(FRAMES)
    pipe = PlantedPipe(disturbed(truths, 0))
    formats = ("color", "grey", "side_by_side", "exr", "png16", "ply", "glb")
    source = write_clip(tmp_path / "a.mp4", place.frames(FRAMES), sound="aac")
    video = VideoSettings(video_formats=formats)
    made = predict_video(pipe, source, tmp_path / "out", video=video)
    assert (made.frames, made.scenes, made.notes) == (FRAMES, 1, ())
    assert set(made.files) == {*formats, "table", "record"} and not (tmp_path / "out" / "unfinished").exists()

    for name in ("color", "grey", "side_by_side"):
        pictures, times = decoded(made.files[name])
        assert pictures[0].shape == ((72, 192, 3) if name == "side_by_side" else (72, 96, 3))
        assert times == [round(number / 25, 3) for number in range(FRAMES)]
        with av.open(str(made.files[name])) as container:
            assert container.streams.audio[0].codec_context.name == "aac"
    grey = np.stack(decoded(made.files["grey"])[0])[..., 0] / 255

    levels = [_levels(path) for path in sorted(made.files["png16"].iterdir())]
    assert len(levels) == FRAMES and levels[0].dtype == np.uint16
    maps = np.stack(levels) / 65535
    assert maps.min() == 0 and maps.max() == 1  # of the whole clip, not of a frame
    assert np.abs(grey - (1 - maps)).mean() < 0.02  # near is white
    assert flicker(list(maps), truths) < 0.4 * flicker(pipe.depths, truths)
    exr = np.stack([_exr(path) for path in sorted(made.files["exr"].iterdir())])
    np.testing.assert_allclose(exr, maps, atol=1e-4)
    cloud: Any = trimesh.load(sorted(made.files["ply"].iterdir())[0])
    assert 1000 < len(cloud.vertices) <= 72 * 96
    assert len(list(made.files["glb"].iterdir())) == FRAMES

    rows = list(csv.DictReader(made.files["table"].read_text().splitlines()))
    assert [float(row["seconds"]) for row in rows] == [number / 25 for number in range(FRAMES)]
    record = json.loads(made.files["record"].read_text())
    assert record["frames"] == FRAMES and record["range"]["near"] < record["range"]["far"]
    with pytest.raises(ExportError, match="finished result already"):
        predict_video(pipe, source, tmp_path / "out")


def _levels(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return picture


def _exr(path: Path) -> np.ndarray:
    import OpenEXR

    with OpenEXR.File(str(path), separate_channels=True) as file:
        return file.channels()["Z"].pixels


def run_until(events: Iterator[object], done: int) -> None:
    next(event for event in events if isinstance(event, Progress) and event.done == done)


def test_a_stopped_run_goes_on_to_the_same_files(place, tmp_path: Path) -> None:
    source, depths = write_clip(tmp_path / "a.mp4", place.frames(FRAMES)), disturbed(place.truths(FRAMES), 1)
    video = VideoSettings(video_formats=("png16",))
    whole = predict_video(PlantedPipe(depths), source, tmp_path / "whole", video=video)

    pipe = PlantedPipe(depths)
    events = stream_video(pipe, source, tmp_path / "parts", video=video)
    run_until(events, 5)
    events.close()
    assert pipe.calls == 5 and not (tmp_path / "parts" / "frames_16bit").exists()
    again = predict_video(pipe, source, tmp_path / "parts", video=video)
    assert pipe.calls == FRAMES
    assert fingerprints(again.files["png16"]) == fingerprints(whole.files["png16"])


def test_a_killed_run_goes_on_from_its_last_state(place, tmp_path: Path, monkeypatch) -> None:
    """Maps that were written after the last state are dropped, and predicted again."""
    from marigold_core.video import convert

    monkeypatch.setattr(convert, "KEEP_EVERY", 4)
    source, depths = write_clip(tmp_path / "a.mp4", place.frames(FRAMES)), disturbed(place.truths(FRAMES), 2)
    video = VideoSettings(video_formats=("png16",))
    whole = predict_video(PlantedPipe(depths), source, tmp_path / "whole", video=video)
    pipe = PlantedPipe(depths)
    events = stream_video(pipe, source, tmp_path / "parts", video=video)
    run_until(events, 6)
    with monkeypatch.context() as patch:
        patch.setattr(convert.KeptMaps, "keep", lambda *_: None)  # nothing more is written, as by a kill
        events.close()
    pipe.calls = 4
    again = predict_video(pipe, source, tmp_path / "parts", video=video)
    assert fingerprints(again.files["png16"]) == fingerprints(whole.files["png16"])


def test_killed_at_any_change_of_the_disk_it_goes_on_to_the_same_files(place, tmp_path: Path, monkeypatch) -> None:
    from marigold_core.video import convert

    monkeypatch.setattr(convert, "KEEP_EVERY", 4)
    source, depths = write_clip(tmp_path / "a.mp4", place.frames(6)), disturbed(place.truths(6), 2)
    video = VideoSettings(video_formats=("png16",), carry=0)

    def work(out: Path) -> None:
        class Named(PlantedPipe):
            def stream(self, photo, *words, **named):  # the frame's own depth, whichever is asked for first
                self.calls = int(np.argmin([np.abs(photo.astype(int) - one).mean() for one in seen]))
                yield from super().stream(photo, *words, **named)

        predict_video(Named(depths), source, out, video=video)

    seen = [frame.astype(int) for frame in decoded(source)[0]]
    work(tmp_path / "whole")
    assert len(whole := fingerprints(tmp_path / "whole")) == 6 + 2
    for number in range(0, 200, 5):
        out = tmp_path / str(number)
        killed = killed_at(number, partial(work, out))
        if not killed:
            break
        if not (out / "video.json").exists():
            assert not killed_at(1000, partial(work, out))
        else:
            with pytest.raises(ExportError, match="holds a finished result already"):
                work(out)
        assert fingerprints(out) == whole, number
    assert number > 30


def test_two_processes_do_not_make_one_clip_and_frames_of_another_run_are_not_taken_for_its_own(
    place, tmp_path: Path
) -> None:
    source, depths = write_clip(tmp_path / "a.mp4", place.frames(FRAMES)), place.truths(FRAMES)
    first, second = (stream_video(PlantedPipe(depths), source, tmp_path / "out") for _ in range(2))
    next(first)
    with pytest.raises(ExportError, match="Another process makes a video in"):
        next(second)
    first.close()
    (tmp_path / "out" / "frames_exr").mkdir()
    (tmp_path / "out" / "frames_exr" / "000000.exr").touch()
    with pytest.raises(ExportError, match="frames_exr holds other frames: remove it"):
        predict_video(PlantedPipe(depths), source, tmp_path / "out", video=VideoSettings(carry=0.5))


def test_other_settings_begin_anew(place, tmp_path: Path) -> None:
    source, depths = write_clip(tmp_path / "a.mp4", place.frames(FRAMES)), place.truths(FRAMES)
    pipe = PlantedPipe([*depths[:3], *depths])
    events = stream_video(pipe, source, tmp_path / "out")
    run_until(events, 3)
    events.close()
    made = predict_video(pipe, source, tmp_path / "out", Settings(seed=1))
    assert pipe.calls == 3 + FRAMES and made.frames == FRAMES


def test_cuts_are_found_and_each_scene_keeps_one_range(place, tmp_path: Path) -> None:
    other = scene(1)
    frames, depths = place.frames(6) + other.frames(6), place.truths(6) + other.truths(6)
    made = predict_video(PlantedPipe(depths), write_clip(tmp_path / "a.mp4", frames), tmp_path / "out")
    assert made.scenes == 2
    rows = list(csv.DictReader(made.files["table"].read_text().splitlines()))
    assert [row["scene"] for row in rows] == ["0"] * 6 + ["1"] * 6


# ------------------------------------------------------------------------------- files as people have them


def test_times_of_a_variable_rate_are_kept(place, tmp_path: Path) -> None:
    times = [0, 40, 200, 210, 500, 1500]
    source = write_clip(tmp_path / "a.mp4", place.frames(6), times=times)
    made = predict_video(PlantedPipe(place.truths(6)), source, tmp_path / "out")
    assert decoded(made.files["color"])[1] == [time / 1000 for time in times]


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_turned_clips_are_upright(place, tmp_path: Path, rotation: int) -> None:
    """What a phone states beside the frames is applied once: players turn neither the frames nor our clips again."""
    upright = place.frames(3)
    stored = [np.rot90(frame, -rotation // 90) for frame in upright]
    source = write_clip(tmp_path / "a.mp4", stored, rotation=rotation)
    read = [frame.pixels for frame in Clip(source).frames()]
    assert np.abs(read[0].astype(int) - upright[0]).mean() < 6
    made = predict_video(PlantedPipe(place.truths(3)), source, tmp_path / "out")
    assert decoded(made.files["color"])[0][0].shape == (72, 96, 3)


def test_odd_sides_lose_nothing(place, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", place.frames(3, (71, 95)))
    pipe = PlantedPipe(place.truths(3, (71, 95)))
    made = predict_video(pipe, source, tmp_path / "out", video=VideoSettings(video_formats=("color", "png16")))
    assert pipe.seen[0].shape == (71, 95, 3)
    assert decoded(made.files["color"])[0][0].shape == (72, 96, 3)
    assert _levels(made.files["png16"] / "000000.png").shape == (71, 95)


@pytest.mark.parametrize("ending", ["mp4", "ts"])
def test_a_file_that_was_cut_off_gives_what_is_there(place, tmp_path: Path, ending: str) -> None:
    source = write_clip(tmp_path / f"a.{ending}", place.frames(12))
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 2 // 3])
    made = predict_video(PlantedPipe(place.truths(FRAMES)), source, tmp_path / "out")
    assert 1 <= made.frames < 12
    assert len(decoded(made.files["color"])[0]) == made.frames
    if ending == "mp4":  # which states how many there are
        assert re.match(r"The file (states 12 frames|is damaged or cut off after)", made.notes[0])


def test_sound_that_mp4_does_not_hold_is_left_out_with_a_sentence(place, tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mkv", place.frames(6), sound="pcm_s16le")
    made = predict_video(PlantedPipe(place.truths(6)), source, tmp_path / "out")
    assert made.notes == ("The sound is pcm_s16le, which MP4 players do not expect; it was left out.",)
    silent = VideoSettings(silent=True)
    assert predict_video(PlantedPipe(place.truths(6)), source, tmp_path / "b", video=silent).notes == ()


def test_frames_that_the_cuts_leave_empty_leave_the_other_files(place, tmp_path: Path) -> None:
    """A flat clip; where nothing at all is left the run goes on with other files, and predicts no frame anew."""
    source, mesh = write_clip(tmp_path / "a.mp4", place.frames(2)), FrameSettings(near_clip=0.95, far_clip=0.96)
    alone, beside = VideoSettings(video_formats=("ply",)), VideoSettings(video_formats=("glb", "ply", "exr", "png16"))
    with pytest.raises(ExportError, match="cuts leave nothing"):
        flat = PlantedPipe([np.full((72, 96), 0.5, np.float32)] * 2)
        predict_video(flat, source, tmp_path / "out", video=alone, mesh=mesh)
    made = predict_video(PlantedPipe([]), source, tmp_path / "out", video=beside, mesh=mesh)
    assert set(made.files) == {"exr", "png16", "table", "record"} and len(list(made.files["exr"].iterdir())) == 2
    record = json.loads(made.files["record"].read_text())
    assert made.notes[0].startswith("frames_points was left out for 2 of 2 frames: The cuts leave nothing")
    assert len(made.notes) == 2 and {"frames_mesh/000000.glb", "frames_points/000001.ply"} <= {*record["left_out"]}


def _sound_alone(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        for packet in [*stream.encode(frame), *stream.encode(None)]:  # type: ignore[attr-defined]
            container.mux(packet)


def test_what_is_no_video_is_a_sentence(place, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video")
    whole = write_clip(tmp_path / "whole.mp4", place.frames(6))
    (tmp_path / "head.mp4").write_bytes(whole.read_bytes()[:400])
    _sound_alone(tmp_path / "sound.m4a")
    for name, sentence in {
        "gone.mp4": "There is no file",
        "empty.mp4": "empty.mp4 cannot be read as a video",
        "text.mp4": "text.mp4 cannot be read as a video",
        "head.mp4": "head.mp4 cannot be read as a video",
        "sound.m4a": "sound.m4a holds no moving picture, only audio",
    }.items():
        with pytest.raises(VideoError, match=sentence):
            predict_video(PlantedPipe([]), tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_small_file_of_huge_frames_is_refused_before_they_are_decoded(tmp_path: Path, monkeypatch) -> None:
    """One of 1.6 MB with frames of 16,000 x 16,000 pixels took 1.5 GB of memory."""
    frames = [Image.new("L", (7000, 7000), level) for level in (0, 1)]
    frames[0].save(tmp_path / "huge.gif", save_all=True, append_images=frames[1:])
    monkeypatch.setattr(clips, "_upright", failing(AssertionError("it was decoded")))
    with pytest.raises(VideoError, match="holds no frame of up to 35 megapixels that can be decoded"):
        list(Clip(tmp_path / "huge.gif").frames())


def test_a_real_checkpoint_on_the_command_line(place, tmp_path: Path, tiny_depth: Path, capsys) -> None:
    source = write_clip(tmp_path / "a.mp4", place.frames(3))
    words = ["video", source, "-o", tmp_path / "out", "--model", tiny_depth, "--device", "cpu", *QUICK]
    words += ["--video-formats", "grey,png16"]
    assert run_command(*words) == cli.ALL_DONE
    assert capsys.readouterr().out.startswith("3 frames, 1 scene.")
    assert len(list((tmp_path / "out" / "a" / "frames_16bit").iterdir())) == 3
    assert run_command(*words) == cli.USAGE
    assert "finished result already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9.0,\nclip.mp4\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile clip.mp4\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/9\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"'
        ' profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">'
        '<Representation id="1" bandwidth="1"><BaseURL>clip.mp4</BaseURL></Representation></AdaptationSet></Period>'
        "</MPD>",
    ],
    ids=["hls", "concat", "sdp", "dash"],
)
def test_playlists_are_refused_and_what_they_name_is_not_opened(place, tmp_path: Path, playlist: str):
    write_clip(tmp_path / "clip.mp4", place.frames(2))
    for name in ("a.mp4", "a.m3u8", "a.ffconcat", "a.sdp", "a.mpd"):
        (tmp_path / name).write_text(playlist)
        with pytest.raises(VideoError, match=f"^{name} (cannot be read as a video|is no file that holds a whole)"):
            Clip(tmp_path / name)

"""How much depth flickers: clips of rendered scenes with a planted camera, frame by frame and steadied.

    python -m tests.bench.flicker --clips 4 --frames 24

The renderer knows every pixel's depth and the cameras, so that a pixel is found again in the next frame exactly.
Flicker is by how much the error of the estimate at one place of the scene changes from a frame to the next: mean
absolute difference of relative errors, after one scale and shift over the whole clip.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from marigold_core import Settings, load
from marigold_core.video.convert import RECORD, predict_video
from marigold_core.video.settings import VideoSettings
from tests.helpers.clips import write_clip
from training.data.sets.rendered import View
from training.scenes import make_scene
from training.scenes.assets import Assets
from training.scenes.rasterizer import rasterizer
from training.scenes.types import Camera, triple

SIZE = (256, 192)  # width, height
MOVE = 0.012  # metres a frame for a metre of depth, sideways; a third of it forward


def render(seed: int, frames: int) -> tuple[list[np.ndarray], list[np.ndarray], list[Camera]]:
    """A clip -> pictures [H, W, 3] uint8, depths [H, W] in metres (inf for the sky), cameras."""
    scene = make_scene(seed, Assets(), ("room", "table", "objects"))
    raster = rasterizer()
    camera, view = next(seen for seen in raster.views(scene, SIZE) if worth_seeing(seen[1]))
    middle = float(np.median(view.depth_m[np.isfinite(view.depth_m)]))
    eye, target = np.asarray(camera.eye), np.asarray(camera.target)
    right, _, forward = camera.rotation()
    steps = [MOVE * middle * (number * right + number / 3 * forward) for number in range(frames)]
    cameras = [replace(camera, eye=triple(eye + step), target=triple(target + step)) for step in steps]
    views = [view for _, view in raster.views(replace(scene, cameras=cameras), SIZE)]
    return [view.rgb for view in views], [view.depth_m for view in views], cameras


def worth_seeing(view: View) -> bool:
    """Whether a view is mostly of things, none of them right before the camera, and no blank wall."""
    known = view.depth_m[np.isfinite(view.depth_m)]
    return known.size > 0.8 * view.depth_m.size and np.percentile(known, 5) > 0.4 and view.rgb.std() > 20


def track(depth_m: np.ndarray, camera: Camera, after: Camera, depth_after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of a frame are in the next one: x and y [H, W] float32, NaN where they are not seen there."""
    height, width = depth_m.shape
    focal = camera.focal_px(width, height)
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    z = np.where(np.isfinite(depth_m), depth_m, 1e3)
    points = np.stack([x * z / focal, y * z / focal, z], axis=-1)
    world = points @ camera.rotation() + np.asarray(camera.eye)
    seen = (world - np.asarray(after.eye)) @ after.rotation().T
    u = (seen[..., 0] / seen[..., 2] * focal + width / 2 - 0.5).astype(np.float32)
    v = (seen[..., 1] / seen[..., 2] * focal + height / 2 - 0.5).astype(np.float32)
    there = cv2.remap(depth_after.astype(np.float32), u, v, cv2.INTER_NEAREST, borderValue=np.nan)
    good = np.isfinite(depth_m) & (np.abs(there - seen[..., 2]) < 0.02 * seen[..., 2])
    return np.where(good, u, np.nan), np.where(good, v, np.nan)


def flicker(maps: list[np.ndarray], depths: list[np.ndarray], cameras: list[Camera]) -> tuple[float, float]:
    """Estimates [H, W] of a clip -> its flicker, and its mean relative error."""
    given, wanted = np.stack(maps).astype(np.float64), np.stack(depths)
    known = np.isfinite(wanted)
    weight = 1 / wanted[known]  # relative errors
    design = np.stack([given[known] * weight, weight], axis=1)
    scale, shift = np.linalg.lstsq(design, np.ones(weight.size), rcond=None)[0]
    errors = ((scale * given + shift) / np.where(known, wanted, 1) - 1).astype(np.float32)
    changes = []
    for k in range(len(maps) - 1):
        u, v = track(depths[k], cameras[k], cameras[k + 1], depths[k + 1])
        after = cv2.remap(errors[k + 1], u, v, cv2.INTER_LINEAR, borderValue=np.nan)
        changes.append(np.abs(after - errors[k])[np.isfinite(after) & np.isfinite(u)])
    return float(np.concatenate(changes).mean()), float(np.abs(errors[known]).mean())


def main() -> None:
    """Measure and print a line a clip and the means."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--clips", type=int, default=3)
    reader.add_argument("--frames", type=int, default=16)
    reader.add_argument("--steps", type=int, default=1)
    reader.add_argument("--model", default="nano")
    options = reader.parse_args()
    pipe, settings = load(options.model), Settings(num_inference_steps=options.steps)
    variants = {"frame by frame": None, "steadied": VideoSettings(video_formats=("png16",))}
    variants |= {
        "aligned alone": VideoSettings(video_formats=("png16",), averaging=0.0),
        "with carry": VideoSettings(video_formats=("png16",), carry=0.1),
    }
    rows = []
    for seed in range(options.clips):
        pictures, depths, cameras = render(seed, options.frames)
        row: dict[str, float] = {"clip": seed}
        for name, video in variants.items():
            if video is None:
                maps = [pipe(picture, settings).values for picture in pictures]
            else:
                maps = steadied(pipe, pictures, settings, video)
            row[name], row[f"{name}, error"] = flicker(maps, depths, cameras)
        rows.append(row)
        print(json.dumps({name: round(value, 4) for name, value in row.items()}), flush=True)
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name != "clip"}
    print(json.dumps({name: round(value, 4) for name, value in means.items()}))
    print(f"steadied over frame by frame: {means['steadied'] / means['frame by frame']:.2f}")


def steadied(pipe, frames: list[np.ndarray], settings: Settings, video: VideoSettings) -> list[np.ndarray]:
    """The maps that ``predict_video`` makes of a clip."""
    with TemporaryDirectory() as folder:
        source = write_clip(Path(folder) / "clip.mkv", frames, codec="ffv1")
        made = predict_video(pipe, source, Path(folder) / "out", settings, video)
        assert (made.folder / RECORD).exists()
        files = sorted(made.files["png16"].iterdir())
        pictures = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]
        return [np.asarray(picture, np.float32) / 65535 for picture in pictures]


if __name__ == "__main__":
    main()

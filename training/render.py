"""Renders scenes into shards: ``python -m training.render --out data/scenes --count 24000 --seed 1``.

A shard is a function of (seed, its number, the settings, the assets folder), so a killed run continues with the shards
that are missing, and a larger ``--count`` adds shards to the same folder. A folder holds shards of one seed and one
choice of settings. Every sixth shard holds portrait pictures.
"""

import hashlib
import json
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from pydantic import Field

from marigold_core.errors import MarigoldError, SettingsError
from marigold_core.settings import Frozen
from training.data.sets.rendered import Shard, View, write_shard
from training.engine.command import run
from training.engine.workers import end_with_parent, locked, say_disk_need
from training.scenes import KINDS, Kind, make_scene
from training.scenes.assets import Assets
from training.scenes.light import Light, harsh
from training.scenes.rasterizer import rasterizer
from training.scenes.types import Camera

PORTRAIT_EVERY = 6
CLOSE_M, CLOSE_SHARE = 0.28, 0.02
SKY_SHARE = 0.7
PIXEL_BYTES = 13  # of the six arrays of a shard
INDEX = "index.json"  # of an assets folder
PATIENCE = 100  # scenes without a good view after which the renderer must be broken


class RenderSettings(Frozen):
    """What a shard depends on, beside its number."""

    seed: int = Field(default=1, ge=0, description="shards are a function of it, of their number and of these settings")
    width: int = Field(default=256, ge=32, multiple_of=32, description="of landscape pictures, pixels")
    height: int = Field(default=192, ge=32, multiple_of=32, description="of landscape pictures, pixels")
    views_per_scene: int = Field(default=4, ge=1, description="pictures of one scene, at most")
    assets: str | None = Field(
        default=None, description="folder with index.json, models and textures; auto: primitives only"
    )
    kinds: tuple[Kind, ...] = Field(default=tuple(KINDS), min_length=1, description="of scenes, by their weights")
    shard_samples: int = Field(default=256, ge=1, description="pictures a shard")
    light: Light = Field(default="usual", description="harsh: the same scenes in hard, coloured light and thick haze")

    def size(self, shard: int) -> tuple[int, int]:
        """Shard number -> (width, height) of its pictures."""
        portrait = shard % PORTRAIT_EVERY == PORTRAIT_EVERY - 1
        return (self.height, self.width) if portrait else (self.width, self.height)

    def recorded(self) -> dict[str, object]:
        """Return what a shard records: the settings as JSON, with the sha256 of the assets' index, or False."""
        index = (Path(self.assets) / INDEX).read_bytes() if self.assets else b""
        found = hashlib.sha256(index).hexdigest() if self.assets else False
        return json.loads(json.dumps(self.model_dump() | {"assets": found}))


class Work(Frozen):
    """Number of pictures and of processes."""

    count: int = Field(default=24_000, ge=1, description="pictures, rounded up to whole shards")
    workers: int = Field(default=1, ge=1, description="processes")


def worth_keeping(view: View) -> bool:
    """Return whether a view is useful: not inside an object, of sky alone, of a bare wall, or dark."""
    depth = view.depth_m
    seen = depth[np.isfinite(depth)]
    if len(seen) < (1 - SKY_SHARE) * depth.size or np.mean(depth < CLOSE_M) > CLOSE_SHARE:
        return False
    near, far = np.quantile(seen[::7], [0.02, 0.98])
    sky = len(seen) < 0.98 * depth.size
    bright = view.rgb[::4, ::4].mean()
    contrast = view.rgb[::4, ::4].std()
    return (sky or far / near > 1.15) and 25 < bright < 235 and contrast > 10


class SceneRenderer:
    """Renders pictures scene after scene with one set of loaded assets."""

    def __init__(self, settings: RenderSettings):
        self.settings = settings
        self.assets = Assets(Path(settings.assets) if settings.assets else None)
        self.rasterizer = rasterizer()

    def pictures(self, seed: tuple[int, ...], size: tuple[int, int]) -> list[tuple[str, Camera, View]]:
        """Seed numbers and (width, height) -> up to ``views_per_scene`` good views of one scene."""
        scene = make_scene(seed, self.assets, self.settings.kinds)
        if self.settings.light == "harsh":
            scene.lighting = harsh(scene.lighting, np.random.default_rng((*seed, 1)))
        views = self.rasterizer.views(scene, size)
        useful = ((scene.kind, camera, view) for camera, view in views if worth_keeping(view))
        return list(islice(useful, self.settings.views_per_scene))

    def shard(self, out: Path, number: int) -> None:
        """Render and write one shard."""
        size, samples = self.settings.size(number), self.settings.shard_samples
        rows, scenes, scene = [], [], 0
        while len(rows) < samples:
            if scene > PATIENCE + len(rows):
                raise RuntimeError(f"{scene} scenes gave {len(rows)} useful pictures: the renderer draws nothing")
            rows += self.pictures((self.settings.seed, number, scene), size)[: samples - len(rows)]
            scenes += [scene] * (len(rows) - len(scenes))
            scene += 1
        spans = [2 * np.degrees(np.arctan(size[0] / 2 / camera.focal_px(*size))) for _, camera, _ in rows]
        meta = {
            "shard": number,
            "settings": self.settings.recorded(),
            "kinds": [kind for kind, _, _ in rows],
            "scenes": scenes,
            "fov_x_deg": spans,
        }
        write_shard(out / f"shard_{number:05d}", [view for _, _, view in rows], meta)


def render_some(settings: RenderSettings, out: Path, numbers: list[int], announce: bool) -> None:
    """Render the shards of the given numbers, one after another, in this process."""
    renderer, start = SceneRenderer(settings), time.monotonic()
    for done, number in enumerate(numbers, start=1):
        renderer.shard(out, number)
        if announce:
            spent = time.monotonic() - start
            rate, left = done * settings.shard_samples / spent, spent / done * (len(numbers) - done)
            print(f"shard {number}: {done}/{len(numbers)}, {rate:.1f} pictures/s, {left / 60:.1f} min left", flush=True)


def render(settings: RenderSettings, out: Path, count: int, workers: int = 1) -> int:
    """Fill a folder with at least ``count`` pictures in whole shards -> how many shards were made now.

    Raises: MarigoldError without EGL, without disk space, when another process works in the folder, and when it holds
    shards of another seed or other settings.
    """
    with locked(out):
        _check_shards(out, settings.recorded())
        total = -(-count // settings.shard_samples)
        missing = [k for k in range(total) if not (out / f"shard_{k:05d}").exists()]
        pictures = len(missing) * settings.shard_samples
        if 0 < len(missing) < total:
            print(f"Going on: {total - len(missing)} of {total} shards are there", flush=True)
        size_bytes = pictures * settings.width * settings.height * PIXEL_BYTES
        say_disk_need(out, size_bytes, f"{pictures:,} pictures need", must=True)
        if workers == 1:
            render_some(settings, out, missing, announce=True)
            return len(missing)
        shares = [missing[k::workers] for k in range(workers)]
        pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=end_with_parent)
        try:
            jobs = [pool.submit(render_some, settings, out, share, k == 0) for k, share in enumerate(shares)]
            for job in jobs:
                job.result()
        finally:
            pool.shutdown(cancel_futures=True)
        return len(missing)


def _check_shards(out: Path, settings: dict[str, object]) -> None:
    """Compare the settings that shards were rendered with. Raises: MarigoldError naming what differs."""
    for path in sorted(out.glob("shard_*")):
        there = Shard(path).meta.get("settings")
        if not isinstance(there, dict):
            raise MarigoldError(f"{path} was not written by training.render: give another --out.")
        made: dict[str, object] = {**there}
        if made.get("assets") is True and settings["assets"]:  # older shards tell only whether there were assets
            made["assets"] = settings["assets"]
        for name, now in settings.items():
            if made.get(name, RenderSettings().recorded()[name]) != now:  # older shards lack what was added since
                raise MarigoldError(
                    f"{out} holds shards that were rendered with another {name} ({made.get(name)}, now {now}): use the "
                    "same settings, or another --out."
                )


def check_assets(folder: Path | str | None) -> None:
    """Check that a folder of assets, where one is given, has an index that can be read. Raises: SettingsError."""
    if folder is None:
        return
    if not (Path(folder) / INDEX).is_file():
        raise SettingsError(f"{folder} has no {INDEX}; leave --assets out to render from primitives.")
    try:
        Assets(Path(folder))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{Path(folder) / INDEX} is no list of assets: {error!r}.") from None


def main(out: Path, work: Work, settings: RenderSettings) -> None:
    """Render scenes for training; the same command goes on where it was stopped, a larger count adds shards.

    Args:
        out: folder for the shards.
        work: how much.
        settings: what a shard depends on.
    """
    check_assets(settings.assets)
    print(f"{render(settings, out, work.count, work.workers)} shards made")


if __name__ == "__main__":
    run(main, "python -m training.render")

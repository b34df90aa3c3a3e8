"""The displacement network's training: what it learns from, and that it learns."""

from pathlib import Path

import numpy as np
import pytest
import torch

from marigold_core import load
from marigold_core.errors import MarigoldError
from tests.helpers.training_runs import lines
from training.data.outlines import with_true_outlines
from training.data.sets.rendered import View, write_shard
from training.displacement import train_displacement
from training.engine.addition import MAPS, RECORD, Task
from training.recipe import DisplacementRecipe

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("one_thread")]

QUICK = DisplacementRecipe(
    steps=40,
    batch_size=2,
    lr=1.5e-3,
    warmup_steps=1,
    cooldown_steps=2,
    ema_decay=0.0,
    pictures=8,
    crop_px=32,
    figure_steps=20,
)
HEIGHT, WIDTH, EDGE = 48, 64, 32
COLUMNS = torch.arange(WIDTH)


def blurred(column: float, width: float = 3.0) -> torch.Tensor:
    """[H, W]: from 0.2 to 0.8 around a column."""
    return (0.5 + 0.3 * torch.tanh((COLUMNS + 0.5 - column) / width)).expand(HEIGHT, WIDTH).contiguous()


def wall_before(far_m: float) -> torch.Tensor:
    """[H, W] metres: 2 left of ``EDGE``, ``far_m`` right of it."""
    return torch.where(COLUMNS < EDGE, 2.0, far_m).expand(HEIGHT, WIDTH).contiguous()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of a dark wall before a bright one, or before the sky."""
    folder = tmp_path_factory.mktemp("scenes")
    views = []
    for number in range(8):
        depth = wall_before(float("inf") if number % 2 else 9.0).roll(number, dims=1).numpy()
        rgb = np.where(depth[..., None] < 3, (60, 50, 40), (170, 180, 190)).astype(np.uint8)
        normals = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        views.append(View(rgb, depth, normals, np.zeros((HEIGHT, WIDTH), np.uint8)))
    write_shard(folder / "shard_00000", views, {"kinds": ["wall"] * 8, "fov_x_deg": [60.0] * 8})
    return folder


@pytest.mark.parametrize("off_px", [-2.0, 0.0, 2.0])
@pytest.mark.parametrize("far_m", [4.0, float("inf")])
def test_a_blurred_jump_is_wanted_where_the_truth_has_it(off_px: float, far_m: float) -> None:
    wanted = with_true_outlines(blurred(EDGE + off_px), wall_before(far_m))[HEIGHT // 2]
    assert wanted[:EDGE].max() < 0.35 and wanted[EDGE:].min() > 0.65
    far = torch.cat([wanted[:8], wanted[-8:]])
    torch.testing.assert_close(far, torch.cat([blurred(EDGE + off_px)[0, :8], blurred(EDGE + off_px)[0, -8:]]))


def test_without_a_jump_in_the_truth_or_in_the_map_nothing_is_wanted() -> None:
    map_ = blurred(EDGE)
    torch.testing.assert_close(with_true_outlines(map_, torch.full((HEIGHT, WIDTH), 3.0)), map_)
    flat = torch.full((HEIGHT, WIDTH), 0.4)
    torch.testing.assert_close(with_true_outlines(flat, wall_before(9.0)), flat)


def test_it_learns_and_the_result_opens(tiny_depth: Path, scenes: Path, tmp_path: Path) -> None:
    task = Task(str(tiny_depth), scenes, tmp_path / "run", device="cpu")
    for number in range(8):  # as if the checkpoint saw the walls, but blurred
        path = tmp_path / "run" / MAPS / f"{number:06d}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        map_ = blurred(EDGE).roll(number, dims=1)
        np.save(
            path, torch.stack([map_, with_true_outlines(map_, wall_before(9.0).roll(number, dims=1))]).half().numpy()
        )
    folder = train_displacement(task, QUICK)
    logged = [line for line in lines(task.out) if "error" in line]
    shares = [line["error"] / line["error_before"] for line in logged]
    assert np.mean(shares[-4:]) < 0.85 < shares[0]
    assert {path.name for path in (task.out / "samples").iterdir()} == {"step_00000020.png", "step_00000040.png"}
    assert (task.out / "curves.png").stat().st_size > 10_000
    assert load(folder, device="cpu").displacement is not None


def test_its_own_maps_are_predicted_once_and_are_those_of_one_checkpoint(
    tiny_depth: Path, tiny_depth_leading: Path, scenes: Path, tmp_path: Path
) -> None:
    recipe = QUICK.changed(steps=1, cooldown_steps=0)
    task = Task(str(tiny_depth), scenes, tmp_path / "run", device="cpu")
    (task.out / MAPS).mkdir(parents=True)
    (task.out / MAPS / ".0123.marigold-unfinished").write_bytes(b"half of a map")  # as a killed process leaves it
    train_displacement(task, recipe)
    maps = sorted((task.out / MAPS).iterdir())
    assert len(maps) == 8 and np.load(maps[0]).shape == (2, HEIGHT, WIDTH) and (task.out / RECORD).exists()
    with pytest.raises(MarigoldError, match="another checkpoint or data"):
        train_displacement(Task(str(tiny_depth_leading), scenes, task.out, device="cpu"), recipe)

"""Nothing is lost: runs that are killed, told to stop, starved of disk or of data."""

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from diffusers import ModelMixin

from marigold_core.errors import ExportError, MarigoldError
from tests.helpers.training_runs import (
    ALWAYS,
    RECIPE,
    begin,
    curve,
    end,
    last_step,
    lines,
    log,
    newest,
    step_lines,
    unwatched,
    wait_for,
    weights,
)
from tests.training.conftest import TaskFor
from training import train as train_module
from training.data import latent_cache
from training.data.sampling import Latents
from training.engine import checkpoints
from training.recipe import Recipe
from training.train import Task, train

LONG = RECIPE.changed(steps=64, cooldown_steps=10)
SHORT = RECIPE.changed(steps=6)
PAUSED = ".paused"


pytestmark = pytest.mark.usefixtures("one_thread", "no_validation")


@pytest.fixture(autouse=True)
def without_survivors() -> Iterator[None]:
    yield
    for process in multiprocessing.active_children():  # of a test that failed
        process.kill()
        process.join()


def finished(task: Task, recipe: Recipe) -> Path:
    """The uninterrupted run of the same recipe, in this process."""
    whole = replace(task, out=task.out.with_name("whole"))
    train(whole, recipe)
    return whole.out


def check_all(run: Path) -> None:
    for folder in run.glob("step_*"):
        checkpoints.check(folder)


# ------------------------------------------------------------------------------------------- killed


def pause_in_a_half_written_file(run: Path) -> None:
    write = checkpoints.save_file

    def half(state: dict, path: Path) -> None:
        write(state, path)
        os.truncate(path, path.stat().st_size // 2)
        _pause(run)

    checkpoints.save_file = half


def pause_in_a_half_removed_folder(run: Path) -> None:
    def half(folder: Path, **_: object) -> None:
        (folder / checkpoints.STATE).unlink(missing_ok=True)
        if "step_" in folder.name and folder.exists():
            _pause(run)

    checkpoints.shutil.rmtree = half  # type: ignore


def pause_after(name: str, run: Path) -> None:
    function = getattr(checkpoints, name)

    def slow(*words, **named):
        result = function(*words, **named)
        _pause(run)
        return result

    setattr(checkpoints, name, slow)


def _pause(run: Path) -> None:
    run.with_suffix(PAUSED).touch()
    time.sleep(1e6)


PAUSES = [
    partial(pause_after, "link_parts"),  # before anything is written
    pause_in_a_half_written_file,
    partial(pause_after, "save_file"),  # before the checksums
    partial(pause_after, "write_checksums"),  # before the name
    pause_in_a_half_removed_folder,
]


@pytest.mark.slow
def test_twenty_kills_change_nothing(task: Task) -> None:
    seed = 20
    print("seed", seed)
    rng = np.random.default_rng(seed)
    recipe = LONG.changed(save_minutes=0.1 / 60)
    whole = finished(task, LONG)
    order = [None] * 15 + PAUSES
    kills = 0
    for number in [0, *(1 + rng.permutation(len(order) - 1))]:  # the first at random: the forced ones need a past
        pause, marker = order[number], task.out.with_suffix(PAUSED)
        marker.unlink(missing_ok=True)
        begun_at = last_step(task.out)
        process = begin(task, recipe, pause)
        if pause is None:
            ahead, offset_s = begun_at + int(rng.integers(1, 3)), rng.uniform(0, 0.1)
            wait_for(lambda ahead=ahead: last_step(task.out) >= ahead, process)
            time.sleep(offset_s)
        else:
            wait_for(marker.exists, process)
        process.kill()
        assert end(process) == -signal.SIGKILL
        kills += 1
        check_all(task.out)
    assert kills == 20
    assert last_step(task.out) < LONG.steps
    assert end(begin(task, recipe)) == 0, log(task)
    assert "damaged" not in log(task)
    assert curve(task.out) == curve(whole)
    assert len(curve(whole)) == LONG.steps
    assert weights(newest(task.out)) == weights(newest(whole))
    assert list(task.out.glob(".step_*")) == []


def test_after_a_damaged_checkpoint_the_one_before_is_gone_on_from(
    task: Task, capsys: pytest.CaptureFixture[str]
) -> None:
    every = SHORT.changed(save_minutes=ALWAYS)
    before = weights(train(task, every))
    path = newest(task.out) / checkpoints.STATE
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert weights(train(task, every)) == before
    assert f"step_{SHORT.steps:08d} is damaged and not used" in capsys.readouterr().err
    for folder in task.out.glob("step_*"):
        (folder / checkpoints.STATE).unlink()
    with pytest.raises(checkpoints.CheckpointError, match="All checkpoints"):
        train(task, every)


def test_newer_damaged_checkpoints_do_not_crowd_out_good_ones_and_other_files_stay(task: Task) -> None:
    mine = task.out / ".step_notes" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("x")
    train(task, SHORT.changed(steps=3, save_minutes=ALWAYS))  # steps 2 and 3
    for step in (8, 9):
        shutil.copytree(newest(task.out), checkpoints.folder_of(task.out, step))
        (checkpoints.folder_of(task.out, step) / checkpoints.STATE).write_bytes(b"")
    assert train(task, SHORT.changed(save_minutes=ALWAYS)).name == "step_00000006"
    good = [checkpoints.step_of(folder) for folder in sorted(task.out.glob("step_*"))]
    assert good == [5, 6, 8, 9]
    assert mine.read_text() == "x"


# ------------------------------------------------------------------------------------------- the disk is full


def limit_files(size_bytes: int, steps: set[int]) -> None:
    """Let no file grow beyond a size while this process saves some steps; SIGXFSZ is ignored in Python."""
    save = checkpoints.save

    def limited(run: Path, base: Path, part: str, network: ModelMixin, step: int, *rest, **named) -> Path:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes if step in steps else before[0], before[1]))
        try:
            return save(run, base, part, network, step, *rest, **named)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    checkpoints.save = limited


@pytest.fixture(scope="module")
def two_steps(tiny_depth: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended after two steps."""
    task = Task(str(tiny_depth), tmp_path_factory.mktemp("two") / "run", latents=(data,), device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "ValidationCallback", unwatched)
        train(task, SHORT.changed(steps=2))
    return task.out


@pytest.mark.parametrize("size_bytes", [0, 600, 100_000, 800_000, 1_500_000])
def test_a_full_disk_costs_a_checkpoint_but_not_the_run(
    size_bytes: int, two_steps: Path, task: Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(two_steps, task.out)
    two = weights(newest(task.out))
    every = SHORT.changed(save_minutes=ALWAYS)
    monkeypatch.setattr(checkpoints, "save", checkpoints.save)  # put back afterwards
    limit_files(size_bytes, {3, 4, 5, 7, 8})
    assert checkpoints.step_of(train(task, every)) == 6  # steps 3 to 5 could not be saved, the last could
    refused = [line for line in capsys.readouterr().err.splitlines() if line.startswith("NOT SAVED")]
    assert len(refused) == 3
    assert all("disk" in line and "MB are free" in line for line in refused)
    assert [folder.name for folder in sorted(task.out.glob("step_*"))] == ["step_00000002", "step_00000006"]
    assert weights(task.out / "step_00000002") == two
    assert list(task.out.glob(".step_*")) == []
    # Never saved: the run says so in the end.
    with pytest.raises(checkpoints.SaveError, match="disk"):
        train(task, SHORT.changed(steps=8))
    check_all(task.out)
    assert newest(task.out).name == "step_00000006"


def test_room_is_looked_for_before_anything_is_written(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: found._replace(free=3_000_000))
    with pytest.raises(checkpoints.SaveError, match=r"disk is nearly full: a checkpoint needs [\d.]+ MB and 3 MB"):
        train(task, SHORT.changed(steps=1))
    assert list(task.out.glob("*step_*")) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB, which takes two checkpoints and a half."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, timeout=20, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], timeout=20, check=True)


@pytest.mark.parametrize("spare_room", [1.5, 0.0])
def test_a_disk_that_fills_up(
    spare_room: float, small_disk: Path, task_for: TaskFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without the look at the room beforehand."""
    monkeypatch.setattr(checkpoints, "SPARE_ROOM", spare_room)
    task = task_for(small_disk / "run")
    with pytest.raises(checkpoints.SaveError, match="disk"):
        train(task, SHORT.changed(save_minutes=ALWAYS))
    check_all(task.out)
    kept = newest(task.out)
    assert checkpoints.step_of(kept) < SHORT.steps
    assert list(task.out.glob(".step_*")) == []
    assert [line["step"] for line in step_lines(task.out)][-1] == SHORT.steps  # it went on to the end


# ------------------------------------------------------------------------------------------- told to stop


def test_signals_at_random_moments_save_and_end(task: Task) -> None:
    rng = np.random.default_rng(58)
    recipe = LONG.changed(steps=40)
    whole = finished(task, recipe)
    for number in range(10):
        begun_at = last_step(task.out)
        process = begin(task, recipe)
        wait_for(lambda ahead=begun_at + 1: last_step(task.out) >= ahead, process)
        time.sleep(rng.uniform(0, 0.1))
        asked = (signal.SIGTERM, signal.SIGINT)[number % 2]
        os.kill(process.pid or 0, asked)
        assert end(process, 10) == {signal.SIGTERM: 0, signal.SIGINT: 130}[asked], log(task)
        assert checkpoints.step_of(newest(task.out)) == last_step(task.out)
    assert last_step(task.out) < recipe.steps
    train(task, recipe)
    assert curve(task.out) == curve(whole)
    assert weights(newest(task.out)) == weights(newest(whole))


def test_a_signal_to_the_whole_group_reaches_no_worker(task_for: TaskFor) -> None:
    """As schedulers of clusters, service managers and terminals send it."""
    task = task_for(workers=1, loader_timeout_s=5.0)
    process = begin(task, LONG.changed(steps=100_000))
    wait_for(lambda: last_step(task.out) >= 2, process)
    os.killpg(process.pid or 0, signal.SIGTERM)
    assert end(process, 10) == 0, log(task)
    assert checkpoints.step_of(newest(task.out)) == last_step(task.out)


def test_time_over_saves_and_ends(task_for: TaskFor) -> None:
    task = task_for(minutes=0.0)
    assert checkpoints.step_of(train(task, SHORT)) == 1
    assert checkpoints.step_of(train(task, SHORT)) == 2


# ------------------------------------------------------------------------------------------- workers of the loader


def read_slowly(run: Path) -> None:
    """A picture that takes for ever, as on a network drive that is gone."""
    read = Latents.read

    def slow(self: Latents, items: list[int], place: tuple[int, ...]):
        if place[1] == 6:
            time.sleep(1e6)
        return read(self, items, place)

    Latents.read = slow  # type: ignore


def test_a_stuck_worker_ends_the_run(task_for: TaskFor) -> None:
    task = task_for(workers=1, loader_timeout_s=1.0)
    began = time.monotonic()
    assert end(begin(task, SHORT, read_slowly)) == 2
    assert time.monotonic() - began < 30
    assert "timed out" in log(task)
    assert "latents: picture" in log(task)  # what was awaited
    assert "Traceback" not in log(task)


def test_a_killed_worker_ends_the_run(task_for: TaskFor) -> None:
    task = task_for(workers=1, loader_timeout_s=1.0)
    process = begin(task, LONG.changed(steps=100_000))
    wait_for(lambda: last_step(task.out) >= 2, process)
    (worker,) = psutil.Process(process.pid).children()
    worker.kill()
    assert end(process) == 2
    assert f"worker (pid(s) {worker.pid}) exited" in log(task)
    assert "latents: picture" in log(task)
    assert "Traceback" not in log(task)


# ------------------------------------------------------------------------------------------- who may train, and faults


def test_a_second_trainer_is_refused_and_a_crash_leaves_no_lock(task_for: TaskFor) -> None:
    task = task_for(workers=1)  # workers outlive a trainer that is killed
    first = begin(task, LONG.changed(steps=100_000))
    wait_for(lambda: last_step(task.out) >= 2, first)
    assert end(begin(task, LONG.changed(steps=100_000))) == 2
    assert "Another process trains in run" in log(task)
    first.kill()
    assert end(first) == -signal.SIGKILL
    assert end(begin(task, LONG.changed(steps=4))) == 0, log(task)
    check_all(task.out)


def fail(run: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault of the program")

    train_module.velocity_loss = broken  # type: ignore


def test_a_fault_of_the_program_keeps_its_trace(task: Task) -> None:
    assert end(begin(task, SHORT, fail)) == 1
    assert "Traceback" in log(task)
    assert "a fault of the program" in log(task)


KILLED_THRICE = """
import os, signal, sys
from pathlib import Path
from training import train as module
from training.recipe import Recipe

start, data, out, recipe = sys.argv[1:]
compute = module.velocity_loss

def deadly(*words, micro, **named):
    marker = Path(out).with_name(f"killed_at_{micro}")
    if micro in (3, 6, 9) and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(*words, micro=micro, **named)

module.velocity_loss = deadly
task = module.Task(start, Path(out), latents=(Path(data),), device="cpu")
module.train(task, Recipe.model_validate_json(recipe))
"""


@pytest.mark.slow
def test_torchrun_starts_a_killed_process_again(task: Task, tiny_depth: Path, data: Path, tmp_path: Path) -> None:
    recipe = SHORT.changed(save_minutes=ALWAYS)
    whole = finished(task, recipe)
    script = tmp_path / "killed_thrice.py"
    script.write_text(KILLED_THRICE)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=3"]
    ended = subprocess.run(
        [*torchrun, str(script), str(tiny_depth), str(data), str(task.out), recipe.model_dump_json()],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert sorted(path.name for path in tmp_path.glob("killed_at_*")) == ["killed_at_3", "killed_at_6", "killed_at_9"]
    assert curve(task.out) == curve(whole)
    assert weights(newest(task.out)) == weights(newest(whole))


def test_what_a_refused_training_left_does_not_block_the_corrected_one(task: Task, tmp_path: Path) -> None:
    wrong = replace(task, start_from="new:tiny")  # another autoencoder than that of the latents
    with pytest.raises(MarigoldError, match="made by another autoencoder"):
        train(wrong, SHORT)
    newest = train(task, SHORT.changed(seed=9))
    assert checkpoints.step_of(newest) == SHORT.steps


def test_going_on_names_the_step(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    train(task, SHORT)
    assert "Going on" not in capsys.readouterr().out
    train(task, SHORT.changed(steps=SHORT.steps + 1))
    printed = capsys.readouterr().out
    assert f"Going on from step {SHORT.steps} of {SHORT.steps + 1}" in printed
    assert "Checkpoints need up to" in printed
    made = step_lines(task.out)
    assert [line["samples"] for line in made] == [SHORT.batch_size * (number + 1) for number in range(len(made))]
    assert all("time" in line for line in lines(task.out))


def test_files_of_the_users_in_a_run_stay_and_confuse_nothing(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    train(task, SHORT.changed(steps=1))
    mine = [task.out / name for name in ("step_00000001/notes.txt", "step_notes/a.txt", "samples/step_mine.png")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    for steps in (2, 3, 4):
        assert checkpoints.step_of(train(task, SHORT.changed(steps=steps))) == steps
    assert [path.read_text() for path in mine] == ["mine"] * 3
    assert "step_00000001 is not removed: training did not write notes.txt in it." in capsys.readouterr().err
    assert [*checkpoints.saved(task.out)] == [1, 3, 4]
    assert checkpoints.choose(task.out, "newest").source == checkpoints.latest(task.out) == newest(task.out)
    with pytest.raises(MarigoldError, match="one of 1, 3, 4"):
        checkpoints.choose(task.out, "notes")


def test_a_shard_of_latents_with_a_file_of_the_users_is_not_replaced(tmp_path: Path) -> None:
    latent_cache.write_latents(tmp_path / "shard", {"image": np.zeros(1)}, ["a"])
    (tmp_path / "shard" / "mine.npy").write_bytes(b"mine")
    with pytest.raises(ExportError, match=r"holds mine\.npy, which would be deleted"):
        latent_cache.write_latents(tmp_path / "shard", {"image": np.zeros(2)}, ["a", "b"])
    assert (tmp_path / "shard" / "mine.npy").read_bytes() == b"mine" and len(np.load(tmp_path / "shard/image.npy")) == 1

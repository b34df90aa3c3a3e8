"""The loop: a run that was stopped anywhere ends like one that was not; what a step does, and what it refuses to do."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor

from marigold_core import load
from marigold_core.errors import MarigoldError
from tests.helpers.training_runs import ALWAYS, RECIPE, Killed, curve, lines, newest, step_lines, weights, write_latents
from training import train as train_module
from training.engine import checkpoints, command, fingerprint, processes
from training.engine.loop import DivergedError
from training.engine.losses import velocity_loss
from training.recipe import Recipe
from training.start import new_checkpoint
from training.train import Task, train

pytestmark = pytest.mark.usefixtures("one_thread", "no_validation")


def at(where: int | Callable[[int], bool], what: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """The loss, and something done to it at one micro-batch or at those of a condition."""

    def loss(*words, micro: int, **named) -> Tensor:
        value = velocity_loss(*words, micro=micro, **named)
        return what(value) if (where(micro) if callable(where) else micro == where) else value

    return loss


# ------------------------------------------------------------------------------------------- stopped


def terminate(value: Tensor) -> Tensor:
    for _ in range(2):  # torchrun passes on a signal that its processes got as well
        signal.raise_signal(signal.SIGTERM)
    return value


def kill(value: Tensor) -> Tensor:
    raise Killed


@pytest.mark.parametrize(
    ("micro", "how", "step"),
    [
        pytest.param(0, terminate, 1, id="after step 1"),
        pytest.param(8, terminate, 5, id="in mid-epoch"),
        pytest.param(5, terminate, 3, id="after the last batch of an epoch"),
        pytest.param(6, terminate, 4, id="before a step has its second micro-batch"),
        pytest.param(7, kill, 3, id="killed inside accumulation"),
    ],
)
def test_a_run_stopped_anywhere_ends_the_same(
    micro: int, how: Callable, step: int, task: Task, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE.changed(save_minutes=ALWAYS)
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "velocity_loss", at(micro, how))
        try:
            train(task, recipe)
        except Killed:
            assert how is kill
    assert checkpoints.step_of(newest(task.out)) == step
    train(task, recipe)
    assert curve(task.out) == curve(whole)
    assert weights(newest(task.out)) == weights(newest(whole))


def test_a_run_killed_before_its_first_checkpoint_begins_again(
    task: Task, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "velocity_loss", at(9, kill))
        with pytest.raises(Killed):
            train(task, RECIPE)
    assert len(curve(task.out)) == 4
    train(task, RECIPE)
    assert curve(task.out) == curve(whole)


def test_a_finished_run_is_left_as_it_is(whole: Path, task: Task) -> None:
    before = {path: path.stat().st_mtime_ns for path in newest(whole).rglob("*")}
    log = (whole / "metrics.jsonl").read_bytes()
    again = train(replace(task, out=whole), RECIPE)
    assert {path: path.stat().st_mtime_ns for path in again.rglob("*")} == before
    assert (whole / "metrics.jsonl").read_bytes() == log


def test_another_seed_gives_another_run(task: Task, whole: Path) -> None:
    train(task, RECIPE.changed(seed=6))
    assert curve(task.out) != curve(whole)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_run(workers: int, task: Task, whole: Path) -> None:
    train(replace(task, workers=workers), RECIPE)
    assert curve(task.out) == curve(whole)
    assert weights(newest(task.out)) == weights(newest(whole))


def interrupt(value: Tensor) -> Tensor:
    for _ in range(2):
        signal.raise_signal(signal.SIGINT)
    return value


def test_sigint_saves_and_is_passed_on(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "velocity_loss", at(2, interrupt))
    with pytest.raises(KeyboardInterrupt):
        train(task, RECIPE)
    assert checkpoints.step_of(newest(task.out)) == 2


def test_a_second_ctrl_c_does_not_wait_for_the_checkpoint(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "velocity_loss", at(2, interrupt))
    monkeypatch.setattr(processes, "ECHO_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train(task, RECIPE)
    assert not list(task.out.glob("step_*"))


# ------------------------------------------------------------------------------------------- not finite


def spoil_loss(value: Tensor) -> Tensor:
    return value * float("nan")


def overflow_loss(value: Tensor) -> Tensor:
    return value * float("inf")


def spoil_gradient(value: Tensor) -> Tensor:
    return value + (value * 0).sqrt()  # 0, with an infinite slope


@pytest.mark.parametrize("spoil", [spoil_loss, overflow_loss, spoil_gradient])
def test_a_step_that_is_not_finite_changes_nothing(
    spoil: Callable, task: Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_module, "velocity_loss", at(5, spoil))
    train(task, RECIPE.changed(steps=3, save_minutes=ALWAYS))
    assert weights(task.out / "step_00000003") == weights(task.out / "step_00000002")
    assert [line["skipped"] for line in step_lines(task.out)] == [False, False, True]
    (event,) = (line for line in lines(task.out) if line.get("event") == "skipped")
    assert event["step"] == 3
    assert len(event["names"]) == RECIPE.batch_size
    assert f"Step 3 is skipped: loss or gradient is not finite ({event['names'][0]}" in capsys.readouterr().err
    train(task, RECIPE)  # and it goes on
    assert weights(newest(task.out)) != weights(task.out / "step_00000003")
    assert all(value.isfinite().all() for value in checkpoints.load_state(newest(task.out)).values())


def test_a_spoiled_picture_is_named_each_time_it_is_seen(task: Task, tiny_depth: Path, tmp_path: Path) -> None:
    task = replace(task, latents=(write_latents(tmp_path / "latents", tiny_depth, bad=1),))
    train(task, RECIPE.changed(steps=6))  # two epochs
    events = [line for line in lines(task.out) if line.get("event") == "skipped"]
    assert len(events) == 2
    assert all("latents: picture0" in event["names"] for event in events)
    assert all(value.isfinite().all() for value in checkpoints.load_state(newest(task.out)).values())


def test_three_bad_steps_in_a_row_end_the_run(
    task: Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_module, "velocity_loss", at(lambda micro: micro >= 6, spoil_loss))
    recipe = RECIPE.changed(save_minutes=ALWAYS)

    def main() -> None:
        """Train."""
        train(task, recipe)

    with pytest.raises(SystemExit) as ended:
        command.run(main, "train", [])
    assert ended.value.code == DivergedError.exit_code == 4
    said = capsys.readouterr().err.splitlines()[-1]
    assert "3 steps in a row up to 6 were not finite" in said
    assert "latents: picture" in said
    monkeypatch.setattr(train_module, "velocity_loss", at(4, terminate))
    good = replace(task, out=task.out.with_name("good"))
    assert checkpoints.step_of(train(good, recipe)) == 3
    assert weights(newest(task.out)) == weights(newest(good.out))


def test_pictures_of_which_nothing_counts_change_nothing_and_end_the_run(task: Task, tiny_depth: Path) -> None:
    task = replace(task, latents=(write_latents(task.out / "latents", tiny_depth),))
    train(task, RECIPE.changed(steps=2))
    (valid,) = task.out.glob("latents/*/valid.npy")
    np.save(valid, np.zeros_like(np.load(valid)))
    before = checkpoints.load_state(newest(task.out))
    with pytest.raises(MarigoldError, match=r"of the pictures of 3 steps in a row up to 5 no part counts, .*: picture"):
        train(task, RECIPE.changed(save_minutes=ALWAYS))
    after = checkpoints.load_state(newest(task.out))
    assert newest(task.out).name == "step_00000004" and all(torch.equal(before[name], after[name]) for name in before)


def test_two_bad_steps_then_a_good_one_are_forgiven(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "velocity_loss", at(lambda micro: micro // 2 % 3 > 0, spoil_loss))
    train(task, RECIPE)
    assert [line["skipped"] for line in step_lines(task.out)] == [bool(step % 3) for step in range(8)]


# ------------------------------------------------------------------------------------------- a step


def test_a_step_is_the_mean_of_its_micro_batches(task: Task, tiny_depth: Path, data: Path, whole: Path) -> None:
    pipeline = load(tiny_depth, dtype="float32", device="cpu")
    pipeline.prompt = pipeline.prompt.clone()
    pipeline.unet.train().requires_grad_(True)
    source = train_module.Latents(data)
    plan = train_module.Plan([source], 2, None, RECIPE.seed)
    losses = []
    for micro in (0, 1):
        batch = source.read(plan(micro)[1], (0,))
        losses.append(velocity_loss(pipeline, batch.image, batch.target, batch.valid, recipe=RECIPE, micro=micro))
    mean = torch.stack(losses).mean()
    mean.backward()
    squares = [parameter.grad.square().sum() for parameter in pipeline.unet.parameters() if parameter.grad is not None]
    first = lines(whole)[0]
    assert first["loss"] == pytest.approx(mean.item(), rel=1e-5)
    assert first["gradient"] == pytest.approx(torch.stack(squares).sum().sqrt().item(), rel=1e-4)


def unet(folder: Path) -> dict[str, Tensor]:
    return load_file(next((folder / "unet").glob("*.safetensors")))


def part(folder: Path, kind: str) -> dict[str, Tensor]:
    state = load_file(folder / checkpoints.STATE)
    return {name.removeprefix(f"{kind}."): value for name, value in state.items() if name.startswith(f"{kind}.")}


def test_the_running_mean_is_saved_beside_the_weights(task: Task, tiny_depth: Path) -> None:
    folder = train(task, RECIPE.changed(steps=1, ema_decay=0.9))
    start, raw, mean = unet(tiny_depth), part(folder, "weights"), unet(folder)
    assert any(not torch.equal(raw[name], mean[name]) for name in raw)
    for name, value in mean.items():  # of the first step's decay, 1 / 10
        assert torch.allclose(value, 0.1 * start[name] + 0.9 * raw[name], atol=1e-6), name


def test_without_a_running_mean_the_weights_are_saved(task: Task) -> None:
    folder = train(task, RECIPE.changed(steps=2, ema_decay=0.0))
    raw, saved = part(folder, "weights"), unet(folder)
    assert all(torch.equal(raw[name], saved[name]) for name in raw)
    assert isinstance(load(folder).unet, UNet2DConditionModel)


@pytest.mark.parametrize("clip_norm", [0.0, 0.01])
def test_long_gradients_are_shortened_if_asked(clip_norm: float, task: Task) -> None:
    folder = train(task, RECIPE.changed(steps=1, clip_norm=clip_norm))
    norm = lines(task.out)[0]["gradient"]
    assert norm > 0.1  # the journal has what it was
    moment = torch.cat([value.flatten() for value in part(folder, "exp_avg").values()]).norm().item() / 0.1
    assert moment == pytest.approx(clip_norm or norm, rel=1e-3)


def test_the_very_first_published_step_changes_nothing(task: Task, tiny_depth: Path) -> None:
    folder = train(task, RECIPE.changed(steps=1, decay="exponential", warmup_steps=100, ema_decay=0.0))
    start, saved = unet(tiny_depth), unet(folder)
    assert all(torch.equal(start[name], saved[name]) for name in start)


# ------------------------------------------------------------------------------------------- what a run was begun with

BEGUN = fingerprint.run_fingerprint(RECIPE, "a" * 64, ["hypersim, sha256 1", "vkitti, sha256 2"], "cpu")


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (BEGUN | {"recipe": RECIPE.changed(lr=1e-4).model_dump(mode="json")}, "lr 0.001, now 0.0001"),
        (BEGUN | {"data": ["hypersim, sha256 3", "vkitti, sha256 2"]}, "data .*sha256 1.*, now .*sha256 3"),
        (BEGUN | {"start": "b" * 64}, "another start"),
        (BEGUN | {"versions": {**BEGUN["versions"], "torch": "1.13"}}, "torch .*, now 1.13"),  # type: ignore
        (BEGUN | {"versions": {**BEGUN["versions"], "device": "cuda"}}, "device cpu, now cuda"),  # type: ignore
    ],
)
def test_what_changed_is_named_and_refused_unless_allowed(
    now: dict, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fingerprint.check_fingerprint(tmp_path, BEGUN, allow_change=False)
    fingerprint.check_fingerprint(tmp_path, BEGUN, allow_change=False)
    with pytest.raises(MarigoldError, match=words):
        fingerprint.check_fingerprint(tmp_path, now, allow_change=False)
    assert capsys.readouterr().err == ""
    fingerprint.check_fingerprint(tmp_path, now, allow_change=True)
    assert capsys.readouterr().err.startswith("Changed in mid-run: ")
    fingerprint.check_fingerprint(tmp_path, now, allow_change=False)  # from now on these are its facts


def test_a_run_refuses_other_choices_data_and_starts(task: Task, tiny_depth: Path, tmp_path: Path) -> None:
    train(task, RECIPE.changed(steps=2))
    with pytest.raises(MarigoldError, match=r"lr 0\.001, now 0\.0001.*--allow-change"):
        train(task, RECIPE.changed(steps=3, lr=1e-4))
    more = write_latents(tmp_path / "latents", tiny_depth, count=16)
    other = replace(task, latents=(more,))
    with pytest.raises(MarigoldError, match="data "):
        train(other, RECIPE.changed(steps=3))
    start = new_checkpoint(tmp_path / "start", "tiny", seed=1)
    with pytest.raises(MarigoldError, match="was made from"):
        train(replace(task, start_from=str(start)), RECIPE.changed(steps=3))
    assert checkpoints.step_of(newest(task.out)) == 2
    allowed = replace(other, allow_change=True)
    assert checkpoints.step_of(train(allowed, RECIPE.changed(steps=3, lr=1e-4))) == 3


def test_the_length_may_change(task: Task) -> None:
    train(task, RECIPE.changed(steps=2))
    folder = train(task, RECIPE.changed(steps=3, cooldown_steps=1, save_minutes=1.0, validate_steps=7, figure_steps=9))
    assert checkpoints.step_of(folder) == 3
    assert checkpoints.step_of(train(task, RECIPE.changed(steps=2))) == 3  # longer already


def test_there_must_be_something_to_train_on(task: Task) -> None:
    with pytest.raises(MarigoldError, match="nothing to train on"):
        train(replace(task, latents=()), Recipe())
    assert not task.out.exists()

"""Other ways to train the U-Net: adapters, moments in 8 bits, gradient checkpointing, trackers, what is refused."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from marigold_core import Settings, load
from marigold_core.errors import MarigoldError
from tests.helpers.training_runs import RECIPE, curve, newest, step_lines, weights
from tests.training.conftest import TaskFor
from training.engine import checkpoints, processes
from training.engine.processes import accelerator_for
from training.models.lora import add_lora, merged
from training.models.networks import SHAPES, new_unet
from training.recipe import Recipe
from training.train import Task, train

pytestmark = pytest.mark.usefixtures("one_thread")
LORA = RECIPE.changed(lora_rank=4, lr=1e-2)
EIGHT = RECIPE.changed(optimizer="adamw_8bit")


def test_adapters_change_nothing_at_first_and_are_merged_exactly() -> None:
    unet = new_unet(SHAPES["tiny"]).eval()
    x, t, prompt = torch.randn(1, 8, 4, 6), torch.tensor(500), torch.randn(1, 2, 16)
    with torch.no_grad():
        before = unet(x, t, prompt).sample
        state = torch.get_rng_state()
        add_lora(unet, 4, seed=0)
        assert torch.equal(torch.get_rng_state(), state)
        torch.testing.assert_close(unet(x, t, prompt).sample, before)
        trained = {name: weight for name, weight in unet.named_parameters() if weight.requires_grad}
        assert trained and all("lora_" in name for name in trained)
        assert sum(weight.numel() for weight in trained.values()) < 0.35 * sum(w.numel() for w in unet.parameters())
        for weight in trained.values():
            weight.add_(0.05 * torch.randn_like(weight))
        after = unet(x, t, prompt).sample
        assert (after - before).abs().max() > 0.01
        plain = merged(unet)
        torch.testing.assert_close(plain(x, t, prompt).sample, after, rtol=1e-3, atol=1e-4)
    assert plain.state_dict().keys() == new_unet(SHAPES["tiny"]).state_dict().keys()
    assert any("lora_" in name for name in unet.state_dict())  # the trained one is left as it is


@pytest.mark.usefixtures("no_validation")
def test_a_run_of_adapters_opens_as_any_other_and_goes_on_to_the_last_bit(task_for: TaskFor, tiny_depth: Path) -> None:
    whole, halves = task_for("whole"), task_for("halves")
    train(whole, LORA)
    for steps in (4, 8):
        train(halves, LORA.changed(steps=steps, cooldown_steps=2))
    found = newest(whole.out)
    names = json.loads((found / "checksums.json").read_text())
    assert found.name == newest(halves.out).name and curve(whole.out)[:2] == curve(halves.out)[:2]
    state = checkpoints.load_state(found)
    assert any(name.startswith("mean.") for name in state) and any("lora_" in name for name in state)
    again = task_for("again")
    train(again, LORA)
    assert weights(newest(again.out)) == weights(found) and names
    trained, start = (load(folder, dtype="float32") for folder in (found, tiny_depth))
    assert trained.unet.state_dict().keys() == start.unet.state_dict().keys()
    photo = torch.randint(0, 255, (48, 64, 3), generator=torch.manual_seed(0), dtype=torch.uint8).numpy()
    one, other = (pipe(photo, Settings(num_inference_steps=1)).values for pipe in (trained, start))
    assert abs(one - other).max() > 1e-3
    with pytest.raises(MarigoldError, match="was begun with lora_rank 4, now 8"):
        train(whole, LORA.changed(lora_rank=8))


@pytest.mark.usefixtures("no_validation", "eight_bit")
@pytest.mark.parametrize(("recipe", "kept"), [(LORA, "mean."), (EIGHT, "state1.")])
def test_runs_of_other_kinds_that_were_stopped_continue(recipe: Recipe, kept: str, task_for: TaskFor) -> None:
    whole, stopped = task_for("whole"), task_for("stopped")
    train(whole, recipe)
    train(stopped, recipe.changed(save_minutes=1e-9))
    for path in sorted(stopped.out.glob("step_*"))[1:]:
        shutil.rmtree(path)  # as if killed after that step
    train(stopped, recipe)
    state = checkpoints.load_state(newest(stopped.out))
    moments = {name: value.dtype for name, value in state.items() if name.startswith(kept)}
    assert moments and (recipe is LORA or torch.uint8 in moments.values())
    assert weights(newest(stopped.out)) == weights(newest(whole.out)) and curve(stopped.out) == curve(whole.out)


def test_without_peft_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MarigoldError, match="--lora-rank needs the package peft: pip install"):
        add_lora(new_unet(SHAPES["tiny"]), 4, seed=0)


@pytest.mark.usefixtures("no_validation")
def test_activations_that_are_computed_twice_train_alike(task_for: TaskFor) -> None:
    kept, twice = task_for("kept"), task_for("twice")
    train(kept, RECIPE.changed(steps=3))
    train(twice, RECIPE.changed(steps=3, gradient_checkpointing=True))
    for one, other in zip(curve(kept.out), curve(twice.out), strict=True):
        assert float.fromhex(one[1]) == pytest.approx(float.fromhex(other[1]), rel=1e-4)
    state = load(newest(twice.out), dtype="float32").unet.state_dict()
    for name, weight in load(newest(kept.out), dtype="float32").unet.state_dict().items():
        torch.testing.assert_close(weight, state[name], rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("no_validation")
def test_a_tracker_is_given_what_the_log_has(task_for: TaskFor) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    task = task_for(trackers=("tensorboard",))
    train(task, RECIPE.changed(steps=3))
    found = EventAccumulator(str(task.out / task.out.name)).Reload()
    logged = [(line["step"], line["loss"]) for line in step_lines(task.out)]
    assert [(event.step, pytest.approx(event.value)) for event in found.Scalars("loss")] == logged
    train(task, RECIPE.changed(steps=3))  # whether figures are reported is not a part of the run


def test_what_is_not_there_is_refused(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MarigoldError, match="The tracker telegraph is not installed or known; there are .*tensorboard"):
        accelerator_for(RECIPE, "cpu", ("telegraph",))
    assert accelerator_for(RECIPE, "cpu").log_with == []  # off unless asked for
    for variable, name in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "true")
            with pytest.raises(MarigoldError, match=f"{name} is not supported: every process holds all weights"):
                train(task, RECIPE)
    monkeypatch.setattr(processes, "find_spec", lambda name: None)
    with pytest.raises(MarigoldError, match="--optimizer adamw_8bit needs the package bitsandbytes: pip install"):
        train(task, EIGHT)
    assert not task.out.exists()


@pytest.mark.usefixtures("no_validation")
def test_runs_of_older_versions_go_on(task: Task) -> None:
    train(task, RECIPE.changed(steps=2))
    path = task.out / "run.json"
    record = json.loads(path.read_text())
    for name in ("objective", "lora_rank", "gradient_checkpointing", "optimizer"):
        del record["recipe"][name]
    path.write_text(json.dumps(record))
    train(task, RECIPE.changed(steps=3))
    record["recipe"]["lr"] = 3.0
    path.write_text(json.dumps(record))
    with pytest.raises(MarigoldError, match="was begun with lr 3.0, now 0.001"):
        train(task, RECIPE.changed(steps=4))

"""The memory of a training step, counted without values, against what the process really took."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from marigold_core import load
from marigold_core.errors import MarigoldError
from training.engine.loop import new_optimizer
from training.engine.memory import StepMemory, step_memory, step_operations
from training.models.networks import SHAPES, new_unet, new_vae
from training.recipe import RECIPES, Recipe

# hundreds of MB, of which what a process takes besides is a small part
RECIPE = Recipe(batch_size=8, ema_decay=0.0, precision="float32")
LATENT = (64, 96)
NANO = SHAPES["nano"]
# attention at the latents' own size, as in the published network
ATTENTIVE = replace(NANO, unet=replace(NANO.unet, attends=(True, False, False, False)))
MEASURE = """
import re, torch
from pathlib import Path
from tests.training.engine.test_memory import ATTENTIVE, LATENT, RECIPE
from training.models.networks import SHAPES, new_unet, new_vae
torch.set_num_threads(1)
unet, decode = new_unet(SHAPES["nano"]).train(), lambda latent: latent
{prepare}
def step(batch, latent):
    t, prompt = torch.zeros(batch, dtype=torch.long), torch.randn(batch, 2, 32)
    decode(unet(torch.randn(batch, 8, *latent), t, prompt).sample).square().mean().backward()
    unet.zero_grad()
def peak():  # of this process; what getrusage says is at least what the process that started it had
    return int(re.search("VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
step(1, (8, 8))  # libraries are loaded
before = peak()
step({batch}, LATENT)
print(peak() - before)
"""


def measured(prepare: str = "", batch: int = RECIPE.batch_size) -> int:
    """What a step takes beyond what the process has before, bytes."""
    script = MEASURE.format(prepare=prepare, batch=batch)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return int(run.stdout.splitlines()[-1])


def test_the_count_is_what_a_process_takes() -> None:
    full, checkpointed = (
        step_memory(new_unet(SHAPES["nano"]), RECIPE.changed(gradient_checkpointing=twice), LATENT).step
        for twice in (False, True)
    )
    taken, less = measured(), measured("unet.enable_gradient_checkpointing()")
    # the allocator keeps some, and convolutions copy their weights and one tensor at a time: up to 200 MB here
    assert 0.8 * full < taken < 1.4 * full, (taken, full)
    assert checkpointed < less < 0.9 * taken and checkpointed < 0.6 * full, (less, checkpointed)


def test_attention_is_counted_as_it_is_computed() -> None:
    """As a matrix of all cells, kept by each of three layers, it would take .9 GB more."""
    counted = step_memory(new_unet(ATTENTIVE), RECIPE.changed(batch_size=2), LATENT).step
    taken = measured("unet = new_unet(ATTENTIVE).train()", batch=2)
    assert 0.8 * counted < taken < 1.4 * counted, (taken, counted)


def test_the_decoder_of_end_to_end_training_is_counted() -> None:
    recipe = RECIPE.changed(batch_size=2, objective="end_to_end")
    found = step_memory(new_unet(SHAPES["nano"]), recipe, LATENT, new_vae(SHAPES["nano"]))
    alone = step_memory(new_unet(SHAPES["nano"]), recipe.changed(objective="latent"), LATENT)
    taken = measured('decode = new_vae(SHAPES["nano"]).requires_grad_(False).decoder', batch=2)
    assert 0.8 * found.step < taken < 1.4 * found.step, (taken, found)
    assert found.step > 2 * alone.step and found.weights > alone.weights and found.moments == alone.moments
    with pytest.raises(MarigoldError, match="give the autoencoder too"):
        step_memory(new_unet(SHAPES["tiny"]), recipe, (8, 8))


@pytest.mark.usefixtures("eight_bit")
@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_moments_are_counted_as_the_optimiser_keeps_them(optimizer: str) -> None:
    unet, recipe = new_unet(SHAPES["tiny"]), RECIPES["smoke"].changed(optimizer=optimizer)
    made = new_optimizer(unet, recipe)
    for weight in unet.parameters():
        weight.grad = torch.ones_like(weight)
    made.step()
    kept = [(name, value) for state in made.state.values() for name, value in state.items() if name != "step"]
    taken = sum(value.nbytes for name, value in kept if not name.startswith("qmap"))  # one table for all of them
    assert step_memory(unet, recipe, (8, 8)).moments == taken


@pytest.mark.parametrize("own_estimate", [0.0, 0.5])
def test_operations_are_those_of_forward_and_backward_passes(own_estimate: float, tiny_depth: Path) -> None:
    recipe = RECIPES["smoke"].changed(own_estimate=own_estimate)
    pipeline = load(tiny_depth, dtype="float32")
    latent, t = torch.zeros(1, 4, 6, 8), torch.tensor(0)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        pipeline.predict_velocity(latent, latent, t)
    with FlopCounterMode(display=False) as decoder, torch.no_grad():
        pipeline.decode(latent)
    once, decoded = forward.get_total_flops(), decoder.get_total_flops()
    counted = step_operations(load(tiny_depth, dtype="float32"), recipe)
    passes = 3 + (own_estimate > 0)  # backward: gradients of what goes in and of the weights, but of the photo none
    assert 0.95 * passes * once < counted < passes * once
    end_to_end = step_operations(load(tiny_depth, dtype="float32"), recipe.changed(objective="end_to_end"))
    assert end_to_end - counted + once * (own_estimate > 0) == pytest.approx(2 * decoded, rel=1e-3)


def test_the_count_tells_what_the_published_model_needs() -> None:
    def needs(**change: object) -> StepMemory:
        with torch.device("meta"):
            unet = new_unet(SHAPES["public"])
        return step_memory(unet, RECIPES["paper"].changed(**change), (60, 80))

    full, checkpointed, lora = needs(), needs(gradient_checkpointing=True), needs(lora_rank=16)
    eight = needs(optimizer="adamw_8bit")
    numbers = 865_922_244
    assert (full.weights, full.moments) == (4 * numbers, 8 * numbers)
    assert full.step > 4 * numbers  # the gradients
    assert 0.25 * full.moments < eight.moments < 0.26 * full.moments
    assert checkpointed.step < 0.85 * full.step
    assert full.total < 24e9  # the paper trained on an RTX 4090
    assert lora.moments < 0.1 * full.moments and lora.total < 0.75 * full.total

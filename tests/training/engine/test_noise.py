import pytest
import torch

from training.data.random_streams import stream
from training.engine.noise import gaussian_noise, multi_resolution_noise
from training.recipe import Levels

pytestmark = pytest.mark.numeric

SHAPE = (8, 4, 24, 32)


def neighbours(noise: torch.Tensor) -> float:
    left, right = noise[..., :-1].flatten(), noise[..., 1:].flatten()
    return torch.corrcoef(torch.stack([left, right]))[0, 1].item()


@pytest.mark.parametrize("levels", ["published", "halving"])
def test_every_picture_has_unit_variance(levels: Levels) -> None:
    strength = torch.linspace(0, 0.9, SHAPE[0])
    noise = multi_resolution_noise(SHAPE, strength, stream(0, 1), levels)
    assert noise.shape == SHAPE
    torch.testing.assert_close(noise.std(dim=(1, 2, 3)), torch.ones(SHAPE[0]))


@pytest.mark.parametrize("levels", ["published", "halving"])
def test_annealing_ends_in_white_noise(levels: Levels) -> None:
    white = multi_resolution_noise(SHAPE, torch.zeros(SHAPE[0]), stream(0, 1), levels)
    coarse = multi_resolution_noise(SHAPE, torch.full((SHAPE[0],), 0.9), stream(0, 1), levels)
    assert abs(neighbours(white)) < 0.02
    assert neighbours(coarse) > 0.2


def test_noise_is_a_function_of_seed_and_place() -> None:
    def draw(seed: int, step: int) -> torch.Tensor:
        return gaussian_noise(SHAPE, stream(seed, step))

    assert torch.equal(draw(3, 7), draw(3, 7))
    assert not torch.equal(draw(3, 7), draw(3, 8))
    assert not torch.equal(draw(3, 7), draw(4, 7))


def test_drawing_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    multi_resolution_noise(SHAPE, torch.full((SHAPE[0],), 0.5), stream(0, 1))
    assert torch.equal(before, torch.get_rng_state())


def test_thin_latents_are_possible() -> None:
    noise = multi_resolution_noise((2, 4, 1, 9), torch.tensor([0.9, 0.1]), stream(0, 0))
    assert torch.isfinite(noise).all()

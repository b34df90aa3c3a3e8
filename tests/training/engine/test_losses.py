"""The distance of middle features, which needs no depth."""

from pathlib import Path

import pytest
import torch

from marigold_core import load
from training.data.random_streams import stream
from training.engine.losses import coral, feature_distance

pytestmark = pytest.mark.numeric


@pytest.fixture
def pipeline(tiny_depth: Path):
    pipeline = load(tiny_depth)
    pipeline.prompt = pipeline.prompt.clone()
    pipeline.unet.requires_grad_(True)
    return pipeline


def latents(seed: int, count: int = 4, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(count, 4, 16, 16, generator=stream(seed)) * scale + shift


def test_distance_of_statistics() -> None:
    features = torch.randn(4, 6, 5, 7, generator=stream(0))
    shuffled = features.transpose(0, 1).flatten(1)[:, torch.randperm(140, generator=stream(1))]
    assert coral(features, shuffled.view(6, 2, 7, 10).transpose(0, 1)).item() == pytest.approx(0, abs=1e-6)
    shift = torch.zeros(6, 1, 1)
    shift[0] = 3.0
    by_hand = 9 / (2 * torch.cov(features.transpose(0, 1).flatten(1)).trace())
    assert coral(features, features + shift).item() == pytest.approx(by_hand.item(), rel=1e-4)
    assert coral(features, 2 * features).item() > 9 / 17 - 1e-6  # covariances C and 4 C: 9 |C|^2 of 17 |C|^2
    small = coral(0.01 * features, 0.02 * features).item()  # TINY is a millionth of its squared covariances
    assert small == pytest.approx(coral(features, 2 * features).item(), rel=1e-4)
    exact = coral(features, features + shift).item()
    with torch.autocast("cpu", torch.bfloat16):
        assert coral(features, features + shift).item() == exact
    assert coral(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)) == 0


@torch.no_grad()
def test_distance_is_nothing_for_equal_batches_and_grows(pipeline) -> None:
    rendered = latents(0)
    found = [feature_distance(pipeline, rendered, rendered + shift, stream(5)).item() for shift in (0.0, 0.5, 1.0, 2.0)]
    assert found[0] == pytest.approx(0, abs=1e-5)
    assert found[0] < found[1] < found[2] < found[3]
    assert feature_distance(pipeline, rendered, latents(1), stream(5)).item() < found[2]  # drawn alike
    unequal = feature_distance(pipeline, rendered, rendered[:2], stream(5))
    assert unequal.isfinite()


def test_the_forward_pass_is_the_noisiest_ends_in_the_middle_and_leaves_no_trace(pipeline) -> None:
    ran: list[object] = []
    pipeline.unet.register_forward_pre_hook(lambda _, given: ran.append(int(given[1])))
    pipeline.unet.up_blocks[0].register_forward_hook(lambda *_: ran.append("up"))
    with torch.no_grad():
        feature_distance(pipeline, latents(0), latents(1), stream(0))
        assert ran == [999]
        pipeline.predict_velocity(latents(0), latents(1), torch.tensor(5))
    assert ran == [999, 5, "up"]


def test_distance_is_pulled_down_through_the_network(pipeline) -> None:
    rendered, real = latents(0), latents(1, shift=1.0, scale=0.5)
    optimizer = torch.optim.Adam(pipeline.unet.parameters(), lr=1e-3)
    seen = []
    for step in range(8):
        distance = feature_distance(pipeline, rendered, real, stream(step))
        optimizer.zero_grad()
        distance.backward()
        gradients = {name for name, weight in pipeline.unet.named_parameters() if weight.grad is not None}
        optimizer.step()
        seen.append(distance.item())
    assert {"conv_in.weight"} < gradients
    assert any(name.startswith("mid_block") for name in gradients)
    assert not any(name.startswith("up_blocks") for name in gradients)
    assert seen[-1] < 0.7 * seen[0]

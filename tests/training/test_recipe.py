import re
from pathlib import Path

import pytest

from training.recipe import RECIPES, Recipe

# At 3e-5: a line up to step 100, then exp(ln(0.01) (n - 100) / 24,900).
PUBLISHED_RATES = {
    0: 0.0,  # the very first step changes nothing
    50: 1.5e-5,
    100: 3e-5,
    1000: 2.54e-5,
    5000: 1.212e-5,
    10_000: 4.81e-6,
    18_000: 1.095e-6,
    20_000: 7.56e-7,
    25_000: 3e-7,
    30_000: 3e-7,
}


@pytest.mark.parametrize(("step", "rate"), PUBLISHED_RATES.items())
def test_the_published_rates(step: int, rate: float) -> None:
    for name in ("paper", "v1-1"):
        assert RECIPES[name].rate(step) == pytest.approx(rate, rel=1e-3)


def test_the_linear_rate_rises_stays_and_falls() -> None:
    schedule = Recipe(steps=100, lr=1.0, warmup_steps=10, cooldown_steps=20)
    assert [schedule.rate(step) for step in (0, 9, 50, 80, 90, 99)] == pytest.approx([0.1, 1, 1, 1, 0.5, 0.05])


@pytest.mark.parametrize("decay", ["linear", "exponential"])
def test_without_warm_up_or_cool_down_the_rate_starts_full(decay: str) -> None:
    schedule = Recipe(steps=5, lr=1.0, warmup_steps=0, cooldown_steps=0, decay=decay, decay_steps=1)  # type: ignore
    assert schedule.rate(0) == 1.0


def test_the_recipes_have_the_published_numbers() -> None:
    assert list(RECIPES) == ["paper", "v1-1", "nano", "smoke"]
    paper, newer = RECIPES["paper"], RECIPES["v1-1"]
    for recipe in (paper, newer):
        assert (recipe.batch_size, recipe.micro_batch_size, recipe.micro_batches) == (32, 2, 16)
        assert (recipe.lr, recipe.warmup_steps, recipe.decay_steps, recipe.weight_decay) == (3e-5, 100, 25_000, 0)
        assert (recipe.clip_norm, recipe.ema_decay, recipe.precision) == (0, 0, "float32")
        assert recipe.shares == (0.9, 0.1)
        assert (recipe.noise_strength, recipe.noise_annealed, recipe.noise_levels) == (0.9, True, "published")
        assert (recipe.timestep_power, recipe.image_noise, recipe.flip) == (1, 0, 0.5)
        assert (recipe.long_edge_px, recipe.far_m, recipe.min_known) == (None, None, 1)  # raw sizes and mask
        assert (recipe.validate_steps, recipe.validate_px, recipe.figure_steps) == (500, 0, 1000)
        assert recipe.seed == 2024
    assert (paper.steps, paper.noise_schedule, paper.photographic) == (18_000, "v1-0", 0)
    assert (newer.steps, newer.noise_schedule) == (20_000, "v1-1")
    assert newer.photographic > 0


def test_every_recipe_is_explained_and_its_batch_divides() -> None:
    page = (Path(__file__).parents[2] / "training" / "README.md").read_text(encoding="utf-8")
    rows = {row[0]: row for row in (re.findall(r"[^|]+", line) for line in page.splitlines()) if len(row) == 5}
    for name, recipe in RECIPES.items():
        assert all(cell.strip() for cell in rows[f" `{name}` "])
        assert recipe.batch_size % (recipe.micro_batch_size or recipe.batch_size) == 0

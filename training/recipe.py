"""Every choice of a training run, stated once; the command line options are made from these models."""

from pydantic import Field

from marigold_core.settings import Frozen
from training.noise import Levels


class Schedule(Frozen):
    """How long and how fast a network learns. The rate rises, stays, and falls to zero at the last step."""

    steps: int = Field(default=5000, ge=1, description="optimiser steps in all; may be changed when a run is resumed")
    batch_size: int = Field(default=16, ge=1, description="pictures an optimiser step")
    lr: float = Field(default=1e-3, gt=0, description="highest learning rate")
    warmup_steps: int = Field(default=200, ge=0, description="steps in which the rate rises")
    cooldown_steps: int = Field(
        default=1000, ge=0, description="last steps, in which the rate falls; may be changed on resume"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decay of the weights")
    clip_norm: float = Field(default=1.0, gt=0, description="longest gradient; longer ones are shortened")
    ema_decay: float = Field(default=0.999, ge=0, lt=1, description="the saved weights are a running mean this slow")
    bfloat16: bool = Field(default=True, description="compute in bfloat16; weights and loss stay float32")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="all randomness is a function of (seed, step)")
    save_minutes: float = Field(default=5.0, gt=0, description="minutes between checkpoints")

    def rate(self, step: int) -> float:
        """Return the learning rate of step ``step``, counted from 0."""
        rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        fall = min(1.0, (self.steps - step) / max(1, self.cooldown_steps))
        return self.lr * min(rise, fall)


class AutoencoderRecipe(Schedule):
    """Stage 1: the autoencoder."""

    steps: int = Field(default=1800, ge=1, description="optimiser steps in all; may be changed when a run is resumed")
    lr: float = Field(default=2e-3, gt=0, description="highest learning rate")
    warmup_steps: int = Field(default=50, ge=0, description="steps in which the rate rises")
    cooldown_steps: int = Field(
        default=600, ge=0, description="last steps, in which the rate falls; may be changed on resume"
    )
    ema_decay: float = Field(default=0.99, ge=0, lt=1, description="the saved weights are a running mean this slow")
    crop_px: int = Field(default=64, ge=16, multiple_of=16, description="side of the square crops, pixels")
    gradient_weight: float = Field(
        default=0.5, ge=0, description="weight of the differences between neighbours in the loss"
    )
    kl_weight: float = Field(default=3e-4, ge=0, description="weight of the pull of latents towards a unit Gaussian")
    depth_share: float = Field(default=0.35, ge=0, le=1, description="share of depth maps among the pictures")
    normals_share: float = Field(default=0.1, ge=0, le=1, description="share of normal maps among the pictures")


class Recipe(Schedule):
    """Stage 3: the U-Net."""

    noise_strength: float = Field(
        default=0.9, ge=0, le=1, description="annealed multi-resolution noise; 0 is white noise"
    )
    noise_levels: Levels = Field(default="published", description="how its scales shrink; halving suits small latents")
    image_noise: float = Field(
        default=0.0, ge=0, description="up to this much noise on the photo's latent, against overfitting"
    )
    timestep_power: float = Field(
        default=1.0, gt=0, description="1 draws timesteps evenly as published; 2 prefers noisy ones"
    )


RECIPES: dict[str, Recipe] = {
    # the bundled checkpoint: from random weights, on two CPU cores
    "nano": Recipe(
        steps=5000,
        cooldown_steps=1500,
        lr=7e-4,
        weight_decay=1e-2,
        noise_levels="halving",
        image_noise=0.3,
        timestep_power=2.0,
    ),
    # a few steps, to see that everything runs
    "smoke": Recipe(steps=4, batch_size=4, warmup_steps=1, cooldown_steps=1, bfloat16=False),
}

"""Every choice of a training run, stated once; the command line options are made from these models."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from marigold_core.options import Presets
from marigold_core.settings import Frozen

Decay = Literal["linear", "exponential"]
Precision = Literal["float32", "bfloat16", "float16"]
NoiseSchedule = Literal["start", "v1-0", "v1-1"]
Levels = Literal["published", "halving"]
ObjectiveName = Literal["latent", "end_to_end"]
OptimizerName = Literal["adamw", "adamw_8bit"]

# What several recipes choose, each with a default of its own.
Steps = Annotated[int, Field(ge=1, description="optimiser steps in all; may be changed when a run is resumed")]
Rate = Annotated[float, Field(gt=0, description="highest learning rate")]
WarmupSteps = Annotated[int, Field(ge=0, description="steps in which the rate rises")]
CooldownSteps = Annotated[
    int, Field(ge=0, description="last steps, in which a linear rate falls to 0; may be changed on resume")
]
WeightDecay = Annotated[float, Field(ge=0, description="AdamW's decay of the weights; 0 makes it Adam")]
EmaDecay = Annotated[
    float, Field(ge=0, lt=1, description="the saved weights are a running mean this slow; 0: the weights themselves")
]
ComputedIn = Annotated[Precision, Field(description="of the computations; weights and loss stay float32")]
FigureSteps = Annotated[int, Field(ge=1, description="steps between figures; may be changed on resume")]
Pictures = Annotated[int, Field(ge=8, description="pictures that it is trained on, evenly spread")]
UpsideDown = Annotated[
    float, Field(ge=0, le=1, description="share turned upside down, against calling the bottom near unseen")
]


class Schedule(Frozen):
    """How long and how fast a network learns."""

    steps: Steps = 5000
    batch_size: int = Field(default=16, ge=1, description="pictures an optimiser step, over all processes")
    micro_batch_size: int | None = Field(
        default=None, ge=1, description="pictures a forward pass; the rest is accumulated; auto: the whole batch"
    )
    lr: Rate = 1e-3
    warmup_steps: WarmupSteps = 200
    decay: Decay = Field(
        default="linear", description="how the rate falls: linear over the cool-down, or exponential as published"
    )
    cooldown_steps: CooldownSteps = 1000
    decay_steps: int = Field(default=25_000, ge=1, description="step at which an exponential rate has fallen to 1 %")
    weight_decay: WeightDecay = 0.0
    optimizer: OptimizerName = Field(
        default="adamw", description="adamw_8bit keeps the moments in 8 bits, in blocks; it needs bitsandbytes"
    )
    clip_norm: float = Field(default=1.0, ge=0, description="longest gradient; longer ones are shortened; 0: any")
    ema_decay: EmaDecay = 0.999
    precision: ComputedIn = "bfloat16"
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="all randomness is a function of (seed, step)")
    save_minutes: float = Field(default=5.0, gt=0, description="minutes between checkpoints; may be changed on resume")
    figure_steps: FigureSteps = 500

    def rate(self, step: int) -> float:
        """Return the learning rate of step ``step``, counted from 0.

        "exponential" is the published law: step / warm-up, so that the very first step changes nothing, then a fall
        to 1 % at ``decay_steps``. Source: the authors' released training code, as in ``paper``.
        """
        if self.decay == "exponential":
            if step < self.warmup_steps:
                return self.lr * step / self.warmup_steps
            fallen = min(1.0, (step - self.warmup_steps) / max(1, self.decay_steps - self.warmup_steps))
            return self.lr * math.exp(fallen * math.log(FINAL_RATE))
        rise = min(1.0, (step + 1) / max(1, self.warmup_steps))
        fall = min(1.0, (self.steps - step) / max(1, self.cooldown_steps))
        return self.lr * min(rise, fall)

    @property
    def micro_batches(self) -> int:
        """Count the forward passes of an optimiser step, over all processes."""
        return self.batch_size // (self.micro_batch_size or self.batch_size)


FINAL_RATE = 0.01  # where the exponential law ends


class Framing(Frozen):
    """How a picture and its depth map become network input: size, augmentation, and which depths count."""

    long_edge_px: int | None = Field(
        default=None,
        ge=32,
        description="random crops with the pixels of a 4:3 picture this long; auto: the published size",
    )
    flip: float = Field(default=0.5, ge=0, le=1, description="share of pictures mirrored left to right")
    upside_down: UpsideDown = 0.0
    photographic: float = Field(
        default=0.0, ge=0, le=1, description="share given the faults of photographs: colour, blur, noise, JPEG"
    )
    nearest_rgb: bool = Field(default=False, description="shrink photos without antialiasing, as the authors did")
    far_m: float | None = Field(
        default=None, gt=0, description="sky and depths beyond are the far plane and count; auto: they do not count"
    )
    min_known: float = Field(
        default=1.0, gt=0, le=1, description="share of known pixels from which a latent cell counts; 1 as published"
    )


class AutoencoderRecipe(Schedule):
    """Stage 1: the autoencoder."""

    steps: Steps = 1800
    lr: Rate = 2e-3
    warmup_steps: WarmupSteps = 50
    cooldown_steps: CooldownSteps = 600
    ema_decay: EmaDecay = 0.99
    crop_px: int = Field(default=64, ge=16, multiple_of=16, description="side of the square crops, pixels")
    gradient_weight: float = Field(
        default=0.5, ge=0, description="weight of the differences between neighbours in the loss"
    )
    kl_weight: float = Field(default=3e-4, ge=0, description="weight of the pull of latents towards a unit Gaussian")
    depth_share: float = Field(default=0.35, ge=0, le=1, description="share of depth maps among the pictures")
    normals_share: float = Field(default=0.1, ge=0, le=1, description="share of normal maps among the pictures")
    labels_share: float = Field(default=0.0, ge=0, le=1, description="share of painted classes among the pictures")
    figure_steps: FigureSteps = 300


class AdditionRecipe(Schedule):
    """What the recipes of the networks have in common that a finished checkpoint is given."""

    weight_decay: WeightDecay = 1e-2
    ema_decay: EmaDecay = 0.995
    precision: ComputedIn = "float32"
    warmup_steps: WarmupSteps = 50
    pictures: Pictures = 2000


class PhotographedRecipe(AdditionRecipe):
    """The same of those that learn from pictures with the faults of photographs."""

    upside_down: UpsideDown = 0.06


class DraftRecipe(PhotographedRecipe):
    """Stage 4: the network that drafts depth."""

    steps: Steps = 2000
    cooldown_steps: CooldownSteps = 1800
    pictures: Pictures = 4096
    width: int = Field(default=32, ge=4, multiple_of=4, description="channels of a pyramid; 32 has 0.1 M weights")
    pyramids: int = Field(default=6, ge=1, description="regressors of their own, whose mean is the draft")
    feature_dropout: float = Field(default=0.4, ge=0, lt=1, description="share of the features' channels left out")


class ExpectedErrorRecipe(PhotographedRecipe):
    """Stage 4: the network that expects the errors of depth."""

    steps: int = Field(default=400, ge=1, description="optimiser steps in all; more learn the renders by heart")
    cooldown_steps: CooldownSteps = 380
    weight_decay: WeightDecay = 5e-2
    width: int = Field(default=48, ge=4, multiple_of=4, description="channels of the network; 48 has 0.2 M weights")
    alone: float = Field(default=0.3, ge=0, le=1, description="share of maps that come without the members' spread")


class DisplacementRecipe(AdditionRecipe):
    """Stage 4: the network that moves the outlines of depth onto those of the photo."""

    steps: Steps = 4000
    batch_size: int = Field(default=8, ge=1, description="crops an optimiser step")
    lr: Rate = 1.5e-3
    cooldown_steps: CooldownSteps = 3000
    crop_px: int = Field(default=160, ge=32, multiple_of=16, description="side of the square crops, pixels")


class Recipe(Schedule, Framing):
    """Stage 3: the U-Net."""

    shares: tuple[float, ...] | None = Field(
        default=None, description="share of micro-batches drawn from each data set, in their order; auto: by size"
    )
    objective: ObjectiveName = Field(
        default="latent",
        description="latent: the velocity in latents, as published; end_to_end: the decoded result of one step from"
        " zeros, for a checkpoint that predicts so",
    )
    lora_rank: int | None = Field(
        default=None, ge=1, description="train adapters of this rank beside frozen weights; auto: all weights"
    )
    gradient_checkpointing: bool = Field(
        default=False, description="compute the activations of the network's blocks twice instead of keeping them"
    )
    noise_schedule: NoiseSchedule = Field(
        default="start", description="v1-0: Stable Diffusion 2's; v1-1: zero terminal SNR, trailing; start: as it is"
    )
    noise_strength: float = Field(default=0.9, ge=0, le=1, description="multi-resolution noise; 0 is white noise")
    noise_annealed: bool = Field(default=True, description="the strength falls with the timestep, as published")
    noise_levels: Levels = Field(default="published", description="how its scales shrink; halving suits small latents")
    image_noise: float = Field(
        default=0.0, ge=0, description="up to this much noise on the photo's latent, against overfitting"
    )
    timestep_power: float = Field(
        default=1.0, gt=0, description="1 draws timesteps evenly as published; 2 prefers noisy ones"
    )
    own_estimate: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of pictures whose noisy target is the network's own estimate, as from the second step on",
    )
    picture_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the error of the decoded estimate and of its outlines",
    )
    prior_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of pictures that do without the image prior, where there is one"
    )
    align_weight: float = Field(
        default=0.0,
        ge=0,
        description="pull of middle features of rendered and unlabelled real photos to each other",
    )
    validate_steps: int = Field(default=500, ge=1, description="steps between validations; may be changed on resume")
    validate_px: int | None = Field(
        default=0, ge=0, description="longest edge in validation; 0: the photos' own; auto: the checkpoint's"
    )
    figure_steps: FigureSteps = 1000


_PUBLISHED: dict[str, Any] = {
    "steps": 18_000,
    "batch_size": 32,
    "micro_batch_size": 2,
    "lr": 3e-5,
    "warmup_steps": 100,
    "decay": "exponential",
    "clip_norm": 0.0,
    "ema_decay": 0.0,
    "precision": "float32",
    "nearest_rgb": True,
    "shares": (0.9, 0.1),
    "seed": 2024,
}
_V1_1: dict[str, Any] = _PUBLISHED | {"steps": 20_000, "noise_schedule": "v1-1", "photographic": 0.3}
# What each reproduces, starts from and is expected to score: training/README.md, "Recipes".
RECIPES: dict[str, Recipe] = {
    "paper": Recipe(**_PUBLISHED, noise_schedule="v1-0"),
    "v1-1": Recipe(**_V1_1),
    "nano": Recipe(
        cooldown_steps=1500,
        lr=7e-4,
        weight_decay=1e-2,
        noise_levels="halving",
        image_noise=0.6,
        prior_dropout=0.1,
        timestep_power=2.0,
        long_edge_px=192,
        upside_down=0.25,
        photographic=1.0,
        far_m=80.0,
        validate_px=None,
    ),
    "smoke": Recipe(
        steps=4,
        batch_size=4,
        micro_batch_size=2,
        warmup_steps=1,
        cooldown_steps=1,
        precision="float32",
        long_edge_px=64,
        far_m=80.0,
        validate_px=None,
        validate_steps=2,
        figure_steps=4,
    ),
}
PRESETS = Presets("recipe", RECIPES, "nano", "what to reproduce")

"""The paper's ablations and those beside them: what each compares, and the published figures of its rows.

Published figures are AbsRel, or AbsRel / delta1, in percent. Those of the paper's ablations are on the NYUv2 training
split and 800 pictures of KITTI's, so only differences between rows can be compared with ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from training.models.networks import Spacing

Name = Literal["noise", "mix", "schedule", "real", "objective", "steps", "ensemble"]


@dataclass(frozen=True)
class Variant:
    """One change of the recipe or of the data, or one spacing of the timesteps in inference."""

    label: str
    changes: Mapping[str, object] = field(default_factory=dict)  # of fields of the recipe
    spacing: Spacing | None = None
    data: tuple[int, ...] = ()  # numbers of the data sets that are trained on; empty: all
    begin: "Variant | None" = None  # what is trained first, and started from
    # of the last data set that is trained on: labels from ``begin`` take the place of its depth
    labelled: bool = False
    unlabelled: int | None = None  # number of the data set whose photographs features are aligned with
    # of a step beside one of the recipe: it is trained for so many times fewer; None: by the operations that both take
    cost: float | None = 1.0


@dataclass(frozen=True)
class Published:
    """Published figures of one row, in the order of the ablation's ``columns``; None stands for any number."""

    label: str
    figures: tuple[str, ...]
    steps: int | None = None
    members: int | None = None


@dataclass(frozen=True)
class Ablation:
    """One table: its rows are variants x denoising steps x members."""

    title: str
    source: str
    columns: tuple[str, ...]
    published: Sequence[Published]
    variants: Sequence[Variant]
    steps: tuple[int, ...] = (4,)
    members: tuple[int, ...] = (1,)

    @property
    def trains(self) -> bool:
        """Return whether every variant is a training run of its own."""
        return any(variant.changes for variant in self.variants)

    def figures(self, label: str, steps: int, members: int) -> tuple[str, ...]:
        """Return the published figures of a row, a column each, dashes where there is none."""
        for row in self.published:
            if row.label == label and row.steps in (None, steps) and row.members in (None, members):
                return row.figures
        return ("-",) * len(self.columns)


_PLAIN: dict[str, object] = {"shares": None, "photographic": 0.0}
_HALF = Variant("synthetic, first half", _PLAIN, data=(0,), cost=2)
PAPER = "Ke et al. 2024 (CVPR)"
BOTH = ("NYUv2", "KITTI")
SHARES = (100, 95, 90, 50, 0)  # percent of the first data set
BUNDLE = "checkpoint"  # label of a checkpoint that is not trained

ABLATIONS: dict[Name, Ablation] = {
    "noise": Ablation(
        title="Training noise",
        source=f"{PAPER}, ablation of training noise; std and max-min of AbsRel over 10 runs: its supplement",
        columns=(*BOTH, "NYUv2 std / max-min", "KITTI std / max-min"),
        published=(
            Published("Gaussian", ("7.7 / 93.4", "14.2 / 82.1", ".086 / .260", ".050 / .152")),
            Published("multi-resolution", ("5.8 / 96.1", "12.1 / 87.1", ".037 / .117", ".030 / .094")),
            Published("annealed multi-resolution", ("5.6 / 96.5", "11.3 / 88.7", ".033 / .106", ".025 / .079")),
        ),
        variants=(
            Variant("Gaussian", {"noise_strength": 0.0, "noise_annealed": False}),
            Variant("multi-resolution", {"noise_strength": 0.9, "noise_annealed": False}),
            Variant("annealed multi-resolution", {"noise_strength": 0.9, "noise_annealed": True}),
        ),
    ),
    "mix": Ablation(
        title="Shares of two data sets",
        source=f"{PAPER}, ablation of training data, Hypersim : Virtual KITTI",
        columns=BOTH,
        published=(
            Published("100 : 0", ("5.7 / 96.3", "13.7 / 82.5")),
            Published("95 : 5", ("5.8 / 96.2", "11.1 / 88.8")),
            Published("90 : 10", ("5.6 / 96.5", "11.3 / 88.7")),
            Published("50 : 50", ("6.0 / 96.0", "12.8 / 85.5")),
            Published("0 : 100", ("13.9 / 83.4", "15.4 / 79.3")),
        ),
        variants=tuple(
            Variant(f"{first} : {100 - first}", {"shares": (float(first), float(100 - first))}) for first in SHARES
        ),
    ),
    "schedule": Ablation(
        title="Noise schedule",
        source="one step on the test sets: v1-0 with trailing timesteps, Martin Garcia et al. 2025; v1-1, as reported "
        "for the release (TPAMI 2025)",
        columns=BOTH,
        published=(
            Published("v1-0", ("5.7 / 96.2", "10.8 / 89.6"), steps=1, members=1),
            Published("v1-1", ("5.9 / 96.1", "-"), steps=1, members=1),
            Published("v1-1", ("5.5 / 96.4", "-"), steps=4, members=10),
        ),
        variants=(Variant("v1-0", {"noise_schedule": "v1-0"}), Variant("v1-1", {"noise_schedule": "v1-1"})),
        steps=(1, 4),
    ),
    "real": Ablation(
        title="What pictures of another domain add to rendered ones",
        source="none; equal compute stands for equal forward and backward passes of the U-Net",
        columns=(),
        published=(),
        variants=(
            Variant("synthetic only", _PLAIN, data=(0,)),
            Variant("augmented", _PLAIN | {"photographic": 1.0}, data=(0,)),
            Variant("hybrid 9 : 1", _PLAIN | {"shares": (0.9, 0.1)}),
            Variant("transfer", _PLAIN, data=(1,), begin=_HALF, cost=2),
            # half a U-Net, forward and backward, for two pictures: as much again as a step
            Variant("feature-aligned", _PLAIN | {"align_weight": 0.1}, data=(0,), unlabelled=1, cost=2),
            Variant("pseudo-labelled", _PLAIN | {"shares": (0.5, 0.5)}, begin=_HALF, labelled=True, cost=2),
        ),
    ),
    "objective": Ablation(
        title="Objective, and what is trained",
        source="Martin Garcia et al. 2025, latent: 50 steps and 10 members; LoRA: Xu et al. 2025 (GenPercept), ranks 4 "
        "to 16 beside 5.3 of all weights",
        columns=BOTH,
        published=(
            Published("latent", ("5.5 / 96.4", "9.9 / 91.6")),
            Published("end to end", ("5.2 / 96.6", "9.6 / 91.9")),
            Published("latent, LoRA of rank 16", ("8.5", "-")),
        ),
        variants=(
            Variant("latent", {"objective": "latent"}),
            Variant("end to end", {"objective": "end_to_end"}, cost=None),
            Variant("latent, LoRA of rank 16", {"lora_rank": 16}, cost=None),
            Variant("latent, LoRA of rank 64", {"lora_rank": 64}, cost=None),
        ),
        steps=(1,),
    ),
    "steps": Ablation(
        title="Denoising steps, and where they lie",
        source=f"marigold-depth-v1-0. Leading: {PAPER}, figure of the ablation of denoising steps, read off its axes; "
        "50 steps: its main table. Trailing: Martin Garcia et al. 2025, who found that the failure at one step is "
        "leading's",
        columns=BOTH,
        published=(
            Published("leading", ("about 35 / 46", "about 62"), steps=1),
            Published("leading", ("6.0 / 95.9", "10.5 / 90.4"), steps=50),
            Published("trailing", ("5.7 / 96.2", "10.8 / 89.6"), steps=1),
            Published("trailing", ("6.0", "-"), steps=50),
        ),
        variants=(Variant("trailing", spacing="trailing"), Variant("leading", spacing="leading")),
        steps=(1, 2, 4, 10, 25, 50),
    ),
    "ensemble": Ablation(
        title="Members of an ensemble",
        source=f"{PAPER}, figure of the ablation of ensemble size, read off its axes; 10 members: 8 % less than one",
        columns=BOTH,
        published=(
            Published(BUNDLE, ("6.13", "11.89"), members=1),
            Published(BUNDLE, ("5.49", "11.22"), members=20),
        ),
        variants=(Variant(BUNDLE),),
        members=(1, 2, 5, 10, 20),
    ),
}

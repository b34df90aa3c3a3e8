"""The ablations of the paper, as changes of a recipe or of inference, with the published figures.

Figures are AbsRel, or AbsRel / delta1, in percent. Those of the paper's ablations are on the NYUv2 training split and
800 pictures of KITTI's, whatever ours are on: only differences between rows compare.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from training.models.networks import Spacing

Name = Literal["noise", "mix", "schedule", "steps", "ensemble"]


@dataclass(frozen=True)
class Variant:
    """One way to train or to place the timesteps of inference; what is left out stays as it is."""

    label: str
    changes: Mapping[str, object] = field(default_factory=dict)  # of the recipe
    spacing: Spacing | None = None


@dataclass(frozen=True)
class Published:
    """Figures of one row, in the order of the ablation's ``columns``; None: whatever the number."""

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
        """Tell whether every variant is a training run of its own."""
        return any(variant.changes for variant in self.variants)

    def figures(self, label: str, steps: int, members: int) -> tuple[str, ...]:
        """Look up what was published for a row -> a figure a column, dashes where there is none."""
        for row in self.published:
            if row.label == label and row.steps in (None, steps) and row.members in (None, members):
                return row.figures
        return ("-",) * len(self.columns)


PAPER = "Ke et al. 2024 (CVPR)"
BOTH = ("NYUv2", "KITTI")
SHARES = (100, 95, 90, 50, 0)  # percent of the first data set
BUNDLE = "checkpoint"  # the label of a checkpoint that is taken as it is

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
        variants=(Variant("leading", spacing="leading"), Variant("trailing", spacing="trailing")),
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

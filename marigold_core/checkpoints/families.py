"""The families of checkpoints: how each begins, what its network predicts, and what repeating a run can change.

A folder is recognised by its configuration files. What these do not say, here alone, is known of published repositories
by their names. Importing this module costs no torch.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Noise = Literal["gaussian", "zeros", "none"]
PromptTokens = Literal[2, 77]

NOISE = "initial_noise"  # a key of ours in model_index.json: "gaussian", or "zeros" for the E2E-FT family
QUANTITY = "prediction_type"  # diffusers' key there: "depth", "disparity", "normals" or "intrinsics"
TASK_NUMBERS = 4  # of Lotus' task embedding


@dataclass(frozen=True)
class Family:
    """How the checkpoints of one family are run; the defaults are Marigold's."""

    name: str
    noise: Noise = "gaussian"  # what a member starts from; "none": the network is given the photo alone
    prediction_type: Literal["v_prediction", "sample"] = "v_prediction"  # of the network
    one_step: bool = False  # the network is used once
    spacing: Literal["trailing", "leading"] = "trailing"  # where that is: at the last or at the first timestep
    prompt_tokens: PromptTokens = 2  # the empty text: begin and end alone, or padded to the text encoder's length
    task: tuple[float, ...] | None = None  # numbers that tell the network what to predict, its ``class_labels``
    normals_x: Literal["right", "left"] | None = "right"  # where X of its normals points; None: they are not run

    @property
    def deterministic(self) -> bool:
        """Whether nothing is drawn, so that members of one view are all the same."""
        return self.noise != "gaussian"

    def in_channels(self, pictures: int = 1) -> int:
        """Count the channels of the network's input: the photo's latent, and the noisy ones if there are any."""
        return 4 if self.noise == "none" else 4 + 4 * pictures

    @property
    def remark(self) -> str:
        """What is special about its runs, in a few words; empty where steps and members are free."""
        return "one step, no noise" if self.deterministic else "one step" if self.one_step else ""


# The numbers are (sin, cos) of (1, 0), "predict the annotation"; (0, 1) would give the photo back.
# Source: He et al. 2024 (arXiv 2409.18124) and the authors' infer.py.
_LOTUS_TASK = (math.sin(1), math.sin(0), math.cos(1), math.cos(0))

MARIGOLD = Family("Marigold")
# Source: Martin Garcia et al. 2024 (arXiv 2409.11355) and the authors' run.py; their load.py turns X to the left.
E2E_FT = Family("E2E-FT", noise="zeros", one_step=True, normals_x="left")
# Source: the authors' pipeline.py and infer.py; their hypersim_dataset.py turns X to the left.
LOTUS_G = Family(
    "Lotus-G", prediction_type="sample", one_step=True, prompt_tokens=77, task=_LOTUS_TASK, normals_x="left"
)
LOTUS_D = Family(
    "Lotus-D",
    noise="none",
    prediction_type="sample",
    one_step=True,
    prompt_tokens=77,
    task=_LOTUS_TASK,
    normals_x="left",
)

# Source: Xu et al. 2025 (arXiv 2403.06090) and the authors' genpercept_pipeline.py: v without any signal is minus the
# result. Which way its normals point is not documented.
GENPERCEPT = Family("GenPercept", noise="none", one_step=True, spacing="leading", normals_x=None)

_PUBLISHED = (  # names of repositories
    re.compile(r"(?P<start>marigold|stable-diffusion)-e2e-ft-(?P<quantity>depth|normals)"),
    re.compile(r"lotus-(?P<quantity>depth|normal)-[gd]-v[\d-]+(?P<disparity>-disparity)?"),
)


def unstated(folder: Path) -> dict[str, object]:
    """Return what is known of a published checkpoint and not in its files, as keys of ``model_index.json``.

    It is known by the name of the repository: that of the folder, or of the hub's snapshot that the folder is.
    """
    name = folder.parents[1].name.rpartition("--")[2] if folder.parent.name == "snapshots" else folder.name
    found = next((match for pattern in _PUBLISHED if (match := pattern.fullmatch(name))), None)
    if found is None:
        return {}
    parts = found.groupdict()
    quantity = "normals" if parts["quantity"].startswith("normal") else "depth"
    noise = {NOISE: "zeros"} if "start" in parts else {}
    return {QUANTITY: "disparity" if parts.get("disparity") else quantity, **noise}


def recognise(index: Mapping[str, object], unet: Mapping[str, object], schedule: Mapping[str, object]) -> Family:
    """Tell the family from ``model_index.json``, what is ``unstated`` included, and U-Net's and scheduler's files."""
    if unet.get("class_embed_type") == "projection" and (
        unet.get("projection_class_embeddings_input_dim") == TASK_NUMBERS
    ):
        return LOTUS_D if unet.get("in_channels") == LOTUS_D.in_channels() else LOTUS_G
    if schedule.get("beta_start") == schedule.get("beta_end") == 1:
        return GENPERCEPT
    saved_by_training = index.get("_class_name") == "StableDiffusionPipeline"  # as the training of E2E-FT saves it
    noise = index.get(NOISE) or ("zeros" if saved_by_training else "gaussian")
    return E2E_FT if noise == "zeros" else MARIGOLD

"""The line with the estimated time of a run, shown before Run is pressed."""

from functools import lru_cache
from pathlib import Path

import gradio as gr

from marigold_core.comparison.sweep import format_seconds
from marigold_core.errors import MarigoldError, SettingsError
from marigold_core.images.photo import read_header
from marigold_core.serving import hosting
from marigold_core.serving.hosting import check_checkpoint
from marigold_core.serving.runtime_estimate import RuntimeEstimate
from marigold_core.settings import Settings
from marigold_core.ui import text
from marigold_core.ui.controls.settings import SettingsInputs
from marigold_core.ui.events import FOLLOWING, LAST, QUIET, follow
from marigold_core.ui.run_controller import RunController, Values

USUAL_SIZE = (3024, 4032)  # of a phone's photo, until there is one


class RuntimeLine:
    """The estimated seconds under the presets."""

    def __init__(self, controller: RunController) -> None:
        """Draw the line."""
        self.controller = controller
        self.line = gr.HTML(elem_classes="note", elem_id="cost")

    def connect(self, page: gr.Blocks, inputs: SettingsInputs) -> None:
        """Estimate anew with every change of what counts, and after every run, which is one more that was timed."""
        photo = self.controller.photo

        def estimate(values: Values) -> str:
            try:
                asked = inputs.read(values)
                size = size_of(values[photo]) if values[photo] else USUAL_SIZE
                made = self.controller.service.estimate(asked, size, check_checkpoint(values[inputs.checkpoint]))
            except MarigoldError:
                return ""  # the run itself gives the reason
            return describe(asked, made, has_photo=bool(values[photo]))

        given = {photo, *inputs.values}
        changes = [page.load, inputs.steps.change, inputs.members.change, inputs.resolution.change]
        changes += [inputs.views.change, inputs.tiles.change, inputs.checkpoint.change, photo.change]
        follow(changes, estimate, given, self.line)
        for job in self.controller.jobs:
            job.success(estimate, given, self.line, **LAST, **FOLLOWING, **QUIET)


def describe(asked: Settings, made: RuntimeEstimate, *, has_photo: bool) -> str:
    """Describe a runtime estimate: what it is of, and what it does not include."""
    steps = asked.num_inference_steps or 1
    sentence = (text.COST if made.measured else text.COST_GUESS).format(
        steps=text.count(steps, "step"),
        members=text.count(asked.ensemble_size, "member"),
        tiles=text.tiles(asked.tiles_per_side),
        time=made.time,
        photo="" if has_photo else text.COST_USUAL,
    )
    if made.download_bytes:
        sentence += text.COST_DOWNLOAD.format(size=made.download_bytes / 1e9)
    return sentence + (_gpu_time(steps, made) if hosting.is_zero_gpu() else "")


def _gpu_time(steps: int, made: RuntimeEstimate) -> str:
    """Say what a run costs on a host that lends its GPU, or, where it is too long for one call, what fits."""
    try:
        return text.GPU_TIME.format(time=format_seconds(hosting.duration_s(made.seconds)))
    except SettingsError:
        fits = hosting.most_members(made.parts, steps)
        most = text.GPU_FITS.format(members=text.count(fits, "member")) if fits else text.GPU_FITS_NONE
        return text.GPU_TOO_LONG.format(limit=format_seconds(hosting.limit_s())) + most


@lru_cache(maxsize=64)
def size_of(path: str) -> tuple[int, int]:
    """Read a photo's size; the page keeps uploads under the hash of their content, so a path stands for one photo."""
    return read_header(Path(path))[0]

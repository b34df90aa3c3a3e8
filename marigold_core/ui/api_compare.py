"""The HTTP endpoint ``compare``: the grid of the compare lab as files and rows."""

from collections.abc import Iterator
from typing import Any, TypedDict

from gradio.data_classes import FileData

from marigold_core.checkpoints.registry import default_checkpoint
from marigold_core.comparison.sweep import Comparison, count_cells
from marigold_core.errors import SettingsError
from marigold_core.prediction import Progress
from marigold_core.serving.jobs import MAX_CELLS, Service, shared_comparison
from marigold_core.settings import DEFAULT_COLORMAP, Colormap, default
from marigold_core.ui import text
from marigold_core.ui.error_messages import translate_errors
from marigold_core.ui.offered_checkpoints import check_checkpoint
from marigold_core.ui.text import compare as compare_text

ARGUMENTS = ("steps", "sizes", "seeds", "processing_resolution", "checkpoints")
NAMES = ("sheet", "differences", "table")  # in the order in which ``Service.export_comparison`` gives them


class CompareResult(TypedDict, total=False):
    """The sheets as PNG, the table as CSV, and its rows; while a job runs only ``progress``."""

    sheet: FileData
    differences: FileData
    table: FileData
    rows: list[dict]
    progress: str


class CompareEndpoint:
    """The function behind the endpoint; Gradio shows its docstring to callers."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def compare(
        self,
        photo: str,
        steps: list[int] | None = None,
        sizes: list[int] | None = None,
        seeds: list[int] | None = None,
        processing_resolution: int | None = default(Comparison, "processing_resolution"),
        checkpoints: list[str] | None = None,
        colormap: Colormap = DEFAULT_COLORMAP,
    ) -> Iterator[dict[str, Any]]:
        """Compare denoising steps, numbers of members, seeds and checkpoints on one photo, side by side.

        Members, first steps and the encoding are shared between cells. What is too much for one comparison is refused.

        Args:
            photo: the photo, JPEG, PNG, WebP, TIFF, BMP, GIF or HEIC, up to 40 MB.
            steps: denoising steps to compare, 1 to 50 each: the rows; by default 1, 2, 4, 10.
            sizes: numbers of members to compare, 1 to 20 each: the columns; by default 1, 3, 5, 10.
            seeds: seeds to compare; by default 0.
            processing_resolution: longest edge the network sees, pixels; 0 is the photo's own size.
            checkpoints: names that the page offers; by default the server's own.
            colormap: the colours of the sheet.
        """
        with translate_errors():
            asked, names = read_comparison(steps, sizes, seeds, processing_resolution, checkpoints)
            key, sweep = self.service.begin_comparison(photo, asked, names)
            sweep.colormap = colormap
            for event in self.service.run_comparison(sweep):
                if isinstance(event, Progress):
                    yield {"progress": event.stage}
                else:
                    done, cells = len(sweep.tiles), text.count(len(sweep.places()), "cell")
                    yield {"progress": compare_text.CELLS.format(done=done, cells=cells)}
            files = zip(NAMES, self.service.export_comparison(key), strict=True)
            answer: dict[str, Any] = {
                name: FileData(path=str(path), orig_name=path.name).model_dump() for name, path in files
            }
            yield {**answer, "rows": [row.record for row in sweep.rows()]}


def read_comparison(
    steps: list[int] | None,
    sizes: list[int] | None,
    seeds: list[int] | None,
    processing_resolution: int | None,
    checkpoints: list[str] | None,
) -> tuple[Comparison, list[str]]:
    """Read the arguments of the endpoint -> what to compare, and with which checkpoints.

    Raises: SettingsError, CheckpointError.
    """
    axes = {"steps": steps, "sizes": sizes, "seeds": seeds}
    given = {name: values for name, values in axes.items() if values is not None}
    asked = shared_comparison(**given, processing_resolution=processing_resolution)
    names = [default_checkpoint()] if checkpoints is None else checkpoints
    if not isinstance(names, list):
        raise SettingsError("checkpoints must be a list of names.")
    names = [check_checkpoint(name) for name in names]
    count_cells(asked, names, MAX_CELLS)
    return asked, names

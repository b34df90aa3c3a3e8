"""A comparison in one go against its cells one by one, both with this project's own pipeline."""

from itertools import product

from marigold_core import Settings, load
from marigold_core.comparison.sweep import Comparison
from tests.bench.stages import Rivals, photo
from tests.bench.timing import Row, compare


def measure_grid(rivals: Rivals, repeats: int) -> Row:
    """Time the cells of ``compare``'s defaults as one grid, and as separate runs of the same settings."""
    pipe = load(rivals.folder, device=rivals.device, dtype=rivals.dtype)
    picture, asked = photo(), Comparison()
    pipe(picture)  # wakes the machine up: a single repeat has no round that is not counted

    def ours() -> None:
        for _ in pipe.stream_grid(picture, asked.steps, asked.sizes, asked.seeds, asked.shared):
            pass

    def theirs() -> None:
        for steps, size in product(asked.steps, asked.sizes):
            pipe(picture, Settings(num_inference_steps=steps, ensemble_size=size))

    what = f"grid of {len(asked.steps)} step counts x {len(asked.sizes)} sizes, against {asked.cells} runs"
    return compare(rivals.checkpoint, what, ours, theirs, repeats)

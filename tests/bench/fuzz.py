"""Hostile bytes for the decoder: mutated photos, then atheris, which looks for bytes that reach new code.

    python -m tests.bench.fuzz --mutated 3000 --seconds 300     # atheris: pip install 'marigold-depth-studio[fuzz]'

Nothing but ``ImageError`` may come out, within five seconds and a gigabyte. What reaches new code is added to
``tests/images/corpus``, which the suite reads.
"""

import argparse
import importlib
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

CORPUS = Path(__file__).parents[1] / "images" / "corpus"
LONGEST = 16384  # bytes of a corpus file


def read_or_refuse(content: bytes) -> str:
    """Read a photo, or be told why not -> which of the two; any other exception is a find."""
    from marigold_core.errors import ImageError  # here, so that atheris can watch which code is reached
    from marigold_core.images.photo import load_photo

    try:
        load_photo(content)
    except ImageError:
        return "refused"
    return "read"


def mutated(count: int, seed: int = 0) -> Counter[str]:
    """Change a few bytes of corpus files, mostly of their heads -> how they ended."""
    rng, ends = np.random.default_rng(seed), Counter[str]()
    files = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    for number in range(count):
        content = bytearray(files[number % len(files)])
        for _ in range(rng.integers(1, 12)):
            content[rng.integers(0, min(len(content), 400 if rng.random() < 0.8 else len(content)))] = rng.integers(256)
        if rng.random() < 0.2:
            content = content[: rng.integers(1, len(content) + 1)]
        began = time.process_time()
        try:
            ends[read_or_refuse(bytes(content))] += 1
        except Exception as error:  # the find
            ends[type(error).__name__] += 1
        ends["slow"] += time.process_time() - began > 2
    return ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutated", type=int, default=3000)
    parser.add_argument("--seconds", type=int, default=300, help="of atheris; 0 is none")
    asked = parser.parse_args()
    if asked.seconds:
        atheris: Any = importlib.import_module("atheris")  # of the extra "fuzz"

        with atheris.instrument_imports(include=["marigold_core.images", "PIL"]):
            import marigold_core.images.photo  # noqa: F401
    print(f"{asked.mutated} mutated:", dict(mutated(asked.mutated)), flush=True)
    if asked.seconds:
        limits = [f"-max_total_time={asked.seconds}", "-timeout=5", "-rss_limit_mb=1024", f"-max_len={LONGEST}"]
        atheris.Setup([sys.argv[0], *limits, str(CORPUS)], read_or_refuse)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

"""``python -m tests.bench``: measure, print the table, write the JSON."""

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from marigold_core.storage import write_json
from tests.bench.grid import measure_grid
from tests.bench.page import measure_in_page
from tests.bench.processes import ROOT, measure_fresh, measure_page, measure_runs
from tests.bench.stages import Rivals, measure_aligner, measure_median, measure_ours, measure_stages
from tests.bench.timing import Row, machine, print_table
from tests.bench.training import measure_training
from training.engine.command import check_json_out
from training.start import new_checkpoint

NANO = ROOT / "assets" / "marigold-nano"
SECTIONS = ("aligner", "median", "tiny", "nano", "public", "runs", "grid", "page", "training")
DEFAULT = [name for name in SECTIONS if name not in ("public", "runs")]


def main() -> None:
    """Run the sections that were asked for; what was measured is written even if a later one fails."""
    given = parse_options()
    check_json_out(given.json, ("command", "machine", "rows"))
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    if given.threads:
        torch.set_num_threads(given.threads)
        os.environ["OMP_NUM_THREADS"] = str(given.threads)  # for the processes started later
    device = "cuda" if given.device == "auto" and torch.cuda.is_available() else given.device.replace("auto", "cpu")
    report = {
        "command": f"python -m tests.bench {shlex.join(sys.argv[1:])}".strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "dtype": given.dtype,
        "machine": machine(torch.device(device)),
    }
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory(prefix="marigold-bench-") as scratch:
            for found in measure(given, device, Path(scratch)):
                rows += found
                print_table(found)
    finally:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        report["rows"] = [row.as_json() for row in rows]
        write_json(given.json, report)
    print(f"\n{report['machine']}\n")
    print_table(rows)
    print(f"\nwritten to {given.json}")


def measure(given: argparse.Namespace, device: str, scratch: Path) -> Iterator[list[Row]]:
    """Yield the rows of one section after the other."""
    sections = [name for name in SECTIONS if name in given.only]
    if "aligner" in sections:
        yield measure_aligner(device, given.repeats)
    if "median" in sections:
        yield measure_median(device, given.repeats)
    for name in sections:
        if name not in ("tiny", "nano", "public"):
            continue
        rivals = open_rivals(name, given, device, scratch)
        if rivals is None:
            continue
        repeats = 1 if name == "public" and device == "cpu" else given.repeats  # minutes a sample
        yield measure_stages(rivals, repeats)
        yield measure_fresh(rivals, min(repeats, 3))
    if "runs" in sections:  # six minutes on two cores in bfloat16, where all of "public" takes an hour
        for name in ("nano", "public"):
            if rivals := open_rivals(name, given, device, scratch / "runs"):
                yield measure_ours(rivals, given.repeats) if name == "nano" else measure_runs(rivals)
    if "grid" in sections:
        for name, repeats in (("tiny", min(given.repeats, 3)), ("nano", 1)):  # sixteen runs of nano take half a minute
            if rivals := open_rivals(name, given, device, scratch / "grid"):
                yield [measure_grid(rivals, repeats)]
    if "page" in sections:
        folder = NANO if NANO.exists() else new_checkpoint(scratch / "page", "tiny")
        yield [measure_page(folder, min(given.repeats, 3))]
        yield measure_in_page(str(folder), given.repeats)
    if "training" in sections:
        yield measure_training(scratch / "training", given.repeats)


def open_rivals(name: str, given: argparse.Namespace, device: str, scratch: Path) -> Rivals | None:
    """Make or find the checkpoint of a name; None, with a word, where it is not there."""
    if name == "nano" and not NANO.exists():
        print("nano is left out: assets/marigold-nano is not there")
        return None
    folder = NANO if name == "nano" else new_checkpoint(scratch / name, name, dtype=getattr(torch, given.dtype))
    return Rivals(name, folder, device, given.dtype, given.batch_size)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="ours against diffusers and a plain training loop, in one run"
    )
    parser.add_argument("--json", type=Path, default=ROOT / "outputs" / "bench.json", help="file to write")
    parser.add_argument("--repeats", type=int, default=5, help="alternated runs of each part; the median is shown")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of both sides")
    parser.add_argument("--threads", type=int, help="of torch, on both sides; by default what torch chooses")
    parser.add_argument("--batch-size", type=int, default=1, help="members in one forward pass, of both sides")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=DEFAULT)
    parser.add_argument(
        "--public",
        action="append_const",
        dest="only",
        const="public",
        help="also random weights in the public 866 M shape: 12 GB of memory and about an hour on two cores",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""What the tests of the command line share beside the fixtures: fast options, fresh processes, hashes of a folder."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from marigold_core import cli
from marigold_core.options import Presets

ROOT = Path(__file__).parents[2]
QUICK = ["--num-inference-steps", "1", "--processing-resolution", "32"]
Predict = Callable[..., int]


def predicting(out: Path, model: Path, *words: object) -> list[str]:
    """``predict``, fast and on the processor, of the photos among the words; an option counts as last given."""
    return [str(word) for word in ("predict", "-o", out, "--model", model, "--device", "cpu", *QUICK, *words)]


def run_command(*words: object) -> int:
    """Run a command line in this process -> its exit status."""
    return cli.main([str(word) for word in words])


def exit_status(command: Callable[..., int | None], *words: object, presets: Presets | None = None) -> int:
    """Run a command of ``training`` in this process."""
    from training.engine.command import run

    with pytest.raises(SystemExit) as ended:
        run(command, "command", [str(word) for word in words], presets)
    return int(ended.value.code or 0)


def fingerprints(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def fresh(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, from the repository's folder."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )

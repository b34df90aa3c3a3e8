"""The command ``doctor``: examines the machine and prints what works, what does not and what to do about it."""

import ctypes.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from marigold_core.cli.console import ALL_DONE, SOME_FAILED
from marigold_core.errors import CheckpointError

PYTHON_FLOOR = (3, 11)
FREE_DISK_GB = 5  # a public checkpoint in half precision takes half of it
_REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"


@dataclass(frozen=True)
class Finding:
    """One line of the report. "fail" stops predictions, "note" limits them."""

    state: Literal["ok", "note", "fail"]
    what: str
    advice: str = ""


def doctor() -> int:
    """Examine this machine and say what to do about what does not work."""
    failed = False
    for finding in examine():
        failed |= finding.state == "fail"
        advice = f"\n      {finding.advice}" if finding.advice else ""
        print(f"{finding.state:4}  {finding.what}{advice}", flush=True)
    return SOME_FAILED if failed else ALL_DONE


def examine() -> Iterator[Finding]:
    """Yield the findings one by one; the last ones import torch and read checkpoints."""
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    floor = f"Python {'.'.join(map(str, PYTHON_FLOOR))} or newer is needed."
    yield Finding("ok", python) if sys.version_info >= PYTHON_FLOOR else Finding("fail", python, floor)
    yield from _packages()
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    disk = f"{free_gb:.0f} GB free on the disk of this folder"
    full = Finding("note", disk, "Public checkpoints may not fit.")
    yield Finding("ok", disk) if free_gb >= FREE_DISK_GB else full
    no_heic = Finding("note", "HEIC photos cannot be read", "pip install pi-heif")
    yield Finding("ok", "HEIC photos can be read") if find_spec("pi_heif") else no_heic
    no_egl = Finding("note", "EGL is missing: training cannot render scenes", "Install libegl1 and libgl1-mesa-dri.")
    yield Finding("ok", "EGL is there: training can render scenes") if ctypes.util.find_library("EGL") else no_egl
    if find_spec("torch"):
        yield _device()
        yield from _checkpoints()


def _packages() -> Iterator[Finding]:
    """Compare what is installed with requirements.txt, or with the installed package's own list."""
    if _REQUIREMENTS.exists():
        lines = [line.partition("#")[0].strip() for line in _REQUIREMENTS.read_text().splitlines()]
    else:
        lines = [line for line in metadata.requires("marigold-depth-studio") or [] if "extra ==" not in line]
    for wanted in (Requirement(line) for line in lines if line):
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield Finding("fail", f"{wanted.name} is missing", f"pip install '{wanted}'")
            continue
        if wanted.specifier.contains(version, prereleases=True):
            yield Finding("ok", f"{wanted.name} {version}")
        else:
            yield Finding("fail", f"{wanted.name} {version} is outside {wanted.specifier}", f"pip install '{wanted}'")


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Finding("ok", f"{torch.cuda.get_device_name()}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free")
    if torch.backends.mps.is_available():
        return Finding("ok", "Apple GPU (mps)")
    memory = ""
    if hasattr(os, "sysconf"):
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB of memory"
    what = f"no GPU; CPU with {os.cpu_count()} cores{memory}"
    return Finding("note", what, "The bundled checkpoint is quick here; the public ones take minutes a photo.")


def _checkpoints() -> Iterator[Finding]:
    """Verify the bundled checkpoints and the default one; what is not on this machine is not fetched for it."""
    from marigold_core.checkpoints.registry import NAMED, default_checkpoint, find_here

    bundled = [entry.name for entry in NAMED.values() if entry.hub_id is None]
    for name in dict.fromkeys([*bundled, default_checkpoint()]):
        try:
            checkpoint = find_here(name)
        except CheckpointError as error:
            if name in bundled:
                what = f"the bundled checkpoint {name} cannot be used: {error}"
                yield Finding("fail", what, "Get a fresh copy of assets/.")
            else:
                yield Finding("fail", f"MARIGOLD_MODEL names what cannot be used: {error}")
        else:
            if checkpoint is None:
                yield Finding("note", f"checkpoint {name}, which MARIGOLD_MODEL names, is downloaded on first use")
                continue
            yield Finding("ok", f"checkpoint {name}: {checkpoint.size_bytes / 1e6:.0f} MB, every file verified")

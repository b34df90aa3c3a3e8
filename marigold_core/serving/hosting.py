"""Hosts that lend a GPU for the length of a call: ZeroGPU of Hugging Face Spaces.

There every call states beforehand for how many seconds it wants the GPU. They are charged against a visitor's quota for
the day, and a call that takes longer is ended. Source: hub documentation of ZeroGPU and its package ``spaces`` 0.51.
Importing this module costs no torch.
"""

import os

from marigold_core.checkpoints.registry import default_checkpoint, named_checkpoints
from marigold_core.comparison.sweep import PartTimes, format_seconds
from marigold_core.errors import CheckpointError, HostError, SettingsError

WORKER_START_S = 3.0  # assumed: to start the worker and bring the weights to its GPU
MARGIN = 1.25  # estimates are not exact, and a call that takes longer than it said is ended
DEFAULT_LIMIT_S = 60  # what the host itself grants a call that states nothing
# The refusals of ``spaces`` by the title that it gives them, as a visitor understands them.
REFUSALS = {
    "ZeroGPU queue timeout": "No GPU was free within a minute; try again in a moment.",
    "ZeroGPU client error": "No GPU is free just now; try again in a moment.",
    "ZeroGPU pending credits exceeded": "Your other runs hold all GPU time that you have; wait until they have ended.",
    "ZeroGPU illegal duration": "This run needs the GPU for longer than you may; choose fewer steps or members.",
}
QUOTA, WORKER, ABORTED = "ZeroGPU quota exceeded", "ZeroGPU worker error", "GPU task aborted"


def is_zero_gpu() -> bool:
    """Return whether this host lends its GPU by the call; it says so by ``$SPACES_ZERO_GPU``."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def hosted_checkpoints() -> list[str]:
    """List what such a host offers: the default checkpoint and ``$MARIGOLD_EXTRA_MODEL``, all loaded at the start."""
    names = [default_checkpoint(), os.environ.get("MARIGOLD_EXTRA_MODEL", "")]
    return list(dict.fromkeys(name for name in names if name))


def offered_checkpoints() -> list[str]:
    """List what users of a server may choose: its default checkpoint and all published ones that can run here."""
    names = [entry.name for entry in named_checkpoints() if entry.available or entry.hub_id]
    first = hosted_checkpoints() if is_zero_gpu() else [default_checkpoint()]
    if is_zero_gpu():
        names = [name for name in names if name in first]
    return [*(name for name in first if name not in names), *names]


def check_checkpoint(name: str) -> str:
    """Return a name that is offered; the web reaches no other folder or repository. Raises: CheckpointError."""
    if name not in (names := offered_checkpoints()):
        raise CheckpointError(f"There is no checkpoint {name!r} here; choose one of {', '.join(names)}.")
    return name


def limit_s() -> int:
    """Return the most seconds that one call may ask for: ``$MARIGOLD_GPU_SECONDS``, else the host's own default.

    Raises: SettingsError when the variable holds no positive whole number.
    """
    stated = os.environ.get("MARIGOLD_GPU_SECONDS") or str(DEFAULT_LIMIT_S)
    if not stated.isdecimal() or int(stated) == 0:
        raise SettingsError(f"MARIGOLD_GPU_SECONDS must be a positive whole number of seconds; it is {stated!r}.")
    return int(stated)


def duration_s(estimated_s: float) -> int:
    """Return the seconds to ask for, for a run whose work on the GPU was estimated.

    Raises: SettingsError when that is more than one call may ask for.
    """
    seconds, limit = round(MARGIN * (WORKER_START_S + estimated_s)), limit_s()
    if seconds > limit:
        raise SettingsError(
            f"This run needs the GPU for about {format_seconds(seconds)}, and one run may have it for "
            f"{format_seconds(limit)}; choose fewer steps, fewer members or a lower resolution."
        )
    return seconds


def most_members(parts: PartTimes, steps: int) -> int:
    """Return how many members fit into one call of so many denoising steps; 0 when not even one does."""
    free_s = limit_s() / MARGIN - WORKER_START_S - parts.encode_s
    return max(0, int(free_s / (steps * parts.step_s + parts.decode_s)))


def explain_refusal(title: str, message: str) -> HostError:
    """Turn a refusal of ``spaces``, by its title and message, into our sentence."""
    if title == QUOTA:
        wait = message.partition("Try again in ")[2].split(". ")[0].rstrip(". ")
        when = f"it is renewed in {wait} (h:mm:ss)" if wait else "come back tomorrow"
        return HostError(f"Your GPU time for today does not suffice for this run; {when}, or choose fewer members.")
    if title == WORKER and message == ABORTED:
        return HostError("The host ended this run, mostly because it took longer than planned; choose fewer members.")
    if title == WORKER:
        return HostError(f"The process that had the GPU failed ({message}); try again.")
    return HostError(REFUSALS.get(title, f"The host refused this run: {message}"))

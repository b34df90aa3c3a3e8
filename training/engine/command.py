"""The command line of all training commands: options, one sentence for an error, exit status.

0 done; 2 bad input, or the ``exit_code`` of the error; 130 stopped with Ctrl-C; 141 the output was closed. Errors of
the program itself keep their traceback.
"""

import json
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NoReturn

from marigold_core.errors import MarigoldError
from marigold_core.options import Presets, call, for_a_reader
from marigold_core.storage import claim
from training import stop_at_once

BAD_INPUT, INTERRUPTED = 2, 130


def run(
    function: Callable[..., int | None],
    prog: str,
    words: Sequence[str] | None = None,
    presets: Presets | None = None,
    expand: Callable[[Sequence[str]], Sequence[str]] = list,
) -> NoReturn:
    """Call ``function`` with the values of the command line and exit with its result, 0 for None.

    Parameters that are models, such as a recipe, become one option a field. ``presets`` adds an option that chooses
    the defaults of all others; ``expand`` may add words.

    Raises: SystemExit, always, except for errors of the program itself.
    """
    try:
        if signal.getsignal(signal.SIGINT) is stop_at_once:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _without_bars()
        given = expand(sys.argv[1:] if words is None else words)
        sys.exit(for_a_reader(lambda: call(function, given, prog, presets)))
    except MarigoldError as error:
        print(error, file=sys.stderr)
        sys.exit(getattr(error, "exit_code", BAD_INPUT))
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where this one ended.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def check_json_out(path: Path | None, keys: Collection[str]) -> None:
    """Check, before the work is done, that results can be written to ``path`` and replace nothing but older results.

    These are an object, or a list of objects, that has all ``keys``.

    Raises: MarigoldError when there is something else, or the disk refuses.
    """
    if path is None:
        return
    if not path.exists():
        with claim(path):
            return
    try:
        older = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        older = None
    reports = older if isinstance(older, list) else [older]
    if not reports or not all(isinstance(report, dict) and report.keys() >= set(keys) for report in reports):
        raise MarigoldError(f"{path} is there already and is no result of this command: give another name.")


def _without_bars() -> None:
    """Switch off the progress bars of libraries that are loaded, which they draw for each small file."""
    for library in ("diffusers", "transformers"):
        if logging := sys.modules.get(f"{library}.utils.logging"):
            logging.disable_progress_bar()

"""The command line of a training command, the same for all: options, sentences instead of traces, exit status.

0 done; 2 bad input, or what ``exit_code`` of the error says; 130 stopped with Ctrl-C; 141 nobody reads on. Whatever is
a fault of the program keeps its trace.
"""

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from marigold_core.errors import MarigoldError
from marigold_core.options import Presets, call, for_a_reader

BAD_INPUT, INTERRUPTED = 2, 130


def run(
    function: Callable[..., int | None], prog: str, words: Sequence[str] | None = None, presets: Presets | None = None
) -> NoReturn:
    """Call ``function`` with what the command line says and exit with its result, 0 for None.

    Parameters that are models, such as a recipe, become one option a field. ``presets`` adds an option that chooses
    the defaults of all others.

    Raises: SystemExit, always, unless the program is at fault.
    """
    try:
        _without_bars()
        given = sys.argv[1:] if words is None else words
        sys.exit(for_a_reader(lambda: call(function, given, prog, presets)))
    except MarigoldError as error:
        print(error, file=sys.stderr)
        sys.exit(getattr(error, "exit_code", BAD_INPUT))
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where this one ended.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _without_bars() -> None:
    """Keep the libraries, where they are loaded, from drawing bars for the weights of every small part."""
    for library in ("diffusers", "transformers"):
        if logging := sys.modules.get(f"{library}.utils.logging"):
            logging.disable_progress_bar()

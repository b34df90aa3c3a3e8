"""Runs the command line: ``python -m marigold_core predict photo.jpg -o results``."""

import os
import sys
from collections.abc import Sequence


def _stop(*_: object) -> None:
    """End at once: an exception in the middle of an import would be reported as something else, with a trace."""
    os.write(2, b"Stopped.\n")
    os._exit(130)


def run(command: Sequence[str] = ()) -> None:
    """Run ``command`` with the arguments that the process was started with, and exit with its status."""
    try:
        import signal  # here, since it takes a moment in which the interpreter's own handler still holds

        before = signal.signal(signal.SIGINT, _stop)
    except KeyboardInterrupt:
        _stop()
        raise
    from marigold_core.cli import main
    from marigold_core.options import for_a_reader

    try:
        signal.signal(signal.SIGINT, before)
        status = for_a_reader(lambda: main([*command, *sys.argv[1:]]))
    except KeyboardInterrupt:  # outside of what ``main`` runs
        _stop()
    else:
        from marigold_core.serving.model_thread import any_is_alive

        if any_is_alive():  # of a server; the interpreter would end with "terminate called" and a core dump
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
            os._exit(status or 0)
        sys.exit(status)


if __name__ == "__main__":
    run()

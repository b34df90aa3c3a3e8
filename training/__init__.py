"""The fine-tuning, ``python -m training``."""

import os
import signal
import sys
from typing import NoReturn


def stop_at_once(*_: object) -> NoReturn:
    """End at once: torch is imported for seconds, in which an exception would be a trace."""
    os.write(2, b"Stopped.\n")
    os._exit(130)


if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # of ``python -m``
    signal.signal(signal.SIGINT, stop_at_once)  # until ``engine.command`` runs the command

"""A process that is killed at a chosen change of the disk, for tests of what is left then."""

import os
import signal
import sys
import traceback
from collections.abc import Callable

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Do some work in a process that SIGKILL ends before its change ``number`` of the disk -> whether it was."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"the work failed at change {number}"
        return os.WIFSIGNALED(status)
    left = number

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or opened:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(count)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)

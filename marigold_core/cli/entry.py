"""The command line: one command a module, each option a field of a settings model.

Exit status: 0 all done, 1 some photos failed, 2 usage, 3 checkpoint, 130 stopped, 141 the reader of a pipe has gone.
Help and usage errors import no torch.
"""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from marigold_core import __version__
from marigold_core.cli.calibrate import calibrate
from marigold_core.cli.compare import compare
from marigold_core.cli.console import ALL_DONE, CHECKPOINT, INTERRUPTED, USAGE, shown
from marigold_core.cli.defocus import defocus
from marigold_core.cli.demo import demo
from marigold_core.cli.doctor import doctor
from marigold_core.cli.import_depth import import_depth
from marigold_core.cli.models import models
from marigold_core.cli.panorama import panorama
from marigold_core.cli.parallax import parallax
from marigold_core.cli.predict import predict
from marigold_core.cli.replay import replay
from marigold_core.cli.video import video
from marigold_core.errors import CheckpointError, MarigoldError
from marigold_core.options import COMPLETION, dispatch

SCRIPT = "marigold-depth"
COMMANDS = (predict, video, panorama, parallax, defocus, compare, calibrate, import_depth, replay, models, doctor, demo)


def main(words: Sequence[str]) -> int:
    """Run one command line, without the program's name -> exit status. Help and usage errors raise SystemExit."""
    warnings.filterwarnings("ignore", module="PIL")  # of metadata that are damaged, which are left out
    if [*words] in (["--version"], ["-V"]):
        print(SCRIPT, __version__)
        return ALL_DONE
    installed = Path(sys.argv[0]).stem == SCRIPT or words[:1] == [COMPLETION]  # python's own completion stays
    program = SCRIPT if installed else "python -m marigold_core"
    try:
        return dispatch(COMMANDS, words, program, "Photos become depth and meshes.")
    except MarigoldError as error:
        print(shown(error), file=sys.stderr)
        return CHECKPOINT if isinstance(error, CheckpointError) else USAGE
    except KeyboardInterrupt:
        goes_on = " The same command goes on where this one ended." if words[:1] in (["predict"], ["video"]) else ""
        print(f"Stopped.{goes_on}", file=sys.stderr)
        return INTERRUPTED

"""Lists the commands of training, ``python -m training``."""

import ast
import difflib
import sys
from pathlib import Path


def commands() -> dict[str, str]:
    """Read the commands without importing them -> the first sentence about each, by name, in the order of use."""
    found = {}
    for name in ORDER:
        module = ast.parse((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
        first = (ast.get_docstring(module) or "").split("\n\n")[0].replace("\n", " ")
        found[name] = first.split(", ``python")[0].split(": ``python")[0].rstrip(".")
    return found


ORDER = (
    *("prepare", "render", "doctor", "autoencoder", "prior", "start", "latents"),
    *("draft", "train", "label", "average", "displacement", "expected_error", "evaluate", "ablate", "publish", "nano"),
)


def main() -> None:
    """Print the commands. Exit status 2 when one was named as a word of its own."""
    named = [word for word in sys.argv[1:] if not word.startswith("-")]
    if named:
        meant = next(iter(difflib.get_close_matches(named[0], ORDER, n=1)), "COMMAND")
        print(f"Write the command as python -m training.{meant}; python -m training lists them.", file=sys.stderr)
        sys.exit(2)
    print("python -m training.COMMAND --help shows the options of a command; training/README.md is the manual.\n")
    for name, sentence in commands().items():
        print(f"  {name:12s} {sentence}")


if __name__ == "__main__":
    main()

"""The source as data: the files of the product, what they import, what a checkout holds."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "marigold_core").rglob("*.py"))
TRAINING = sorted((ROOT / "training").rglob("*.py"))
PRODUCT = [*CORE, *TRAINING, ROOT / "app.py"]


def name_of(path: Path) -> str:
    """marigold_core/ui/api.py -> ui, marigold_core/errors.py -> errors, training/train.py -> training."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "marigold_core" else parts[0]


def imports(path: Path, lazy: bool = True) -> Iterator[str]:
    """Full dotted names that a file imports at run time; without ``lazy`` only those at module level."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]

    def visit(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not lazy:
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            if base in (["marigold_core"], ["training"], ["diffusers"], ["transformers"]) or not node.module:
                yield from (".".join([*base, alias.name]) for alias in node.names)
            else:
                yield ".".join(base)
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")))


def outer(path: Path, lazy: bool = True) -> set[str]:
    """Packages of others that a file imports."""
    tops = {name.partition(".")[0] for name in imports(path, lazy)}
    return {top for top in tops if top not in sys.stdlib_module_names} - {"marigold_core", "training", "tests"}


def show(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def checked_in() -> list[Path]:
    """Files that a checkout holds: what git tracks, or all but what it ignores where there is no repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        tops = ("app.py", "marigold_core", "training", "assets", "tests", "README.md")
        files = [path for top in tops for path in [ROOT / top, *(ROOT / top).rglob("*")]]
        return [path for path in files if path.is_file() and "__pycache__" not in path.parts]
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]

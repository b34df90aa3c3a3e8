"""Data sets: pictures with known depth, read from the folders they are published in; ``open_set`` opens any of them."""

from pathlib import Path

from marigold_core.errors import MarigoldError
from training.data.sets.files import FileSet
from training.data.sets.formats import FORMATS, search_pairs
from training.data.sets.rendered import RenderedScenes
from training.data.sets.sample import DepthSet

KINDS = (*FORMATS, "rendered")


def open_set(spec: str, split: str = "train") -> DepthSet:
    """Open a data set.

    Args:
        spec: "KIND:FOLDER", "KIND/SPLIT:FOLDER", or a folder of one's own whose kind is recognised.
        split: "train", "val" or "test", where ``spec`` names none. A set of one's own without list files is opened
            whole. A set for evaluation has either "val" or "test", and is opened for both; for "train" only where
            ``spec`` names the split.

    Returns:
        The data set; no picture has been read.

    Raises:
        MarigoldError: the kind or the split is unknown, or the folder is missing, empty or of another layout.
    """
    kind, named, folder = _parse(spec)
    if not folder.is_dir():
        raise MarigoldError(f"There is no folder {folder}.")
    if kind == "rendered":
        if named:
            raise MarigoldError(f"{kind} has no splits; write {kind}:FOLDER.")
        return RenderedScenes(folder)
    form = FORMATS[kind]
    if not named and form.own and not form.has_lists(folder):
        return FileSet(form, folder, "")
    if named and named not in form.lists:
        raise MarigoldError(f"{kind} has no split {named!r}; it has {', '.join(form.lists)}.")
    if not named and split == "train" and split not in form.lists:
        first = next(iter(form.lists))
        raise MarigoldError(f"{kind} is for evaluation; write {kind}/{first}:{folder} to use it all the same.")
    evaluation = "test" if "test" in form.lists else "val"
    return FileSet(form, folder, named or (split if split in form.lists else evaluation))


def is_spec(text: str) -> bool:
    """Tell "KIND:FOLDER" and "KIND/SPLIT:FOLDER" from a path."""
    head, colon, _ = text.partition(":")
    return bool(colon) and head.partition("/")[0] in KINDS


def _parse(spec: str) -> tuple[str, str, Path]:
    """Take "KIND/SPLIT:FOLDER" apart -> kind, split or "", folder; the kind of a plain folder is found by looking."""
    head, colon, rest = spec.partition(":")
    kind, _, named = head.partition("/")
    if is_spec(spec):
        return kind, named, Path(rest)
    folder = Path(spec)
    if folder.is_dir():
        return recognise(folder), "", folder
    if colon and len(kind) > 1:  # one letter is a drive
        raise MarigoldError(f"{kind!r} is no kind of data set; there are {', '.join(KINDS)}.")
    raise MarigoldError(f"There is no folder {folder}.")


def recognise(folder: Path) -> str:
    """Look at a folder -> "rendered", "measured" or "pairs"."""
    if any(folder.glob("shard_*/meta.json")):
        return "rendered"
    if any(folder.glob("*/depth.npz")):
        return "measured"
    if any((folder / photo).is_file() and (folder / depth).is_file() for photo, depth in search_pairs(folder)):
        return "pairs"
    raise MarigoldError(
        f"{folder} has neither shards of training.render nor NAME/rgb.png with NAME/depth.npz nor NAME.jpg with "
        "NAME.depth.png nor rgb/NAME.jpg (or images/, photos/) with depth/NAME.png; write KIND:FOLDER for a published "
        f"data set, of kind {', '.join(FORMATS)}."
    )

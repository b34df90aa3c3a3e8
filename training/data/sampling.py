"""Sampling: which pictures make a micro-batch, a function of its number alone, not of restarts or workers.

A source gives pictures to encode (``Pictures``) or latents encoded before (``Latents``); several are mixed by
micro-batch, so that each has one size and one data set, as published.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from marigold_core.errors import MarigoldError
from marigold_core.pipeline.modalities import Depth, Modality
from training.data.framing import PUBLISHED, Batch, choose_size, frame
from training.data.latent_cache import NAMES, OLD_DEFAULTS, read_index, target_record
from training.data.sets.sample import DepthSet, Sample
from training.data.targets import name_of
from training.recipe import Framing

PARTS, GREY = ("image", "target", "valid"), "grey"  # files of a shard of latents; older ones lack the grey
BLOCK = 1024  # micro-batches whose sources are drawn together


class Source(Protocol):
    """A collection of pictures that micro-batches are drawn from."""

    label: str

    def groups(self) -> list[np.ndarray]:
        """Number the items, [M] int each; those of a group may share a micro-batch."""
        ...

    def names(self, items: Sequence[int]) -> tuple[str, ...]:
        """Name items without reading them."""
        ...

    def read(self, items: Sequence[int], place: tuple[int, ...]) -> Batch:
        """Make a micro-batch of items; every random choice is a function of ``place``."""
        ...

    def fingerprint(self) -> str:
        """Identify this source and its pictures."""
        ...

    def long_edge_px(self, factor: int) -> int:
        """Return the longest edge that the network is trained at, pixels; ``factor`` is the autoencoder's."""
        ...


class Pictures:
    """A data set whose pictures are framed anew each time they are read."""

    def __init__(
        self,
        a_set: DepthSet,
        framing: Framing,
        factor: int,
        colours: Tensor | None = None,
        modality: Modality = PUBLISHED,
    ) -> None:
        self.a_set, self.framing, self.factor, self.colours, self.modality = a_set, framing, factor, colours, modality
        self.label = a_set.kind

    def groups(self) -> list[np.ndarray]:
        """Keep landscape and portrait apart."""
        portrait = np.array([height > width for height, width in self.a_set.sizes()], dtype=bool)
        return [numbers for numbers in (np.flatnonzero(~portrait), np.flatnonzero(portrait)) if len(numbers)]

    def names(self, items: Sequence[int]) -> tuple[str, ...]:
        """Name pictures without reading them."""
        return tuple(f"{self.label}: {self.a_set.name(item)}" for item in items)

    def read(self, items: Sequence[int], place: tuple[int, ...]) -> Batch:
        """Read and frame pictures. Raises: MarigoldError naming the first that is damaged."""
        samples: list[Sample] = [self.a_set[item] for item in items]
        size = choose_size(self.a_set, items[0], self.framing, np.random.default_rng(place))
        return frame(samples, self.a_set, size, self.framing, self.factor, place, self.colours, self.modality)

    def fingerprint(self) -> str:
        """Hash kind, names and sizes; the recipe has a fingerprint of its own."""
        return _hash(self.label, [self.a_set.name(item) for item in range(len(self.a_set))], self.a_set.sizes())

    def long_edge_px(self, factor: int) -> int:
        """Return that of the recipe, or of the pictures."""
        return self.framing.long_edge_px or max(self.a_set.size or self.a_set.sizes()[0])


class Latents:
    """A folder of encoded pictures (``training.latents``), grouped by size.

    A snapshot: shards that appear later are seen by a new object, and change what follows.
    Raises: MarigoldError when the folder has no shard.
    """

    def __init__(self, folder: Path) -> None:
        self.label = folder.name
        self.made_with = read_index(folder)
        self.paths = sorted(folder.glob("shard_*"))
        if not self.paths:
            raise MarigoldError(f"{folder.name} holds no encoded pictures; make some with: python -m training.latents")
        parts = (*PARTS, GREY) if all((path / f"{GREY}.npy").exists() for path in self.paths) else PARTS
        self.shards = [_open(path, parts) for path in self.paths]
        self._features: list[dict[str, np.ndarray]] = []
        self._names = [json.loads((path / NAMES).read_text(encoding="utf-8")) for path in self.paths]
        self._ends = np.cumsum([len(shard["image"]) for shard in self.shards])

    def check(self, autoencoder: str, prior: str | None = None, modality: Modality = PUBLISHED) -> None:
        """Compare what made the latents with networks of these sha256 (``latent_cache.autoencoder_sha256``).

        Features of the image prior are read with the latents where they are its own; where there are none, the
        training computes them. Raises: MarigoldError when autoencoder, prior, target or depth curve was another.
        """
        stored, made_by = OLD_DEFAULTS | self.made_with, self.made_with.get("prior_sha256")
        transfer = modality.transfer if isinstance(modality, Depth) else "linear"
        fault = None
        if stored["target"] != target_record(modality):
            fault = (
                f"latents in {self.label} are of {stored['target']['name']} and the start predicts {name_of(modality)}"
            )
        elif stored["depth_curve"] != transfer:
            curve = stored["depth_curve"]
            fault = f"depths in {self.label} are painted on a {curve} curve and the start's on a {transfer} one"
        elif self.made_with["autoencoder_sha256"] != autoencoder:
            fault = f"latents in {self.label} were made by another autoencoder than the start's"
        elif prior is not None and made_by not in (None, prior):
            fault = f"features in {self.label} were made by another image prior than the start's"
        if fault:
            again = "encode the pictures again with: python -m training.latents --checkpoint START"
            raise MarigoldError(f"The {fault}; {again}")
        if prior is not None and made_by == prior:
            names = sorted(path.stem for path in self.paths[0].glob("features_*.npy"))
            self._features = [_open(path, names) for path in self.paths]

    def groups(self) -> list[np.ndarray]:
        """Keep every latent size apart."""
        by_size: dict[tuple[int, ...], list[np.ndarray]] = {}
        for shard, end in zip(self.shards, self._ends, strict=True):
            count = len(shard["image"])
            by_size.setdefault(shard["image"].shape[2:], []).append(np.arange(end - count, end))
        return [np.concatenate(numbers) for _, numbers in sorted(by_size.items())]

    def names(self, items: Sequence[int]) -> tuple[str, ...]:
        """Name the pictures that were encoded."""
        return tuple(f"{self.label}: {self._names[shard][row]}" for shard, row in map(self._place, items))

    def read(self, items: Sequence[int], place: tuple[int, ...]) -> Batch:
        """Read latents; no choice is random."""
        places = [self._place(item) for item in items]
        image, target, valid = (_pick(self.shards, name, places) for name in PARTS)
        names = self._features[0] if self._features else ()
        features = tuple(_pick(self._features, name, places).float() for name in names)
        grey = _pick(self.shards, GREY, places).float() if GREY in self.shards[0] else None
        return Batch(image.float(), target.float(), valid, self.names(items), True, features, grey)

    def fingerprint(self) -> str:
        """Hash shards and what they were made with."""
        names = [json.dumps(self.made_with, sort_keys=True), *chain.from_iterable(self._names)]
        return _hash(self.label, names, [shard["image"].shape for shard in self.shards])

    def long_edge_px(self, factor: int) -> int:
        """Return what the pictures were framed to before they were encoded."""
        framing = self.made_with.get("framing") or {}
        return framing.get("long_edge_px") or max(self.shards[0]["image"].shape[2:]) * factor

    def _place(self, item: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._ends, item, side="right"))
        return shard, item - (int(self._ends[shard - 1]) if shard else 0)


def _open(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in names}


def _pick(shards: Sequence[dict[str, np.ndarray]], name: str, places: Sequence[tuple[int, int]]) -> Tensor:
    """Gather rows of one array, each from its shard -> [B, ...]."""
    return torch.from_numpy(np.stack([shards[shard][name][row] for shard, row in places]))


def _hash(label: str, names: Sequence[str], sizes: Sequence[tuple[int, ...]]) -> str:
    content = json.dumps([list(names), [list(size) for size in sizes]])
    return f"{label}, sha256 {hashlib.sha256(content.encode()).hexdigest()[:16]}"


class Plan:
    """Which source and which of its items make the micro-batch of a number.

    Sources are drawn by share. Each source's items are shuffled anew every epoch; those that do not fill a micro-batch
    are left out of that epoch.
    Raises: MarigoldError when shares do not match the sources, or a source has less than a micro-batch.
    """

    def __init__(self, sources: Sequence[Source], size: int, shares: Sequence[float] | None, seed: int) -> None:
        self.sources, self.size, self.seed = sources, size, seed
        self._groups = [source.groups() for source in sources]
        self.pictures = sum(len(group) for groups in self._groups for group in groups)
        self.epochs = [sum(len(group) // size for group in groups) for groups in self._groups]  # micro-batches each
        for source, length in zip(sources, self.epochs, strict=True):
            if not length:
                raise MarigoldError(f"{source.label} has less than a micro-batch of {size} pictures of one kind.")
        if shares is None:
            shares = self.epochs
        if len(shares) != len(sources) or min(shares) < 0 or sum(shares) <= 0:
            raise MarigoldError(f"{len(sources)} data sets need as many shares, 0 or more; these are {shares}.")
        self.shares = np.array(shares, dtype=float) / sum(shares)
        self._blocks: list[np.ndarray] = []  # source of every micro-batch, [BLOCK] int
        self._before: list[np.ndarray] = [np.zeros(len(sources), int)]  # micro-batches of each source before the block
        self._orders: dict[int, tuple[int, np.ndarray]] = {}  # by source: epoch, items [M, size]

    def __call__(self, number: int) -> tuple[Source, list[int]]:
        """Look up one micro-batch."""
        which, earlier = self._drawn(number)
        epoch, place = divmod(earlier, self.epochs[which])
        if self._orders.get(which, (-1,))[0] != epoch:
            self._orders[which] = epoch, self._shuffled(which, epoch)
        return self.sources[which], self._orders[which][1][place].tolist()

    def names(self, number: int) -> tuple[str, ...]:
        """Name the pictures of a micro-batch without reading them."""
        source, items = self(number)
        return source.names(items)

    def others(self, number: int) -> Iterator[int]:
        """Yield the items of its kind that come after a micro-batch in the order of its source, round to it."""
        which, earlier = self._drawn(number)
        epoch, place = divmod(earlier, self.epochs[which])
        order = self._shuffled(which, epoch)
        kind = next(group for group in self._groups[which] if order[place][0] in group)
        after = np.roll(order, -(place + 1), axis=0)[:-1].flatten()
        yield from after[np.isin(after, kind)].tolist()

    def _drawn(self, number: int) -> tuple[int, int]:
        """Draw the source of a micro-batch -> (source, how many of its micro-batches came before)."""
        block, place = divmod(number, BLOCK)
        while len(self._blocks) <= block:
            rng = np.random.default_rng([self.seed, len(self._blocks)])
            drawn = rng.choice(len(self.sources), BLOCK, p=self.shares)
            self._blocks.append(drawn)
            self._before.append(self._before[-1] + np.bincount(drawn, minlength=len(self.sources)))
        drawn = self._blocks[block]
        which = int(drawn[place])
        return which, int(self._before[block][which] + np.count_nonzero(drawn[:place] == which))

    def _shuffled(self, which: int, epoch: int) -> np.ndarray:
        """Order all micro-batches of one pass through a source -> [M, size] items."""
        rng = np.random.default_rng([self.seed, which, epoch])
        batches = []
        for group in self._groups[which]:
            whole = len(group) // self.size * self.size
            batches.append(rng.permutation(group)[:whole].reshape(-1, self.size))
        return rng.permutation(np.concatenate(batches))

"""Latents on disk as batches: which pictures make the batch of a step is a function of (seed, step) and the folder."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from marigold_core.errors import MarigoldError


class LatentBatches:
    """All shards of a latent folder (``training.latents``), grouped by size because a batch has one size.

    A snapshot: shards that appear later are seen by a new object, and change the order of batches.
    Raises: MarigoldError when the folder holds less than a batch of any size.
    """

    def __init__(self, folder: Path, batch_size: int, seed: int):
        self.seed, self.batch_size = seed, batch_size
        self.shards = [
            {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in ("image", "target", "valid")}
            for path in sorted(folder.glob("shard_*"))
        ]
        by_size: dict[tuple[int, ...], list[np.ndarray]] = {}
        for number, shard in enumerate(self.shards):
            pairs = np.stack([np.full(len(shard["image"]), number), np.arange(len(shard["image"]))], axis=1)
            by_size.setdefault(shard["image"].shape[2:], []).append(pairs)
        self.groups = [np.concatenate(pairs) for _, pairs in sorted(by_size.items())]  # [M, 2] shard, row
        self.steps_an_epoch = sum(len(group) // batch_size for group in self.groups)
        if not self.steps_an_epoch:
            raise MarigoldError(
                f"{folder.name} holds no batch of {batch_size} encoded pictures; "
                "make some with: python -m training.latents"
            )
        self._epoch, self._order = -1, np.empty(0)

    def __len__(self) -> int:
        """Count the encoded pictures."""
        return sum(len(group) for group in self.groups)

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Read the batch of a step -> image and target latents [B, 4, h, w] float32, valid [B, 1, h, w] bool.

        Every epoch shuffles anew; what does not fill a batch waits for the next epoch.
        """
        epoch, place = divmod(step, self.steps_an_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffled(epoch)
        rows = self._order[place]  # [B, 2]
        image, target, valid = (
            torch.from_numpy(np.stack([self.shards[shard][name][row] for shard, row in rows]))
            for name in ("image", "target", "valid")
        )
        return image.float(), target.float(), valid

    def _shuffled(self, epoch: int) -> np.ndarray:
        """Order all batches of an epoch -> [steps, B, 2]."""
        rng = np.random.default_rng([self.seed, epoch])
        batches = []
        for group in self.groups:
            whole = len(group) // self.batch_size * self.batch_size
            batches.append(rng.permutation(group)[:whole].reshape(-1, self.batch_size, 2))
        return rng.permutation(np.concatenate(batches))

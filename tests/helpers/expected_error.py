"""Checkpoints that have a network which expects errors that grow with depth."""

from pathlib import Path

import torch

from marigold_core.checkpoints.layout import ERROR
from marigold_core.checkpoints.weights import write_checksums
from marigold_core.pipeline.expected_error import ErrorNetwork
from marigold_core.pipeline.image_prior import ImagePrior
from training.engine.addition import add_network


def with_expected_error(checkpoint: Path, out: Path) -> Path:
    """Write a checkpoint with such a network -> ``out``."""
    channels = ImagePrior.from_pretrained(checkpoint / "prior").channels
    network = ErrorNetwork(channels, width=4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.fine.weight[0, 0, 1, 1] = 1.0  # the first of what it is given is the map, from -1 to 1
        network.out.weight[0, 0, 1, 1] = 1.0
    add_network(checkpoint, out, ERROR, lambda: network)
    write_checksums(out)
    return out

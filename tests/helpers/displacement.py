"""Displacement networks that move all depth by one distance, and checkpoints that have one."""

from pathlib import Path

import numpy as np
import torch

from marigold_core.checkpoints.layout import DISPLACEMENT
from marigold_core.checkpoints.weights import write_checksums
from marigold_core.pipeline.displacement import SLOPE, DisplacementNetwork
from training.engine.addition import add_network


def shifting(pixels: float) -> DisplacementNetwork:
    """A network by which every pixel takes the depth that lies ``pixels`` to its right, at most its reach."""
    network = DisplacementNetwork().eval().requires_grad_(False)
    share = min(pixels / network.reach_px, 1 - 1e-6)
    assert network.out.bias is not None
    network.out.bias.copy_(torch.tensor([np.arctanh(share) / SLOPE, 0.0]))
    return network


def with_displacement(checkpoint: Path, out: Path, pixels: float = 3.0) -> Path:
    """Write a checkpoint with such a network -> ``out``."""
    add_network(checkpoint, out, DISPLACEMENT, DisplacementNetwork)
    for path in (out / DISPLACEMENT).iterdir():
        path.unlink()
    shifting(pixels).save_pretrained(out / DISPLACEMENT)
    write_checksums(out)
    return out

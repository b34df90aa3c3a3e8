"""Checkpoints that draft depth."""

from pathlib import Path

import torch

from marigold_core import load
from marigold_core.checkpoints.layout import DRAFT
from marigold_core.pipeline.draft import DraftNetwork
from training.engine.addition import add_network


def with_draft(source: Path, out: Path, grey: float | None = None) -> Path:
    """Give a checkpoint with a prior a network that drafts noise, or the same grey everywhere."""
    prior = load(source, device="cpu").prior
    assert prior is not None

    def make() -> DraftNetwork:
        network = DraftNetwork(prior.channels, width=8)
        return network if grey is None else flat(network, grey)

    return add_network(source, out, DRAFT, make)


def flat(network: DraftNetwork, grey: float) -> DraftNetwork:
    """Let it draft the same grey everywhere."""
    for name, weights in network.named_parameters():
        if ".out." in name:
            torch.nn.init.constant_(weights, grey if name.endswith("bias") else 0)
    return network

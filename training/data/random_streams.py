"""Random streams that are a function of (seed, place in the run) alone, whatever was drawn before."""

import numpy as np
import torch


def stream(seed: int, *place: int) -> torch.Generator:
    """Return the random stream of one place in a run, such as (step,): a function of its arguments alone."""
    state = np.random.SeedSequence([seed, *place]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))

"""Data sets: pictures with known depth, read from the folders they are published in; ``open_set`` opens any of them."""

from training.data.sets.opening import KINDS, open_set

__all__ = ["KINDS", "open_set"]

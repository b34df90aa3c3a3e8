"""Scores of depth maps: protocols, alignment, metrics, figures, and the ablations of the paper."""

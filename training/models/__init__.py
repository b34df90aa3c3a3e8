"""Checkpoints to start from: layer sizes, random weights, Stable Diffusion."""

"""Denoising steps, ensemble sizes, seeds and checkpoints side by side."""

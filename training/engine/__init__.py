"""The training loop and what keeps it going: losses, noise, checkpoints, logs, processes."""

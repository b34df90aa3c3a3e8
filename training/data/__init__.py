"""Data for training: data sets, augmentation, framing, micro-batches, cached latents and their checks."""

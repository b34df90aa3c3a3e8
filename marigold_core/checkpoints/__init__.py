"""Which checkpoints there are, where they lie, and whether they are whole and safe to load."""

"""Pictures with known depth on their way to the network."""

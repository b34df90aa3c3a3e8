"""How far a depth map is from the truth."""

"""Seeded worlds, and the renderer that takes their pictures."""

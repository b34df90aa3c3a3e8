"""Metres for relative depth, from known depths, lengths and flat surfaces."""

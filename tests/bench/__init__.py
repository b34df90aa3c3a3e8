"""The benchmark: this project against diffusers' own Marigold pipelines and a plain training loop, in one run.

``python -m tests.bench`` (or ``make bench``) prints a table and writes it as JSON with the machine it ran on. Absolute
times differ from machine to machine; the ratios of one run are what may be quoted.
"""

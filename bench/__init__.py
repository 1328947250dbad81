"""Measures the goals of this project against floors of the same run: `make bench`."""

"""Measures the performance goals against baselines of the same run: `make bench`."""

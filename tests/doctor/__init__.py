"""Tests of `shared.doctor`."""

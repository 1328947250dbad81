"""The soak, for a few seconds: what it tells of ten minutes it tells of these."""

from __future__ import annotations

import pytest

from tests.soak import soak


@pytest.mark.long
def test_under_load_and_faults_all_that_must_hold_does() -> None:
    results, lines = soak(20, seed=3, mode="full")
    assert results.problems == [], "\n".join(lines)
    assert results.acknowledged > 20
    assert sum(results.faults.values()) > 2

"""Waits for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 30) -> T:
    """Ask again and again until the answer is true, and give it.

    To ask costs the processor more than to wait: the longer it takes, the more seldom it is asked.
    """
    started = time.monotonic()
    while not (found := condition()):
        waited = time.monotonic() - started
        assert waited < seconds, f"it did not come to that in {seconds:g} seconds"
        time.sleep(min(max(0.01, waited / 20), 0.1))
    return found

"""Deadlines for calls that know none of their own: the system's resolver, an HTTP exchange."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def remaining(deadline: float) -> float:
    """Give the seconds until a reading of `time.monotonic()`. Raises TimeoutError past it."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left


def call_within(seconds: float, function: Callable[[], T]) -> T:
    """Call a function in a thread, and give its result, or raise its error.

    Raises TimeoutError after so many seconds; the thread is left to end by itself.
    """
    outcome: queue.SimpleQueue[tuple[T] | Exception] = queue.SimpleQueue()

    def call() -> None:
        try:
            outcome.put((function(),))
        except Exception as error:  # noqa: BLE001  # handed over to the one who waits
            outcome.put(error)

    threading.Thread(target=call, daemon=True).start()
    try:
        result = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if isinstance(result, Exception):
        raise result
    return result[0]

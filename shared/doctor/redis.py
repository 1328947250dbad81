"""The list of revocations: whether Redis takes what it is told, and how fast."""

from __future__ import annotations

import time

from shared.doctor.subject import Findings, Subject, note, ok, problem

SECONDS = 5.0
_SLOW = 0.02
"""Seconds of an exchange from which on requests, which wait for no more than 0.05, may miss it."""


def look_at_redis(subject: Subject) -> Findings:
    """Write a key that expires in a second, and read it."""
    if subject.settings is None or subject.settings.revocations.url is None:
        return
    from shared.revocations.redis_list import Revocations  # It loads redis.

    url, credentials = subject.settings.revocations.url, subject.settings.credentials
    revocations = Revocations(url, credentials.session_secrets, seconds=SECONDS)
    try:
        cause = revocations.try_out()  # Connects, too.
        started = time.monotonic()
        cause = cause or revocations.try_out()
        seconds = time.monotonic() - started
    finally:
        revocations.close()
    if cause:
        yield problem(
            f"The list of revocations cannot be used: {cause}.",
            "docs/OPERATIONS.md, “The list of revocations is away”, says what to do.",
        )
    elif seconds > _SLOW:
        yield note(
            f"Redis on {url.host} takes {seconds * 1000:.0f} ms to answer from here.",
            "A request waits for 50 ms at most: use one in the service's own region.",
        )
    else:
        yield ok(f"Redis on {url.host} keeps the list of revocations.")

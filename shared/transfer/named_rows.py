"""Names the users of rows that cannot be imported, to whoever holds their file.

A number alone is little help in a file of thousands. The address is masked, because what a terminal
shows is copied into tickets.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from shared.transfer import staging
from shared.transfer.sources import Opened
from shared.transfer.steps import Event, Outcome, Result

_MAX_LENGTH = 64


def naming(
    source: Opened, transfer: Generator[Event, None, Result], limit: int | None
) -> Generator[Event, None, Result]:
    """Run a transfer from a file, and name the users of its first `limit` rejected rows.

    The file is read again where there are any, up to the last of them; raises what that does.
    """
    held: list[Outcome] = []
    named = 0
    with closing(transfer):
        while True:
            try:
                event = next(transfer)
            except StopIteration as end:
                yield from _named(source, held)
                result: Result = end.value
                return result
            except Exception:  # Whatever ends it, what was held back is told first.
                yield from _named(source, held)
                raise
            if isinstance(event, Outcome) and event.verdict in staging.REJECTED and named != limit:
                held.append(event)
                named += 1
                continue
            yield from _named(source, held)
            held = []
            yield event


def _named(source: Opened, outcomes: Sequence[Outcome]) -> Generator[Event, None, None]:
    if not outcomes:
        return
    rows = source.source()
    reading = rows.rows()
    for outcome in outcomes:  # By their rows.
        row = None
        while rows.rows_read != outcome.row:
            row = next(reading)
        user_id, email = _names(row)
        yield replace(outcome, user_id=outcome.user_id or user_id, email=email)


def _names(row: Any) -> tuple[str | None, str | None]:
    if not isinstance(row, dict):
        return None, None
    user_id, email = row.get("id"), row.get("email")
    return (
        str(user_id)[:_MAX_LENGTH] if isinstance(user_id, str | int) else None,
        masked(email) if isinstance(email, str) else None,
    )


def masked(address: str) -> str:
    """Show enough of an address to be found in the file: `a…@example.com`."""
    local, at, domain = address.strip().rpartition("@")
    if not at:
        local, domain = domain, ""
    return f"{local[:1]}…{at}{domain}"[:_MAX_LENGTH]

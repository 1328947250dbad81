"""What is said of the users file when a process starts, because an outage may need it."""

from __future__ import annotations

from contextlib import suppress

from shared import files
from shared.errors import StoreUnavailable
from shared.observe import log
from shared.store.settings import StoreSettings


def warn_of_pending(settings: StoreSettings) -> None:
    """Log how many sign-ups of an outage are not yet in Postgres, and a file that is of no use."""
    if not settings.use_database or not settings.users_file.exists():
        return
    from shared.model.user_record import PENDING
    from shared.store.json_file.store import JsonFileStore

    try:
        # To read all users of a large file takes seconds, and most have nobody who is pending.
        with suppress(OSError):
            if f'"{PENDING}"'.encode() not in files.read(settings.users_file)[0]:
                return
        waiting = len(JsonFileStore(settings).pending())
    except StoreUnavailable as error:
        log.write(
            "ERROR",
            "The users file cannot be read: the fallback would fail in an outage",
            cause=str(error),
        )
        return
    if waiting:
        sentence = (
            f"{waiting} sign-ups are pending: `make migrate-reconcile` brings them to Postgres"
        )
        log.write("WARNING", sentence, pending=waiting)

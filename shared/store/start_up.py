"""What is said of the users file when a process starts, before it is needed."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from shared import files
from shared.errors import StoreUnavailable
from shared.observe import log
from shared.store.settings import StoreSettings


def check_users_file(settings: StoreSettings) -> None:
    """Log what keeps the users file from being written, and what waits in it."""
    logger = logging.getLogger(files.__name__)
    logger.handlers[:] = [_Handler()]  # Of the last call, if a process asks again.
    logger.propagate = False
    if not settings.use_database or settings.fallback == "full":
        _check_writing(settings.users_file, "sign-ups and password changes will fail")
    elif settings.fallback == "readonly":
        _check_writing(settings.snapshot_file, "there will be no logins in an outage")
    if settings.use_database and settings.users_file.exists():
        _warn_of_pending(settings)


def _check_writing(path: Path, consequence: str) -> None:
    if problem := files.obstacle(path):
        log.write("ERROR", f"{path.name} cannot be written: {consequence}", cause=problem)


class _Handler(logging.Handler):
    """Writes the warnings of `shared.files`, which knows no log of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        log.write("WARNING", record.getMessage())


def _warn_of_pending(settings: StoreSettings) -> None:
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
        pending = "1 sign-up is" if waiting == 1 else f"{waiting:,} sign-ups are"
        sentence = f"{pending} pending: `make migrate-reconcile` writes to Postgres"
        log.write("WARNING", sentence, pending=waiting)

"""The session secret of development, which is made once and kept."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from shared import files
from shared.credentials.settings import SECRET_MIN_BYTES
from shared.environment import InvalidSettings


def keep(folder: Path) -> str:
    """Give the secret that a folder has, so that sessions outlive a restart; make it if need be.

    Raises InvalidSettings where it cannot be kept, or is damaged.
    """
    path = folder / "session-secret"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        # The first of several processes wins, with a whole file.
        with suppress(FileExistsError), files.creating(path) as file:
            file.write(secrets.token_urlsafe(48).encode())
        data, _ = files.read(path)
    except OSError as error:
        reason = error.strerror or error
        problem = f"The development secret {path} cannot be kept ({reason}): set SESSION_SECRET."
        raise InvalidSettings([problem]) from error
    secret = data.decode("ascii", "ignore").strip()
    if len(secret) < SECRET_MIN_BYTES or not data.isascii():
        raise InvalidSettings([f"The development secret {path} is damaged: delete it."])
    return secret

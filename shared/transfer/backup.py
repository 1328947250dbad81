"""Copies a users file byte for byte, durably, and proves that the copy is one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from shared import files
from shared.errors import TransferRefused
from shared.transfer.sources import CHUNK, open_source
from shared.transfer.steps import Event, Progress, beside, timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedUp:
    """Where the copy is, and what it holds."""

    path: Path
    bytes: int
    sha256: str


def back_up(source: Path, now: float) -> Generator[Event, None, BackedUp]:
    """Copy the source to `users.backup.<UTC time>.json`, mode 0600, synced and read again.

    Raises TransferRefused where the source changes meanwhile, and OSError; then there is no copy.
    """
    path = beside(source, "backup", timestamp(now))
    digest = hashlib.sha256()
    with open_source(source) as original, files.creating(path) as copy:
        before = os.fstat(original.fileno())
        while chunk := original.read(CHUNK):
            copy.write(chunk)
            digest.update(chunk)
            yield Progress("write", bytes=copy.tell())
        copy.seek(0)
        same = hashlib.file_digest(copy, "sha256").digest() == digest.digest()
        after = os.fstat(original.fileno())
        if not same or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise TransferRefused("The source changed while it was copied: there is no backup.")
    return BackedUp(path=path, bytes=before.st_size, sha256=digest.hexdigest())

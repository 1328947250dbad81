"""Copies a users file byte for byte, durably, and proves that the copy is one."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from shared import files
from shared.errors import TransferRefused
from shared.transfer.source_file import CHUNK, open_source
from shared.transfer.steps import Event, Progress, sibling_path, timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedUp:
    """Where the copy is, and what it holds."""

    path: Path
    bytes: int
    sha256: str


def back_up(source: Path, now: float) -> Generator[Event, None, BackedUp]:
    """Copy the source to `users.backup.<UTC time>.json`, mode 0600, synced and read again.

    Raises InvalidSource where the source changes meanwhile, TransferRefused and OSError; then
    there is no copy.
    """
    path = sibling_path(source, "backup", timestamp(now))
    digest = hashlib.sha256()
    with open_source(source) as original, files.creating(path) as copy:
        while chunk := original.read(CHUNK):
            copy.write(chunk)
            digest.update(chunk)
            yield Progress("write", bytes=copy.tell())
        size = copy.tell()
        copy.seek(0)
        if hashlib.file_digest(copy, "sha256").digest() != digest.digest():
            raise TransferRefused("The copy differs from the source: there is no backup.")
    return BackedUp(path=path, bytes=size, sha256=digest.hexdigest())

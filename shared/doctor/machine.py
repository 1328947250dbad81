"""The machine: the users file and its folder, and the port."""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from shared import files, ports
from shared.doctor.subject import Finding, Findings, Subject, note, ok, problem
from shared.errors import StoreUnavailable
from shared.formats.counts import count
from shared.formats.strict_json import loads
from shared.settings import Settings
from shared.store.json_file.store import JsonFileStore

SPARE_BYTES = 64 * 1024 * 1024
"""What should be free beside two copies of the users file, which a write needs."""
_SECONDS = 2.0


def look_at_files(subject: Subject) -> Findings:
    """Tell whether the users file can be read, and replaced in its folder."""
    settings = subject.settings
    if settings is None:
        return
    path = settings.store.users_file
    must_write = not settings.store.use_database or settings.store.fallback != "off"
    if not must_write and not os.path.lexists(path):
        yield ok("No users file is used: all users are in the database.")
        return
    found = [*_look_at_file(path, settings), *_look_at_folder(path, must_write=must_write)]
    yield from found
    if not any(finding.verdict == "problem" for finding in found):
        yield ok(
            f"The users file is {path}{'' if os.path.exists(path) else ', made when it is needed'}."
        )


def _look_at_file(path: Path, settings: Settings) -> Iterator[Finding]:
    try:
        with files.open_regular(path) as file:
            mode = os.fstat(file.fileno()).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        yield problem(
            f"The users file {path} cannot be read: {error.strerror or error}.",
            "Make it a file that this user may read, or name another in USERS_FILE.",
        )
        return
    if mode & 0o077:
        yield note(
            f"Other users of this machine may read {path}, which has password hashes.",
            f"Run `chmod 600 {path}`.",
        )
    if files.is_mounted(path):
        yield problem(f"{path} {files.MOUNTED}.", f"Mount its folder, {path.parent}, instead.")
    try:
        waiting = len(JsonFileStore(settings.store).pending())
    except StoreUnavailable as error:
        yield problem(f"{str(error).rstrip('.')}.", "Mend the file, or restore it from a backup.")
        return
    if waiting and settings.store.use_database:
        yield note(
            f"{count(waiting, 'sign-up')} of an outage not yet in the database.",
            "Run `make migrate-reconcile`.",
        )


def _look_at_folder(path: Path, *, must_write: bool) -> Iterator[Finding]:
    folder = next(it for it in path.absolute().parents if os.path.exists(it))
    probe = folder / f".doctor.{secrets.token_hex(4)}"
    try:
        with files.locked(probe, 0), files.creating(probe) as file:
            file.write(b"\n")
    except OSError as error:
        reason = f"The folder {folder} cannot be written: {error.strerror or error}."
        if must_write:
            yield problem(
                reason,
                f"Let the user with the id {os.geteuid()} write there, on a file system with locks "
                "and hard links, or name another file in USERS_FILE.",
            )
        else:
            yield note(reason, "Copy the file elsewhere for a backup or an import's report.")
        return
    finally:
        for left in (probe, probe.with_name(f"{probe.name}.lock")):
            with suppress(OSError):
                left.unlink()
    size = path.stat().st_size if os.path.exists(path) else 0
    free = shutil.disk_usage(folder).free
    if free < 2 * size + SPARE_BYTES:
        yield problem(
            f"{folder} has {free / 1e6:,.0f} MB left.",
            f"Make room for {(2 * size + SPARE_BYTES) / 1e6:,.0f} MB: a write needs a copy of the "
            "users file.",
        )


def look_at_port(subject: Subject) -> Findings:
    """Tell whether the port is free, or this service has it."""
    if subject.settings is None:
        return
    port = subject.settings.web.port
    try:
        ports.try_to_bind(socket.AF_INET, ("127.0.0.1", port))
    except OSError as error:
        if _serves(port):
            yield ok(f"This service answers on port {port}.")
        else:
            yield problem(*ports.explain(error, port))
    else:
        yield ok(f"Port {port} is free.")


def _serves(port: int) -> bool:
    """Tell whether what listens is this service."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET", "/api/livez")
        answer = loads(connection.getresponse().read(4096))
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
    return isinstance(answer, dict) and answer.get("status") == "OK"

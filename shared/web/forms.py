"""Receives a form with files (multipart/form-data, RFC 7578), for whoever reads them several times.

The files are kept in a folder of the call's own, on the disk, or what the platform has for one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from shared.errors import HttpError, InvalidInput
from shared.web.request_body import FORM, BodyStream

MAX_FIELD = 256 * 1024
"""Bytes of what is no file. It bounds the parser's buffer, too, into which 64 KiB are read."""
_PREFIX = "auth-form-"
_NEW_SECONDS = 60
"""For which a folder may not be locked yet."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Form:
    """Fields and files by their names."""

    folder: Path
    """Where the files have these names."""
    fields: dict[str, str]
    files: dict[str, Path]


@contextmanager
def receive(
    request: Request, stream: BodyStream, *, fields: Collection[str], files: Collection[str]
) -> Iterator[Form]:
    """Receive a form of some of these fields and files, each once; the files go with the context.

    Raises InvalidInput for another form, and HttpError for a body that cannot be received or kept,
    or where there is no space for what is made of it.
    """
    try:
        with _folder() as folder:
            given, uploaded = _parse(request, stream, folder, len(fields) + len(files))
            if not _is_subset(given, fields) or not _is_subset(uploaded, files):
                raise InvalidInput(
                    "form",
                    f"The form may have the fields {', '.join(fields)} and the files "
                    f"{', '.join(files)} (curl -F NAME=@FILE), each once",
                )
            if wrong := next((name for name, value in given if "\ufffd" in value), None):
                raise InvalidInput(wrong, f"The form's {wrong} is not in UTF-8")
            for name, path in uploaded:
                path.rename(folder / name)
            yield Form(folder, dict(given), {name: folder / name for name, _ in uploaded})
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise _no_space(error) from error


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder that nobody else can read; it is locked, so that others know it is in use."""
    try:
        made = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_space(error) from error
    with made as name:
        folder = Path(name)
        lock = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # Where nothing can be locked, nothing is removed either.
                fcntl.flock(lock, fcntl.LOCK_SH)
            _remove_left_behind(folder.parent)
            yield folder
        finally:
            os.close(lock)


def _remove_left_behind(parent: Path) -> None:
    """Remove the folders of instances that were killed: they hold what nobody else may see."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # In use, or not ours.
            if time.time() - folder.lstat().st_mtime < _NEW_SECONDS:
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)


def _parse(
    request: Request, stream: BodyStream, folder: Path, most: int
) -> tuple[list[tuple[str, str]], list[tuple[str, Path]]]:
    def keep(*_: Any, **__: Any) -> IO[bytes]:
        return cast(IO[bytes], tempfile.NamedTemporaryFile(dir=folder, delete=False))

    parser = FormDataParser(keep, max_form_memory_size=MAX_FIELD, max_form_parts=most, silent=False)
    try:
        _, given, uploaded = parser.parse(
            cast(IO[bytes], stream), FORM, request.content_length, request.mimetype_params
        )
    except RequestEntityTooLarge as error:
        raise HttpError(
            413, "body_too_large", "The form has too many or too long fields"
        ) from error
    except ValueError as error:
        raise InvalidInput("form", f"The body is no {FORM}") from error
    kept = []
    for name, file in uploaded.items(multi=True):
        file.close()
        kept.append((name, Path(str(file.stream.name))))
    return list(given.items(multi=True)), kept


def _is_subset(given: Sequence[tuple[str, object]], known: Collection[str]) -> bool:
    names = {name for name, _ in given}
    return len(names) == len(given) and names.issubset(known)


def _no_space(error: OSError) -> HttpError:
    return HttpError(
        507, "no_space", f"The files cannot be kept in the temporary folder: {error.strerror}"
    )

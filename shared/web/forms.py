"""Receives a form with files (multipart/form-data, RFC 7578), for whoever reads them several times.

The files are kept in a folder of the call's own, on the disk, or what the platform has for one.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
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
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Form:
    """Fields and files by their names."""

    folder: Path
    fields: dict[str, str]
    files: dict[str, Path]


@contextmanager
def receive(
    request: Request, stream: BodyStream, *, fields: Collection[str], files: Collection[str]
) -> Iterator[Form]:
    """Receive a form of some of these fields and files, each once; the files go with the context.

    Raises InvalidInput for another form, and HttpError for a body that cannot be received or kept.
    """
    with tempfile.TemporaryDirectory(prefix="auth-form-") as name:
        folder = Path(name)
        try:
            given, uploaded = _parse(request, stream, folder)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            raise HttpError(507, "no_space", "There is no space left for the files") from error
        known, where = {*fields, *files}, "The form"
        names = [name for name, _ in (*given, *uploaded)]
        if len(set(names)) < len(names) or not known.issuperset(names):
            raise InvalidInput("form", f"{where} has only {', '.join(sorted(known))}, each once")
        if wrong := next((name for name, _ in given if name in files), None):
            raise InvalidInput(wrong, f"{where}'s {wrong} is a file: curl -F {wrong}=@FILE")
        if wrong := next((name for name, _ in uploaded if name in fields), None):
            raise InvalidInput(wrong, f"{where}'s {wrong} is no file")
        yield Form(folder, dict(given), dict(uploaded))


def _parse(
    request: Request, stream: BodyStream, folder: Path
) -> tuple[list[tuple[str, str]], list[tuple[str, Path]]]:
    number = 0

    def keep(*_: Any, **__: Any) -> IO[bytes]:
        nonlocal number
        number += 1
        return (folder / f"{number}.part").open("xb+")

    parser = FormDataParser(keep, max_form_memory_size=MAX_FIELD, max_form_parts=50, silent=False)
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

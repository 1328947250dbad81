"""Where the users of a migration over HTTP come from: the body, a form, or `USERS_FILE`."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shared.errors import InvalidInput
from shared.transfer import checking
from shared.transfer.json_rows import JsonSource
from shared.transfer.origins import Origin
from shared.transfer.source_file import CHUNK, open_source
from shared.transfer.sources import Rows
from shared.web.call import Call
from shared.web.forms import Form

_CHECK = ("check", "password")
"""The address and the password of a user of the source."""
_ORIGIN = {
    "from": "system", "instance": "instance", "project": "project", "model": "model",
    "map": "columns", "hash": "scheme", "pepper": "pepper",
}  # fmt: skip
"""What the fields of a form are of an Origin."""
_USERS = "users"
FIELDS = (*_CHECK, *_ORIGIN)
"""Of a form, about its users."""
FILES = (_USERS, "hash_config", "passwords", "identities")
"""Of a form: the users, and what else an Origin has."""

Notices = list[str]


@contextmanager
def in_body(call: Call) -> Iterator[Rows]:
    """Give the rows of the users in the body."""
    yield JsonSource(io.BufferedReader(call.stream, CHUNK))


@contextmanager
def in_file(call: Call) -> Iterator[Rows]:
    """Give the rows of the users in USERS_FILE."""
    with open_source(call.settings.store.users_file) as stream:
        yield JsonSource(stream)


@contextmanager
def in_form(call: Call, form: Form, notices: Notices) -> Iterator[Rows]:
    """Give the rows of the users in a form, once the password to be checked is the right one."""
    if _USERS not in form.files:
        raise InvalidInput(_USERS, f"The form has no file {_USERS}: curl -F {_USERS}=@FILE")
    # curl's `<FILE` sends the line break at a file's end, too.
    fields = {name: re.sub(r"\r?\n\Z", "", value) for name, value in form.fields.items()}
    check = [fields[name] for name in _CHECK if name in fields]
    if len(check) == 1:
        raise InvalidInput("check", f"The fields {' and '.join(_CHECK)} belong together")
    said: dict[str, Any] = {name: path for name, path in form.files.items() if name != _USERS}
    said |= {_ORIGIN[name]: value for name, value in fields.items() if name in _ORIGIN}
    origin = Origin(**said)
    tell, verify = notices.append, call.app.hasher.verify
    with origin.open(form.files[_USERS], call.settings.credentials, tell) as opened:
        if check:
            address, password = check
            tell(checking.check(opened.source(), address, lambda _: password, verify))
        elif origin.wants_check:
            tell(checking.UNCHECKED)
        yield opened.source()

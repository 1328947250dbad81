"""POST /api/migrate: the import over HTTP, for administrators.

What is to be done comes as a JSON object, and the users are those of `USERS_FILE`; or it comes in
the query, and the users are the body; or both are a form, which may have another system's files.
The answer is JSON lines: progress, whatever became of a row that is more than a count tells, and at
last the result or an error. Never a hash, never an address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass
from typing import Any

from flask import Response

from functions.mail_responses import deliver, require_mail
from functions.migrate_sources import FIELDS, FILES, Notices, in_body, in_file, in_form
from shared.database.pool import Database
from shared.errors import InvalidInput, InvalidSource, TransferRefused
from shared.model.users import User
from shared.store.json_file.store import JsonFileStore
from shared.store.postgres.preparation import bring_up_to_date
from shared.transfer import importing, inviting, reconciling, rollback, status
from shared.transfer.announcing import announce
from shared.transfer.importing import Plan
from shared.transfer.sources import Rows
from shared.transfer.steps import PATIENCE, Done, Event, Ready, run, to_json
from shared.web import forms
from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.request_body import FORM, read_json
from shared.web.streaming import stream_answer

OPTIONS = ("action", "plan", "skip_invalid", "addresses_changed", "batch", "limit")
OF_USERS = ("plan", "apply", "verify")
"""The actions on the users of a source."""
MAX_LIMIT = 1_000_000

_NUMBER = re.compile("[0-9]{1,7}")

Line = dict[str, object]
Steps = Generator[Event, None, Line]


@endpoint("POST", body="stream", admin=True)
def migrate(call: Call) -> Response:
    """Plan, apply, verify, list or roll back an import, reconcile, or invite: 200 and JSON lines.

    Options: `action`; `plan`, the SHA-256 that an apply is bound to; `skip_invalid`;
    `addresses_changed`; `batch` of a rollback; `limit` of invitations; and in a form `FIELDS`.
    Raises InvalidInput, and TransferRefused where there is no database.
    """
    url = call.settings.database.url
    if url is None:
        raise TransferRefused("There is no database to migrate to: set DATABASE_URL.")
    database = Database(url, call.settings.database)
    query = call.request.args
    if call.request.mimetype == FORM:
        if query:
            raise InvalidInput("options", "The options of a form are its fields, not the query")
        return stream_answer(call, _of_form(call, database))
    options: dict[str, Any] = query.to_dict() if query else read_json(call.request, "required")
    for name in options:
        if name not in OPTIONS or len(query.getlist(name)) > 1:
            # A misspelled or repeated `plan` must not be ignored: it binds an apply.
            raise InvalidInput("options", f"The options are {', '.join(OPTIONS)}, each once")
    source = in_body(call) if query else in_file(call)
    return stream_answer(call, _lines(call, _steps(call, database, options, source)))


def _of_form(call: Call, database: Database) -> Generator[Line, None, None]:
    fields = (*OPTIONS, *FIELDS)
    notices: Notices = []
    with forms.receive(call.request, call.stream, fields=fields, files=FILES) as form:
        options = {name: value for name, value in form.fields.items() if name in OPTIONS}
        try:
            steps = _steps(call, database, options, in_form(call, form, notices))
            if options["action"] not in OF_USERS and (
                form.files or len(form.fields) > len(options)
            ):
                raise InvalidInput(
                    "form", f"Only {', '.join(OF_USERS)} take users and their options"
                )
            yield from _lines(call, steps, notices)
        except InvalidSource as error:  # It names files as they are kept here.
            raise InvalidSource(error.sentence.replace(f"{form.folder}/", "")) from error


def _steps(
    call: Call, database: Database, options: dict[str, Any], source: AbstractContextManager[Rows]
) -> Steps:
    """Begin what the options say. Raises InvalidInput."""
    if any("\0" in str(value) for value in options.values()):
        raise InvalidInput("options", "An option holds a NUL character")
    action = options.get("action")
    if not isinstance(action, str) or action not in _ACTIONS:
        raise InvalidInput("action", f"The action must be one of {', '.join(_ACTIONS)}")
    call.log["action"] = action
    return _ACTIONS[action](_Job(call, database, options, source))


@dataclass(frozen=True, slots=True)
class _Job:
    """One call."""

    call: Call
    database: Database
    options: dict[str, Any]
    source: AbstractContextManager[Rows]

    def plan(self) -> Steps:
        with self.source as source:
            found = yield from importing.plan(self.database, source)
        return _without_names(found)

    def apply(self) -> Steps:
        plan_sha256 = self.option("plan")
        skip_invalid, addresses_changed = map(self.flag, ("skip_invalid", "addresses_changed"))
        with self.source as source:
            self.bring_up_to_date()
            done = yield from importing.apply(
                self.database,
                source,
                batch_id=importing.new_batch_id(self.call.now),
                run_by=self.call.admin,
                plan_sha256=plan_sha256,
                skip_invalid=skip_invalid,
                addresses_changed=addresses_changed,
            )
        return _without_names(done.plan) | {
            "batch": done.batch,
            "revoked_sessions": done.revoked_sessions,
        }

    def verify(self) -> Steps:
        with self.source as source:
            found = yield from importing.verify(self.database, source)
        found.require_users()
        return _without_names(found) | {"differing": found.differing}

    def status(self) -> Steps:
        yield from ()
        return status.status(self.database).to_json()

    def rollback(self) -> Steps:
        batch = self.option("batch")
        if batch is None:
            raise InvalidInput("batch", "Please name the batch")
        done = yield from rollback.roll_back(self.database, batch, run_by=self.call.admin)
        return asdict(done)

    def reconcile(self) -> Steps:
        self.bring_up_to_date()
        file = self.call.settings.store.users_file
        done = yield from reconciling.reconcile(
            self.database,
            JsonFileStore(self.call.settings.store),
            reconciling.quarantine_of(file),
            asks_for_proof=self.call.settings.mail.asks_for_proof,
        )
        deliver(self.call)
        return asdict(done)

    def invite(self) -> Steps:
        require_mail(self.call)
        yield from ()
        limit = self.options.get("limit")
        if isinstance(limit, str) and _NUMBER.fullmatch(limit):
            limit = int(limit)
        if type(limit) is not int or not 0 <= limit <= MAX_LIMIT:
            raise InvalidInput(
                "limit", f"Please say how many to invite, {MAX_LIMIT} at most; 0 only counts"
            )
        if not limit:
            return {"invited": 0, "left": inviting.waiting(self.database), "seconds": 0}
        self.bring_up_to_date()
        done = inviting.invite(
            self.database, per_hour=inviting.PER_HOUR, most=limit, run_by=self.call.admin
        )
        deliver(self.call)
        return asdict(done)

    def bring_up_to_date(self) -> None:
        if self.call.settings.database.auto_migrate:  # As at the first connection of any function.
            patient = self.call.settings.database._replace(timeout=PATIENCE)
            bring_up_to_date(self.database.url, patient)

    def option(self, name: str) -> str | None:
        value = self.options.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidInput(name, f"The {name} must be a string")
        return value

    def flag(self, name: str) -> bool:
        value = self.options.get(name, False)
        if value not in (True, False, "true", "false"):
            raise InvalidInput(name, f"`{name}` must be true or false")
        return value in (True, "true")


_ACTIONS: dict[str, Callable[[_Job], Steps]] = {
    "plan": _Job.plan,
    "apply": _Job.apply,
    "verify": _Job.verify,
    "status": _Job.status,
    "rollback": _Job.rollback,
    "reconcile": _Job.reconcile,
    "invite": _Job.invite,
}


def _without_names(found: Plan) -> Line:
    """Count unknown members without naming them: they might be addresses."""
    return found.to_json() | {"unknown_members": len(found.unknown_members)}


def _lines(call: Call, steps: Steps, notices: Sequence[str] = ()) -> Generator[Line, None, None]:
    """Give the lines of an answer, and each of the notices once it is there."""
    ended: Sequence[User] = ()
    told = 0
    with closing(run(steps)) as events:
        for event in events:
            for sentence in notices[told:]:
                yield {"event": "notice", "sentence": sentence}
            told = len(notices)
            if isinstance(event, Done):
                if ended and call.settings.revocations.url is not None:
                    call.log["cause"] = announce(call.app.revocations, ended) or None
                call.log |= {name: event.result.get(name) for name in ("batch", "counts")}
                yield {"event": "result"} | event.result
            elif isinstance(event, Ready):
                ended = event.ended
            else:
                line = to_json(event)
                line.pop("email", None)
                yield line

"""POST /api/migrate: the import over HTTP, for administrators.

What is to be done comes as a JSON object, and the users are those of `USERS_FILE`; or it comes in
the query, and the users are the body. The answer is JSON lines: progress, whatever became of a row
that is more than a count tells, and at last the result or an error. Never a hash, never an address.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from flask import Response

from functions.mail_responses import deliver
from shared.database.pool import Database
from shared.errors import InvalidInput, TransferRefused
from shared.model.users import User
from shared.store.json_file.store import JsonFileStore
from shared.store.postgres.preparation import bring_up_to_date
from shared.transfer import importing, reconciling, rollback, status
from shared.transfer.announcing import announce
from shared.transfer.importing import Plan
from shared.transfer.sources import CHUNK, Source, open_source
from shared.transfer.steps import PATIENCE, Done, Event, Ready, run, to_json
from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.request_body import read_json
from shared.web.streaming import stream_answer

OPTIONS = ("action", "plan", "skip_invalid", "batch")

Line = dict[str, object]
Steps = Generator[Event, None, Line]


@endpoint("POST", body="stream", admin=True)
def migrate(call: Call) -> Response:
    """Plan, apply, verify, list or roll back an import, or reconcile: 200 and JSON lines.

    Options: `action`; `plan`, the SHA-256 that an apply is bound to; `skip_invalid`; `batch` of a
    rollback. Raises InvalidInput, and TransferRefused where there is no database.
    """
    query = call.request.args
    options: dict[str, Any] = query.to_dict()
    if not query:
        options = read_json(call.request, "required")
    for name in options:
        if name not in OPTIONS or len(query.getlist(name)) > 1 or "\0" in str(options[name]):
            # A misspelled or repeated `plan` must not be ignored: it binds an apply.
            raise InvalidInput("options", f"The options are {', '.join(OPTIONS)}, each once")
    action = options.get("action")
    if not isinstance(action, str) or action not in _ACTIONS:
        raise InvalidInput("action", f"The action must be one of {', '.join(_ACTIONS)}")
    if call.settings.database.url is None:
        raise TransferRefused("There is no database to migrate to: set DATABASE_URL.")
    call.log["action"] = action
    job = _Job(
        call, Database(call.settings.database.url, call.settings.database), options, bool(query)
    )
    return stream_answer(call, _lines(call, _ACTIONS[action](job)))


@dataclass(frozen=True, slots=True)
class _Job:
    """One call, with its users in the body or in `USERS_FILE`."""

    call: Call
    database: Database
    options: dict[str, Any]
    has_users: bool

    def plan(self) -> Steps:
        with self.source() as source:
            found = yield from importing.plan(self.database, source)
        return _without_names(found)

    def apply(self) -> Steps:
        plan_sha256 = self.option("plan")
        skip_invalid = self.options.get("skip_invalid", False)
        if skip_invalid not in (True, False, "true", "false"):
            raise InvalidInput("skip_invalid", "`skip_invalid` must be true or false")
        self.bring_up_to_date()
        with self.source() as source:
            done = yield from importing.apply(
                self.database,
                source,
                batch_id=importing.new_batch_id(self.call.now),
                run_by=self.call.admin,
                plan_sha256=plan_sha256,
                skip_invalid=skip_invalid in (True, "true"),
            )
        return _without_names(done.plan) | {
            "batch": done.batch,
            "revoked_sessions": done.revoked_sessions,
        }

    def verify(self) -> Steps:
        with self.source() as source:
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

    def bring_up_to_date(self) -> None:
        if self.call.settings.database.auto_migrate:  # As at the first connection of any function.
            patient = self.call.settings.database._replace(timeout=PATIENCE)
            bring_up_to_date(self.database.url, patient)

    def option(self, name: str) -> str | None:
        value = self.options.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidInput(name, f"The {name} must be a string")
        return value

    @contextmanager
    def source(self) -> Iterator[Source]:
        if self.has_users:
            yield Source(io.BufferedReader(self.call.stream, CHUNK))
        else:
            with open_source(self.call.settings.store.users_file) as stream:
                yield Source(stream)


_ACTIONS: dict[str, Callable[[_Job], Steps]] = {
    "plan": _Job.plan,
    "apply": _Job.apply,
    "verify": _Job.verify,
    "status": _Job.status,
    "rollback": _Job.rollback,
    "reconcile": _Job.reconcile,
}


def _without_names(found: Plan) -> Line:
    """Count unknown members without naming them: they might be addresses."""
    return found.to_json() | {"unknown_members": len(found.unknown_members)}


def _lines(call: Call, steps: Steps) -> Generator[Line, None, None]:
    ended: Sequence[User] = ()
    with closing(run(steps)) as events:
        for event in events:
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

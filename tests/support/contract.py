"""What Schemathesis has to be told of this API, and what more than it is looked at.

Schemathesis loads this module into its own process; `tests/functions/test_openapi.py` sets its
variables.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections import defaultdict
from typing import Any

import httpx
import schemathesis
from hypothesis import strategies as st
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import RejectedPositiveData

from shared.mail.wake import Wake
from shared.model.mails import Kind
from tests.support.emulator import SECRET
from tests.support.mails import token_for

Case = schemathesis.Case[Any]

FRAMING = {"connection", "content-length", "content-type", "date", "server", "transfer-encoding"}
"""What the server adds to carry the answer."""

MORE_THAN_A_SCHEMA_TELLS = (
    "This password is among the most common ones.",
    "This password is too close to your address,",
    "Please enter your current password",  # unless the account has none
    "Please name the batch",  # of a rollback
    "The action must be one of",  # in the query, once there is one
    "This link is no longer valid.",  # as that of an example
    "Please say how many to invite",
    "The form has no file users",  # for what needs one
    "Only plan, apply, verify take users",
    "The fields check and password belong together",
)
"""What a body that fits its schema may yet be refused for: how the sentence begins."""

schemathesis.openapi.format(
    "email",  # of a domain that can receive mail, which .test cannot
    st.emails(
        domains=st.from_regex("[a-z0-9]{1,30}[.](com|org|net|example[.]com)", fullmatch=True)
    ),
)

_numbers = itertools.count(1)


@schemathesis.auth(refresh_interval=None).apply_to(
    path_regex="^/api/(user|session|logout|password|account|email|email/verification)$"
)
class NewUser:
    """A user who has just signed up, another one for each call, because some calls end sessions."""

    def get(self, _case: Case, _context: schemathesis.AuthContext) -> str:
        return _sign_up().cookies["session"]

    def set(self, case: Case, data: str, _context: schemathesis.AuthContext) -> None:
        case.cookies["session"] = data


@schemathesis.auth(refresh_interval=None).apply_to(
    path_regex="^/api/(migrate|stats|metrics|dashboard)$"
)
class Administrator:
    """Who has the admin token."""

    def get(self, _case: Case, _context: schemathesis.AuthContext) -> str:
        return os.environ["CONTRACT_ADMIN_TOKEN"]

    def set(self, case: Case, data: str, _context: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.auth(refresh_interval=None).apply_to(path_regex="^/api/mail/delivery$")
class TheService:
    """The service itself, which asks to have mails delivered."""

    def get(self, _case: Case, _context: schemathesis.AuthContext) -> str:
        return Wake((SECRET,), os.environ["CONTRACT_URL"]).authorization(time.time())

    def set(self, case: Case, data: str, _context: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = data


def _sign_up() -> httpx.Response:
    user = {
        "email": f"contract{next(_numbers)}@example.com",
        "password": os.environ["CONTRACT_PASSWORD"],
    }
    url = f"{os.environ['CONTRACT_URL']}/api/signup"
    return httpx.post(url, json=user, trust_env=False).raise_for_status()


PROOFS = {
    "/api/password": "currentPassword",
    "/api/account": "password",
    "/api/email": "password",
}
"""The member that has the user's password."""
LINKS: dict[str, Kind] = {
    "/api/password/reset": "password_reset",
    "/api/email/verify": "verification",
    "/api/login/mail/verify": "login_link",
}


@schemathesis.deserializer("application/x-ndjson")
def lines(context: schemathesis.DeserializationContext, response: schemathesis.Response) -> Any:
    """Read JSON lines as the array that the document describes."""
    return [json.loads(line) for line in response.content.splitlines()]


@schemathesis.serializer("application/x-ndjson")
def to_lines(context: schemathesis.SerializationContext, value: Any) -> bytes:
    """Write what an array holds as JSON lines."""
    rows = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@schemathesis.hook
def map_case(context: schemathesis.HookContext, case: Case) -> Case:
    """Let sound calls succeed.

    An address signs up once, who has a password gives one, a token is of a mail to the account
    whose password is given, and a query makes the body users.
    """
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return case
    if case.path == "/api/migrate":
        if isinstance(case.body, dict) and "action" in case.body:
            case.query = {}
        else:
            case.query = {"action": "plan", **(case.query or {})}
    elif isinstance(case.body, dict):
        case.body = case.body | _sound_members(case.path, case.body)
    return case


def _sound_members(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Give the members in whose stead others would be refused."""
    if path in ("/api/signup", "/api/register") and "email" in body:
        return {"email": f"{next(_numbers)}.{body['email']}"}
    password = os.environ["CONTRACT_PASSWORD"]
    if path in PROOFS and not body.get(PROOFS[path]):
        return {PROOFS[path]: password}
    if path in LINKS and "token" in body:
        token = {"token": token_for(_sign_up().json(), LINKS[path])}
        return token | {"password": password} if path == "/api/email/verify" else token
    return {}


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext,
    failure: Failure,
    case: Case,
    response: schemathesis.Response,
) -> bool:
    """Pass over the refusals that no schema can tell."""
    is_refused = isinstance(failure, RejectedPositiveData)
    if not is_refused:
        return True
    problem = response.json()
    is_foreseen = problem["error"].startswith(MORE_THAN_A_SCHEMA_TELLS)
    return not is_foreseen and problem["code"] != "invalid_source"  # Whatever is in a file.


@schemathesis.check
def headers_are_documented(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: Case
) -> None:
    """Whether those that are described are right is looked at by a check of Schemathesis's own."""
    described = case.operation.responses.find_by_status_code(response.status_code)
    if described is not None:
        documented = {name.lower() for name, _ in described.headers.items()}
        unknown = set(response.headers) - documented - FRAMING
        assert not unknown, f"not in the document: {', '.join(sorted(unknown))}"


@schemathesis.check
class EveryOperationSucceeds:
    """Without a success, the other checks would only have seen refusals."""

    def __init__(self) -> None:
        self.statuses: defaultdict[str, set[int]] = defaultdict(set)

    def after_response(
        self,
        _ctx: schemathesis.CheckContext,
        response: schemathesis.Response,
        case: Case,
    ) -> None:
        self.statuses[case.operation.label].add(response.status_code)

    def after_run(self, _ctx: schemathesis.CheckContext) -> None:
        expected = set(self.statuses) - {os.environ["CONTRACT_REFUSED"]}
        failed = [name for name in expected if min(self.statuses[name]) >= 300]
        assert not failed, f"never succeeded: {', '.join(sorted(failed))}"

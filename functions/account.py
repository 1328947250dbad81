"""GET and DELETE /api/account."""

from __future__ import annotations

import time

from flask import Response

from functions.answers import clear_session, user_members
from shared import accounts, runtime, sessions
from shared.http import Call, answer, endpoint
from shared.tokens import Session


@endpoint("GET", "DELETE", body="optional")
def account(call: Call) -> Response:
    """Give the users all that is stored about them: 200. Or delete it, on their password: 204."""
    session = sessions.read(runtime.tokens(), call.session_token, time.time())
    if call.request.method == "DELETE":
        return _delete(call, session)
    found = accounts.own_account(runtime.store(), session)
    call.log["user_id"] = found.user.id
    return answer(
        user_members(found.user)
        | {
            "createdAt": found.created_at,
            "updatedAt": found.updated_at,
            "hasPassword": found.has_password,
            "identities": [
                {"issuer": identity.issuer, "subject": identity.subject}
                for identity in found.identities
            ],
            "events": found.events,
        }
    )


def _delete(call: Call, session: Session) -> Response:
    call.afterwards(runtime.clean_up)
    accounts.delete_account(
        runtime.store(),
        runtime.hasher(),
        runtime.gate(),
        session,
        password=call.optional_text("password"),
        client=call.client,
    )
    call.log |= {"user_id": session.user.id, "event": "account_deleted"}
    response = Response(status=204)
    del response.headers["Content-Type"]
    clear_session(call, response)
    return response

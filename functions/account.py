"""GET and DELETE /api/account."""

from __future__ import annotations

import time

from flask import Response

from functions.responses import clear_session, user_members
from shared import application
from shared.credentials.session_tokens import Session
from shared.rules import accounts, sessions
from shared.web.endpoint import Call, answer, endpoint


@endpoint("GET", "DELETE", body="optional")
def account(call: Call) -> Response:
    """Give the users all that is stored about them: 200. Or delete it, on their password: 204."""
    session = sessions.read(application.tokens(), call.session_token, time.time())
    if call.request.method == "DELETE":
        return _delete(call, session)
    found = accounts.own_account(application.store(), session)
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
    call.afterwards(application.clean_up)
    accounts.delete_account(
        application.store(),
        application.hasher(),
        application.gate(),
        session,
        password=call.optional_text("password"),
        client=call.client,
    )
    call.log |= {"user_id": session.user.id, "event": "account_deleted"}
    response = Response(status=204)
    del response.headers["Content-Type"]
    clear_session(call, response)
    return response

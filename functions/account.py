"""GET and DELETE /api/account."""

from __future__ import annotations

from flask import Response

from functions.mail_responses import deliver
from functions.user_responses import clear_session, user_members
from shared.model.sessions import Session
from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.responses import answer, no_content


@endpoint("GET", "DELETE", body="optional")
def account(call: Call) -> Response:
    """GET: all data stored about the user, 200. DELETE: delete the account, 204."""
    session = call.app.sessions.read(call.session_token, call.now)
    if call.request.method == "DELETE":
        return _delete(call, session)
    found = call.app.sessions.account(session)
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
            "claims": found.claims,
        }
    )


def _delete(call: Call, session: Session) -> Response:
    call.afterwards(call.app.janitor.run)
    password = call.optional_text("password")
    call.app.accounts.delete(session, password=password, client=call.client)
    call.log |= {"user_id": session.user.id, "event": "account_deleted"}
    deliver(call)
    response = no_content()
    clear_session(call, response)
    return response

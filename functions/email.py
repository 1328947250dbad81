"""POST /api/email."""

from __future__ import annotations

from flask import Response

from functions.mail_responses import deliver, require_mail
from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.responses import answer

_REQUESTED = (
    "We have sent a message to the new address. The change takes effect once you follow the link "
    "in it."
)


@endpoint("POST", body="required")
def email(call: Call) -> Response:
    """Have a link sent to a new address: 202, also where somebody has it already."""
    require_mail(call)
    session = call.app.sessions.read(call.session_token, call.now)
    call.app.mailboxes.request_email_change(
        session,
        email=call.text("newEmail"),
        password=call.optional_text("password"),
        client=call.client,
    )
    call.log |= {"user_id": session.user.id, "event": "email_change_requested"}
    deliver(call)
    return answer({"message": _REQUESTED}, 202)

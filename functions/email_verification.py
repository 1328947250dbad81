"""POST /api/email/verification."""

from __future__ import annotations

from flask import Response

from functions.mail_responses import ask
from shared.web.call import Call
from shared.web.endpoint import endpoint


@endpoint("POST", body="optional")
def email_verification(call: Call) -> Response:
    """Have a link sent by which an address is proved: 202, whoever has it.

    Without an address it is that of the session's user.
    """
    email = call.optional_text("email")
    if email is None:
        email = call.app.sessions.read(call.session_token, call.now).user.email
    return ask(call, "verification", email)

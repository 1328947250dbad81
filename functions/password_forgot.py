"""POST /api/password/forgot."""

from __future__ import annotations

from flask import Response

from functions.mail_responses import ask
from shared.web.call import Call
from shared.web.endpoint import endpoint


@endpoint("POST", body="required")
def password_forgot(call: Call) -> Response:
    """Have a link sent by which a new password is chosen: 202, whoever has the address."""
    return ask(call, "password_reset", call.text("email"))

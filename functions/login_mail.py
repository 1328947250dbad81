"""POST /api/login/mail."""

from __future__ import annotations

from flask import Response

from functions.mail_responses import ask
from shared.web.call import Call
from shared.web.endpoint import endpoint


@endpoint("POST", body="required", exists=lambda call: call.settings.mail.sign_in_by_mail)
def login_mail(call: Call) -> Response:
    """Have a link sent that signs in: 202, whoever has the address."""
    return ask(call, "login_link", call.text("email"))

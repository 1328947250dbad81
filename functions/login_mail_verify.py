"""POST /api/login/mail/verify."""

from __future__ import annotations

from flask import Response

from functions.mail_responses import deliver
from functions.user_responses import begin_session
from shared.web.call import Call
from shared.web.endpoint import endpoint


@endpoint("POST", body="required", exists=lambda call: call.settings.mail.sign_in_by_mail)
def login_mail_verify(call: Call) -> Response:
    """Sign in by the token of a mail: 200."""
    call.afterwards(call.app.janitor.run)
    user = call.app.mailboxes.log_in(call.text("token"), client=call.client, now=call.now)
    deliver(call)
    return begin_session(call, user, event="login", method="mail")

"""POST /api/password."""

from __future__ import annotations

from flask import Response

from functions.mail_responses import deliver
from functions.user_responses import begin_session
from shared.web.call import Call
from shared.web.endpoint import endpoint


@endpoint("POST", body="required")
def password(call: Call) -> Response:
    """Change the password, end every session, and begin a new one: 200.

    A user without a password sets the first one right after signing in with Google.
    """
    call.afterwards(call.app.janitor.run)
    user = call.app.accounts.change_password(
        call.app.sessions.read(call.session_token, call.now),
        current=call.optional_text("currentPassword"),
        new=call.text("newPassword"),
        client=call.client,
    )
    deliver(call)
    return begin_session(call, user, event="password_changed")

"""POST /api/password."""

from __future__ import annotations

import time

from flask import Response

from functions.responses import user_answer
from shared import application
from shared.rules import accounts, sessions
from shared.web.endpoint import Call, endpoint


@endpoint("POST", body="required")
def password(call: Call) -> Response:
    """Change the password, end every session, and begin a new one: 200.

    A user without a password sets the first one right after signing in with Google.
    """
    now = time.time()
    call.afterwards(application.clean_up)
    user = accounts.change_password(
        application.store(),
        application.hasher(),
        application.gate(),
        sessions.read(application.tokens(), call.session_token, now),
        current=call.optional_text("currentPassword"),
        new=call.text("newPassword"),
        password_min_length=call.settings.password_min_length,
        client=call.client,
    )
    return user_answer(
        call, user, event="password_changed", token=application.tokens().issue(user, now)
    )

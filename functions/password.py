"""POST /api/password."""

from __future__ import annotations

import time

from flask import Response

from functions.answers import user_answer
from shared import accounts, runtime, sessions
from shared.http import Call, endpoint


@endpoint("POST", body="required")
def password(call: Call) -> Response:
    """Change the password, end every session, and begin a new one: 200.

    A user without a password sets the first one right after signing in with Google.
    """
    now = time.time()
    call.afterwards(runtime.clean_up)
    user = accounts.change_password(
        runtime.store(),
        runtime.hasher(),
        runtime.gate(),
        sessions.read(runtime.tokens(), call.session_token, now),
        current=call.optional_text("currentPassword"),
        new=call.text("newPassword"),
        password_min_length=call.settings.password_min_length,
        client=call.client,
    )
    return user_answer(
        call, user, event="password_changed", token=runtime.tokens().issue(user, now)
    )

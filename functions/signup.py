"""POST /api/signup, and /api/register as the old front end calls it."""

from __future__ import annotations

import time

from flask import Response

from functions.responses import begin_session
from shared import application
from shared.rules import accounts
from shared.web.endpoint import Call, endpoint


@endpoint("POST", body="required")
def signup(call: Call) -> Response:
    """Create a local user and begin a session: 201."""
    now = time.time()
    call.afterwards(application.clean_up)
    user = accounts.sign_up(
        application.store(),
        application.hasher(),
        application.gate(),
        email=call.text("email"),
        password=call.text("password"),
        name=call.optional_text("name"),
        password_min_length=call.settings.password_min_length,
        client=call.client,
    )
    return begin_session(call, user, 201, event="signup", now=now, method="signup")

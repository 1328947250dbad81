"""POST /api/login."""

from __future__ import annotations

import time

from flask import Response

from functions.responses import begin_session
from shared import application
from shared.rules import accounts
from shared.web.endpoint import Call, endpoint


@endpoint("POST", body="required")
def login(call: Call) -> Response:
    """Check an address and a password and begin a session: 200."""
    now = time.time()
    call.afterwards(application.clean_up)
    user = accounts.log_in(
        application.store(),
        application.hasher(),
        application.gate(),
        email=call.text("email"),
        password=call.text("password"),
        client=call.client,
    )
    return begin_session(call, user, event="login", now=now)

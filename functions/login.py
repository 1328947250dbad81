"""POST /api/login."""

from __future__ import annotations

import time

from flask import Response

from functions.answers import begin_session
from shared import accounts, runtime
from shared.http import Call, endpoint


@endpoint("POST", body="required")
def login(call: Call) -> Response:
    """Check an address and a password and begin a session: 200."""
    now = time.time()
    call.afterwards(runtime.clean_up)
    user = accounts.log_in(
        runtime.store(),
        runtime.hasher(),
        runtime.gate(),
        email=call.text("email"),
        password=call.text("password"),
        client=call.client,
    )
    return begin_session(call, user, event="login", now=now)

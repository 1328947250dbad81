"""POST /api/login."""

from __future__ import annotations

import time

from flask import Response

from functions.answers import user_answer
from shared import accounts, runtime
from shared.http import Call, endpoint


@endpoint("POST", body="required")
def login(call: Call) -> Response:
    """Check an address and a password and begin a session: 200."""
    user = accounts.log_in(
        runtime.store(),
        runtime.hasher(),
        email=call.text("email"),
        password=call.text("password"),
    )
    return user_answer(call, user, token=runtime.tokens().issue(user, time.time()))

"""GET /api/user, and /api/session."""

from __future__ import annotations

import time

from flask import Response

from functions.answers import user_answer
from shared import runtime, sessions
from shared.http import Call, endpoint


@endpoint("GET")
def session(call: Call) -> Response:
    """Tell who is signed in: 200 with the user, or 401.

    On the way a stale session is renewed, and one of the old server exchanged for ours.
    """
    user, token = sessions.current_user(
        runtime.store,
        runtime.tokens(),
        call.session_token,
        time.time(),
        express_sid=call.express_sid,
    )
    return user_answer(call, user, token=token)

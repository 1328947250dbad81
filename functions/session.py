"""GET /api/user, and /api/session."""

from __future__ import annotations

import time

from flask import Response

from functions.responses import user_answer
from shared import application
from shared.rules import sessions
from shared.web.endpoint import Call, endpoint


@endpoint("GET")
def session(call: Call) -> Response:
    """Tell who is signed in: 200 with the user, or 401.

    On the way a stale session is renewed, and one of the old server exchanged for ours.
    """
    user, token = sessions.current_user(
        application.store,
        application.tokens(),
        call.session_token,
        time.time(),
        express_sid=call.express_sid,
    )
    return user_answer(call, user, token=token)

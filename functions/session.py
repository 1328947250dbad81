"""GET /api/user, and /api/session."""

from __future__ import annotations

from flask import Response

from functions.user_responses import user_answer
from shared.web.call import Call
from shared.web.endpoint import endpoint


@endpoint("GET")
def session(call: Call) -> Response:
    """Give the signed-in user: 200, or 401.

    On the way a stale session is renewed, and one of the old server exchanged for ours.
    """
    known = call.session_token
    user, token = call.app.sessions.current_user(
        known, call.now, express_sid=call.express_sid if known is None else None
    )
    return user_answer(call, user, token=token)

"""POST /api/signup, and /api/register for the old front end."""

from __future__ import annotations

from flask import Response

from functions.user_responses import begin_session
from shared.web.call import Call
from shared.web.endpoint import endpoint


@endpoint("POST", body="required")
def signup(call: Call) -> Response:
    """Create a local user and begin a session: 201."""
    call.afterwards(call.app.janitor.run)
    user, is_offline = call.app.accounts.sign_up(
        email=call.text("email"),
        password=call.text("password"),
        name=call.optional_text("name"),
        client=call.client,
    )
    call.log["offline"] = is_offline or None
    return begin_session(call, user, 201, event="signup", method="signup")

"""POST /api/login."""

from __future__ import annotations

from flask import Response

from functions.user_responses import begin_session
from shared.web.call import Call
from shared.web.endpoint import endpoint


@endpoint("POST", body="required")
def login(call: Call) -> Response:
    """Check an address and a password and begin a session: 200."""
    call.afterwards(call.app.janitor.run)
    user, is_told = call.app.accounts.log_in(
        email=call.text("email"),
        password=call.text("password"),
        client=call.client,
    )
    if is_told:
        from functions.mail_responses import deliver  # Most logins have no news.

        deliver(call)
    call.log["offline"] = user.is_degraded or None
    return begin_session(call, user, event="login")

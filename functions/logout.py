"""POST /api/logout."""

from __future__ import annotations

from flask import Response

from functions.user_responses import clear_session
from shared.errors import InvalidInput
from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.responses import answer


@endpoint("POST", body="optional")
def logout(call: Call) -> Response:
    """End the session and remove its cookies: 200, with or without a session.

    `everywhere` ends all sessions of the user and needs a valid one. The old server's session
    ends as well, because its row would outlive the cookie. If the session cannot be ended now,
    the cookies stay, so that the user can try again.
    """
    everywhere = call.body.get("everywhere", False)
    if not isinstance(everywhere, bool):
        raise InvalidInput("everywhere", "`everywhere` must be true or false")
    call.afterwards(call.app.janitor.run)
    sessions, token = call.app.sessions, call.session_token
    if everywhere:
        session = sessions.read(token, call.now)
        sessions.log_out_everywhere(session, call.express_sid, client=call.client)
    else:
        sessions.log_out(token, call.express_sid, client=call.client)
    call.log["event"] = "logout_everywhere" if everywhere else "logout"
    response = answer({"message": "Logged out successfully"})
    clear_session(call, response)
    return response

"""POST /api/logout."""

from __future__ import annotations

from flask import Response

from functions.user_responses import clear_session
from shared.errors import InvalidInput
from shared.web.call import Call
from shared.web.cookies import MAX_VALUES
from shared.web.endpoint import endpoint
from shared.web.responses import answer

_UNREAD = (
    "This browser's session cookie was removed, but it could not be read: its session may not have "
    "ended. Changing your password ends all sessions."
)


@endpoint("POST", body="optional")
def logout(call: Call) -> Response:
    """End the session and remove its cookies: 200, with or without a session.

    `everywhere` ends all sessions of the user and needs a valid one. The old server's session
    ends as well, because its row would outlive the cookie. If the session cannot be ended now,
    the cookies stay, so that the user can try again. If a cookie of ours cannot be read, trying
    again does not help: it is removed, and the answer does not say that its session has ended.
    """
    everywhere = call.body.get("everywhere", False)
    if not isinstance(everywhere, bool):
        raise InvalidInput("everywhere", "`everywhere` must be true or false")
    call.afterwards(call.app.janitor.run)
    sessions, given = call.app.sessions, [token for token in call.session_tokens if token]
    tokens = given[:MAX_VALUES]
    if everywhere:
        session = sessions.read(call.session_token, call.now)
        sessions.log_out_everywhere(session, call.express_sids, client=call.client)
        are_read = all(map(sessions.to_end, tokens))
    else:
        are_read = sessions.log_out(tokens, call.express_sids, client=call.client)
    call.log["event"] = "logout_everywhere" if everywhere else "logout"
    if are_read and tokens == given:
        response = answer({"message": "Logged out successfully"})
    else:
        call.log["cause"] = "a session cookie cannot be read, so its session was not ended"
        response = answer({"message": _UNREAD, "ended": False})
    clear_session(call, response)
    return response

"""POST /api/logout."""

from __future__ import annotations

from flask import Response

from functions.answers import clear_session
from shared import accounts, runtime
from shared.errors import InvalidInput
from shared.http import Call, answer, endpoint


@endpoint("POST", body="optional")
def logout(call: Call) -> Response:
    """Remove the session cookies: 200, with or without a session.

    The old server's session ends first, because its row would outlive the cookie.
    Raises InvalidInput for `everywhere`, which must not be answered as if it had been done.
    """
    if call.body.get("everywhere"):
        raise InvalidInput("everywhere", "Logging out everywhere is not possible yet")
    accounts.log_out(runtime.store, call.express_sid)
    response = answer({"message": "Logged out successfully"})
    clear_session(call, response)
    return response

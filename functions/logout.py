"""POST /api/logout."""

from __future__ import annotations

from flask import Response

from shared.http import Call, answer, clear_session, endpoint


@endpoint("POST", body="optional")
def logout(call: Call) -> Response:
    """Remove the session cookie: 200, with or without a session."""
    response = answer({"message": "Logged out successfully"})
    clear_session(call, response)
    return response

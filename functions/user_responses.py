"""Responses about users: their members, and the session's cookie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response

from shared.credentials import express_sessions
from shared.web.call import Call
from shared.web.responses import answer

if TYPE_CHECKING:
    from shared.credentials.session_tokens import IssuedToken
    from shared.model.users import User


def user_members(user: User) -> dict[str, Any]:
    """Give the members that the old front end reads at the top level."""
    return {
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "provider": user.provider,
        "emailVerified": user.email_verified,
    }


def user_answer(
    call: Call,
    user: User,
    status: int = 200,
    *,
    event: str | None = None,
    token: IssuedToken | None = None,
) -> Response:
    """Answer with a user and, if there is a new token, its cookie; log the event."""
    call.log |= {"user_id": user.id, "event": event}
    response = answer(user_members(user), status)
    if token is not None:
        _set_cookie(call, response, token.text, token.max_age)
    return response


def begin_session(
    call: Call,
    user: User,
    status: int = 200,
    *,
    event: str,
    method: str = "password",
    auth_time: int | None = None,
) -> Response:
    """Answer with a user who has just proved who they are, and begin a session."""
    token = call.app.tokens.issue(user, call.now, method=method, auth_time=auth_time)
    return user_answer(call, user, status, event=event, token=token)


def clear_session(call: Call, response: Response) -> None:
    """Remove the session cookie, with the attributes that set it, and the old server's."""
    _set_cookie(call, response, "", 0)
    if (
        call.settings.credentials.express_sessions
        and express_sessions.COOKIE_NAME in call.request.cookies
    ):
        response.delete_cookie(express_sessions.COOKIE_NAME, httponly=True)


def _set_cookie(call: Call, response: Response, value: str, max_age: int) -> None:
    response.set_cookie(
        call.settings.web.cookie_name,
        value,
        max_age=max_age,
        path="/",
        secure=call.settings.web.secure,
        httponly=True,
        samesite="Lax",
    )

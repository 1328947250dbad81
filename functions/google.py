"""POST /api/auth/google."""

from __future__ import annotations

from flask import Response

from functions.mail_responses import deliver
from functions.user_responses import begin_session
from shared.errors import NotAuthenticated
from shared.rules import account_linking
from shared.web.call import Call
from shared.web.endpoint import endpoint


@endpoint("POST", body="required")
def google(call: Call) -> Response:
    """Sign in with an ID token of Google's or Firebase's: 200, or 201 for a new user."""
    call.afterwards(call.app.janitor.run)
    identity = call.app.sign_in_tokens.verify(call.text("idToken"), call.now)
    try:
        session = call.app.sessions.read(call.session_token, call.now)
    except NotAuthenticated:
        session = None
    user, event, is_told = account_linking.sign_in(
        call.app.store,
        identity,
        session,
        client=call.client,
        locale=call.locale,
    )
    if is_told:
        deliver(call)
    return begin_session(
        call,
        user,
        201 if event == "signup" else 200,
        event=event,
        method="google",
        auth_time=identity.auth_time,
    )

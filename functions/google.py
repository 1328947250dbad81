"""POST /api/auth/google."""

from __future__ import annotations

import time

from flask import Response

from functions.responses import begin_session
from shared import application
from shared.errors import NotAuthenticated
from shared.rules import account_linking, sessions
from shared.web.endpoint import Call, endpoint, no_such_path


@endpoint("POST", body="required")
def google(call: Call) -> Response:
    """Sign in with an ID token of Google's or Firebase's: 200, or 201 for a new user."""
    if not call.settings.has_google:
        raise no_such_path()
    now = time.time()
    call.afterwards(application.clean_up)
    identity = application.sign_in_tokens().verify(call.text("idToken"), now)
    try:
        session = sessions.read(application.tokens(), call.session_token, now)
    except NotAuthenticated:
        session = None
    user, event = account_linking.sign_in(
        application.store(), identity, session, client=call.client
    )
    return begin_session(
        call,
        user,
        201 if event == "signup" else 200,
        event=event,
        now=now,
        method="google",
        auth_time=identity.auth_time,
    )

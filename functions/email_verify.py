"""POST /api/email/verify."""

from __future__ import annotations

from contextlib import suppress

from flask import Response

from functions.mail_responses import deliver, require_mail
from functions.user_responses import user_answer
from shared.errors import NotAuthenticated
from shared.model.sessions import Session
from shared.web.call import Call
from shared.web.endpoint import endpoint


@endpoint("POST", body="required")
def email_verify(call: Call) -> Response:
    """Prove or change an address by the token of a mail: 200.

    Without the session of its user it needs the password. Where there is a session it goes on, and
    its cookie tells of the address from now on. All others end when the address changes.
    """
    require_mail(call)
    session: Session | None = None
    with suppress(NotAuthenticated):
        session = call.app.sessions.read(call.session_token, call.now)
    user, event, goes_on = call.app.mailboxes.use_link(
        call.text("token"),
        session=session,
        password=call.optional_text("password") or None,
        client=call.client,
        now=call.now,
    )
    deliver(call)
    token = None
    if session is not None and goes_on:
        token = call.app.tokens.issue(user, call.now, renews=session)
    return user_answer(call, user, event=event, token=token)

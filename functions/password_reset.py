"""POST /api/password/reset."""

from __future__ import annotations

from flask import Response

from functions.mail_responses import deliver, require_mail
from functions.user_responses import clear_session
from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.responses import answer


@endpoint("POST", body="required")
def password_reset(call: Call) -> Response:
    """Set a new password by the token of a mail: 200. No session begins, and all end."""
    require_mail(call)
    user = call.app.mailboxes.reset_password(
        call.text("token"), new=call.text("newPassword"), client=call.client, now=call.now
    )
    call.log |= {"user_id": user.id, "event": "password_reset"}
    deliver(call)
    response = answer({"message": "Your password has been changed. Please sign in."})
    session = call.app.sessions.to_end(call.session_token)
    if session is not None and session.user.id == user.id:
        clear_session(call, response)  # It has ended, and would look alive for minutes.
    return response

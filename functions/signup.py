"""POST /api/signup, and /api/register for the old front end."""

from __future__ import annotations

from flask import Response

from functions.mail_responses import deliver
from functions.user_responses import begin_session
from shared.errors import EmailTaken
from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.responses import answer

_CREATED = (
    "We have sent you an email. Please follow the link in it, then log in. If you already have an "
    "account, the email says so."
)


@endpoint("POST", body="required")
def signup(call: Call) -> Response:
    """Create a local user and begin a session: 201.

    Where the address has to be proved first, there is no session yet, and a taken address gets the
    same answer: its owner learns of it by mail.
    """
    call.afterwards(call.app.janitor.run)
    is_proof_required = call.settings.mail.verification == "required"
    try:
        user, is_offline = call.app.accounts.sign_up(
            email=call.text("email"),
            password=call.text("password"),
            name=call.optional_text("name"),
            client=call.client,
            locale=call.locale,
        )
    except EmailTaken as error:
        if not is_proof_required:
            raise
        call.log |= {"event": "signup_taken", "cause": error.cause}
    else:
        call.log["offline"] = is_offline or None
        if not is_proof_required:
            if call.settings.mail.verification == "optional":
                deliver(call)
            return begin_session(call, user, 201, event="signup", method="signup")
        call.log |= {"user_id": user.id, "event": "signup"}
    deliver(call)
    return answer({"message": _CREATED}, 201)

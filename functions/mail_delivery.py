"""POST /api/mail/delivery: the service's request to itself."""

from __future__ import annotations

from flask import Response

from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.responses import no_content, no_such_path


@endpoint("POST")
def mail_delivery(call: Call) -> Response:
    """Deliver what is in the outbox: 204, and 404 to anybody else."""
    authorization = call.request.headers.get("Authorization")
    if not (call.settings.mail.enabled and call.app.wake.is_ours(authorization, call.now)):
        raise no_such_path()
    call.app.deliver_mail()
    return no_content()

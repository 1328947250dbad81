"""POST /api/mail/delivery: the service's request to itself."""

from __future__ import annotations

import time

from flask import Response

from shared.mail.delivery import RUN_SECONDS
from shared.mail.wake import PAUSE
from shared.observe import request_context
from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.responses import no_content, no_such_path


@endpoint("POST")
def mail_delivery(call: Call) -> Response:
    """Deliver what is in the outbox: 204, and 404 to anybody else.

    Nobody waits for the answer. Who asked for a mail within the same second as another has woken
    nobody, and is served at the end.
    """
    authorization = call.request.headers.get("Authorization")
    if not (call.settings.mail.enabled and call.app.wake.is_ours(authorization, call.now)):
        raise no_such_path()
    with request_context.request(3 * RUN_SECONDS, call.names):  # A request's own time is too short.
        call.app.deliverer.deliver()
        time.sleep(PAUSE)
        call.app.deliverer.deliver()
    return no_content()

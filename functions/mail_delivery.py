"""POST /api/mail/delivery: the service's request to itself."""

from __future__ import annotations

import time

from flask import Response

from shared.mail.delivery import RUN_SECONDS, SEND_SECONDS
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
    deliverer, end = call.app.deliverer, time.monotonic() + RUN_SECONDS
    with request_context.request(RUN_SECONDS + SEND_SECONDS, call.names):
        deliverer.hide()
        deliverer.deliver(end)
        time.sleep(PAUSE)
        deliverer.deliver(end)
    return no_content()

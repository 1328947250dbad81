"""POST /api/mail/delivery: the service's request to itself."""

from __future__ import annotations

import time

from flask import Response

from shared.mail.delivery import RUN_SECONDS, SEND_SECONDS
from shared.mail.wake import PAUSE
from shared.observe import request_context
from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.responses import no_content


def _is_ours(call: Call) -> bool:
    if not call.settings.mail.enabled:
        return False
    return call.app.wake.is_ours(call.request.headers.get("Authorization"), call.now)


@endpoint("POST", exists=_is_ours)
def mail_delivery(call: Call) -> Response:
    """Deliver what is in the outbox: 204; to anybody else there is no such path.

    Nobody waits for the answer. Who asked for a mail within the same second as another has woken
    nobody, and is served at the end.
    """
    deliverer, end = call.app.deliverer, time.monotonic() + RUN_SECONDS
    with request_context.request(RUN_SECONDS + SEND_SECONDS, call.names):
        deliverer.hide()
        deliverer.deliver(end)
        time.sleep(PAUSE)
        deliverer.deliver(end)
    return no_content()

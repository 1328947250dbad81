"""POST /api/mail/delivery: the service's request to itself, or a scheduler's."""

from __future__ import annotations

import time
from contextlib import suppress

from flask import Response

from shared.errors import AuthError
from shared.mail.delivery import RUN_SECONDS, SEND_SECONDS
from shared.mail.wake import PAUSE
from shared.observe import request_context
from shared.web.call import Call
from shared.web.endpoint import authenticate_admin, endpoint
from shared.web.responses import no_content


def _may_ask(call: Call) -> bool:
    """Tell whether it is the service itself that asks, or a scheduler of an administrator's."""
    if not call.settings.mail.enabled:
        return False
    if call.app.wake.is_ours(call.request.headers.get("Authorization"), call.now):
        return True
    if call.settings.administrators.exist:
        with suppress(AuthError):
            authenticate_admin(call)
    return bool(call.admin)


@endpoint("POST", exists=_may_ask)
def mail_delivery(call: Call) -> Response:
    """Deliver what is in the outbox: 204; to anybody else there is no such path.

    Nobody waits for the answer to the service's own. Who asked for a mail within the same second as
    another has woken nobody, and is served at the end.
    """
    deliverer, end = call.app.deliverer, time.monotonic() + RUN_SECONDS
    with request_context.request(RUN_SECONDS + SEND_SECONDS, call.names):
        if not call.admin:
            deliverer.hide()
            deliverer.deliver(end)
            time.sleep(PAUSE)  # For as long nobody else has been able to wake the service.
        deliverer.deliver(end)
    return no_content()

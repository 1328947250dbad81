"""GET /reset, /verify and /link, to which mails lead, and GET /email: wherever mail is sent.

Whoever only fetches a page, as what scans mails for links does, changes nothing: the token of a
link stands behind its `#`, and the page's script sends it when somebody clicks.
"""

from __future__ import annotations

from flask import Response

from functions.pages import rendering
from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.responses import no_such_path

_PAGES = ("reset", "verify", "link", "email")


@endpoint("GET", exists=lambda call: call.settings.mail.enabled)
def mailbox_page(call: Call) -> Response:
    """Give the page that the path names: 200."""
    name = call.request.path.removeprefix("/")
    if name not in _PAGES or (name == "link" and not call.settings.mail.sign_in_by_mail):
        raise no_such_path()
    response = rendering.page(call, "mailbox.html", page=name)
    response.headers.update(rendering.STRICT)
    return response

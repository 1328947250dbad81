"""GET /: the sign-in page, and the files that the pages load.

The page is a client of the HTTP contract like any other. Its policy lets it load nothing but its
own files and, where users sign in with Google, what Google documents for its button.
"""

from __future__ import annotations

import secrets

from flask import Response

from functions.pages import rendering
from shared.web.call import Call
from shared.web.endpoint import endpoint

_FILES = ("/sign-in.css", "/sign-in.js", "/mailbox.js", "/client.js")
_OF_MAILS = ("/sign-in.css", "/mailbox.js", "/client.js")
"""What the pages to which mails lead load; they exist without the sign-in page."""
_GOOGLE = "https://accounts.google.com/gsi"


def _exists(call: Call) -> bool:
    is_of_mails = call.settings.mail.enabled and call.request.path in _OF_MAILS
    return is_of_mails or call.settings.web.sign_in_page


@endpoint("GET", exists=_exists)
def page(call: Call) -> Response:
    """Give the page, or what the pages load: 200."""
    path = call.request.path
    if path in _FILES:
        return rendering.file(path.removeprefix("/"))
    nonce = secrets.token_urlsafe(16)
    client_ids = call.settings.credentials.google_client_ids
    response = rendering.page(
        call,
        "sign-in.html",
        client_id=client_ids[0] if client_ids else "",
        nonce=nonce,
        has_mail=call.settings.mail.enabled,
        has_links=call.settings.mail.sign_in_by_mail,
    )
    response.headers.update(_with_google(nonce) if client_ids else rendering.STRICT)
    return response


def _with_google(nonce: str) -> dict[str, str]:
    """Give the headers that Google documents for its button.

    The nonce is for the style sheet that Google's script writes into the page. The referrer is what
    it checks the client id against on localhost; the page's address tells no more than its origin.
    """
    return {
        "Content-Security-Policy": rendering.policy(
            script_src=f"'self' {_GOOGLE}/client",
            style_src=f"'self' {_GOOGLE}/style 'nonce-{nonce}'",
            connect_src=f"'self' {_GOOGLE}/",
            frame_src=f"{_GOOGLE}/",
        ),
        "Cross-Origin-Opener-Policy": "same-origin-allow-popups",
        "Referrer-Policy": "no-referrer-when-downgrade",
    }

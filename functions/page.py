"""GET /: the sign-in page, and the two files that it loads.

The page is a client of the HTTP contract like any other. Its policy lets it load nothing but its
own files and, where users sign in with Google, what Google documents for its button.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from string import Template

from flask import Response

from shared.web.call import Call
from shared.web.endpoint import endpoint

_FILES = Path(__file__).parent / "pages"
_TYPES = {"/sign-in.css": "text/css", "/sign-in.js": "text/javascript"}
_GOOGLE = "https://accounts.google.com/gsi"


@endpoint("GET", exists=lambda settings: settings.web.sign_in_page)
def page(call: Call) -> Response:
    """Give the page, or what it loads: 200."""
    path = call.request.path
    if path in _TYPES:
        return _file(path.removeprefix("/"), _TYPES[path])
    nonce = secrets.token_urlsafe(16)
    client_ids = call.settings.credentials.google_client_ids
    response = _file(
        "sign-in.html",
        "text/html",
        client_id=client_ids[0] if client_ids else "",
        nonce=nonce,
        password_min_length=str(call.settings.credentials.password_min_length),
    )
    response.headers.update(_with_google(nonce) if client_ids else _WITHOUT_GOOGLE)
    return response


def _file(name: str, content_type: str, **values: str) -> Response:
    # Read each time, so that a change shows at the next reload.
    text = (_FILES / name).read_text(encoding="utf-8")
    if values:
        text = Template(text).substitute(values)
    return Response(text, content_type=f"{content_type}; charset=utf-8")


def _policy(**sources: str) -> str:
    """Write a Content-Security-Policy that allows only what is named."""
    directives = {
        "default_src": "'none'",
        "script_src": "'self'",
        "style_src": "'self'",
        "connect_src": "'self'",
        "img_src": "data:",
        "base_uri": "'none'",
        # The script sends the forms; without it no password goes into an address.
        "form_action": "'none'",
        "frame_ancestors": "'none'",
    } | sources
    return "; ".join(f"{name.replace('_', '-')} {value}" for name, value in directives.items())


_WITHOUT_GOOGLE = {
    # Trusted Types: text from the server cannot become markup, whatever the script does.
    "Content-Security-Policy": _policy(
        require_trusted_types_for="'script'", trusted_types="'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
}


def _with_google(nonce: str) -> dict[str, str]:
    """Give the headers that Google documents for its button.

    The nonce is for the style sheet that Google's script writes into the page. The referrer is what
    it checks the client id against on localhost; the page's address tells no more than its origin.
    """
    return {
        "Content-Security-Policy": _policy(
            script_src=f"'self' {_GOOGLE}/client",
            style_src=f"'self' {_GOOGLE}/style 'nonce-{nonce}'",
            connect_src=f"'self' {_GOOGLE}/",
            frame_src=f"{_GOOGLE}/",
        ),
        "Cross-Origin-Opener-Policy": "same-origin-allow-popups",
        "Referrer-Policy": "no-referrer-when-downgrade",
    }

"""Pages and their files, in the language that the browser prefers.

The pages are written in English; `de.json` has the German for each of their sentences, and for the
error codes of the API, whose own sentences are English.
"""

from __future__ import annotations

import functools
import secrets
from pathlib import Path
from typing import Any

from flask import Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from shared.formats.strict_json import loads
from shared.model.locales import DEFAULT_LOCALE
from shared.web.call import Call

PAGES = Path(__file__).parent
_HTML = "text/html; charset=utf-8"
_TYPES = {".css": "text/css", ".js": "text/javascript"}


@functools.cache
def _environment() -> Environment:
    # It looks whether a template has changed, so that a change shows at the next reload.
    loader = FileSystemLoader(PAGES)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined)


def _template(name: str) -> Template:
    """Give a template, whose values are escaped."""
    return _environment().get_template(name)


def file(name: str) -> Response:
    """Answer with what a page loads."""
    path = PAGES / name
    text = path.read_text(encoding="utf-8")
    return Response(text, content_type=f"{_TYPES[path.suffix]}; charset=utf-8")


def page(call: Call, name: str, **values: Any) -> Response:
    """Answer with a page in the caller's language; its script has the same words."""
    locale = call.locale or DEFAULT_LOCALE
    language = _language(locale)
    unverified = language["errors"].pop("invalid_credentials unverified", None)
    if unverified and call.settings.mail.verification == "required":
        language["errors"]["invalid_credentials"] = unverified

    def say(sentence: str, **parts: object) -> str:
        return language["words"].get(sentence, sentence).format(**parts)

    text = _template(name).render(
        _=say,
        application=call.settings.mail.application,
        language=language,
        locale=locale,
        password_min_length=call.settings.credentials.password_min_length,
        **values,
    )
    return Response(text, content_type=_HTML)


def styled_page(name: str, css: str, **values: Any) -> Response:
    """Answer with a page that loads nothing and has no script; its style stands in it."""
    nonce = secrets.token_urlsafe(16)
    style = (PAGES / css).read_text(encoding="utf-8")
    text = _template(name).render(nonce=nonce, css=style, **values)
    response = Response(text, content_type=_HTML)
    response.headers["Content-Security-Policy"] = policy(
        script_src="'none'", style_src=f"'nonce-{nonce}'", connect_src="'none'"
    )
    return response


def _language(locale: str) -> dict[str, dict[str, str]]:
    if locale == DEFAULT_LOCALE:
        return {"words": {}, "errors": {}}
    found: dict[str, dict[str, str]] = loads((PAGES / f"{locale}.json").read_bytes())
    return found


def policy(**sources: str) -> str:
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


STRICT = {
    # Trusted Types: text from the server cannot become markup, whatever the script does.
    "Content-Security-Policy": policy(require_trusted_types_for="'script'", trusted_types="'none'"),
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""The headers of a page that loads nothing but our own files."""

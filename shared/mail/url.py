"""Reads `MAIL_URL`: a mail server, which is always spoken to over verified TLS, or a hook."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from shared.formats import origins
from shared.formats.origins import InvalidOrigin

_PORTS = {"smtps": 465, "smtp": 587}  # RFC 8314, section 3.3; RFC 6409, section 3.1
_REST = re.compile(r"[!-~]*")
_SECRET_BYTES = (24, 64)
"""As the specification of Standard Webhooks bounds them."""


class InvalidMailUrl(ValueError):
    """It cannot be used; the text is a clause without any part of a secret."""


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """A mail server that takes messages for others (RFC 6409)."""

    host: str
    """In ASCII; an IPv6 address without brackets."""
    port: int
    direct_tls: bool
    """Whether TLS comes first, instead of STARTTLS."""
    user: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Hook:
    """An HTTPS endpoint that sends the mail itself."""

    host: str
    url: str = field(repr=False)
    """Of ASCII."""
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    """Each signs."""


def parse(text: str) -> SmtpServer | Hook:
    """Read `smtps://`, `smtp://` or `https://`. Raises InvalidMailUrl."""
    if " " in text or not text.isprintable():
        raise InvalidMailUrl("it has a blank or a control character; write a blank as %20")
    try:
        parts = urlsplit(text)
        if "@" in parts.path + parts.query + parts.fragment:
            raise InvalidMailUrl(
                "it has an '@' behind the host; in a password write '/' as %2F, '?' as %3F, '#' as "
                "%23 and '@' as %40"
            )
        port = parts.port
    except InvalidMailUrl:  # A ValueError, too.
        raise
    except ValueError:
        raise InvalidMailUrl(
            "its host or port cannot be read; a port is a number up to 65535, and an IPv6 address "
            "stands in brackets"
        ) from None
    if parts.scheme not in ("https", *_PORTS):
        raise InvalidMailUrl("it must begin with smtps://, smtp:// or https://")
    if port == 0:
        raise InvalidMailUrl("its port is 0")
    if "#" in text:
        raise InvalidMailUrl("it has a '#'")
    return _hook(parts) if parts.scheme == "https" else _server(parts)


def _server(parts: SplitResult) -> SmtpServer:
    if parts.query:
        name = re.split("[=&]", parts.query)[0]
        # What follows a bare question mark in a password is no parameter, and is not shown.
        shown = f" {name!r}" if re.fullmatch(r"[a-z_]{1,30}", name) else ""
        raise InvalidMailUrl(f"its parameter{shown} is not supported")
    if parts.path not in ("", "/"):
        raise InvalidMailUrl("it has a path; a mail server has none")
    user, password = _decoded(parts.username), _decoded(parts.password)
    if bool(user) != bool(password):
        raise InvalidMailUrl("it must have a user and a password, or neither")
    return SmtpServer(
        host=_host(parts).strip("[]"),
        port=parts.port or _PORTS[parts.scheme],
        direct_tls=parts.scheme == "smtps",
        user=user or None,
        password=password,
    )


def _hook(parts: SplitResult) -> Hook:
    if parts.username is not None:
        raise InvalidMailUrl("a hook takes no user and password: MAIL_HOOK_SECRET signs")
    host = _host(parts)
    rest = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _REST.fullmatch(rest):
        raise InvalidMailUrl("its path must be in ASCII, and have no blank; write é as %C3%A9")
    port = f":{parts.port}" if parts.port else ""
    return Hook(host.strip("[]"), f"https://{host}{port}{rest}")


def _host(parts: SplitResult) -> str:
    name = parts.hostname or ""
    if not name:
        raise InvalidMailUrl("it must name a host")
    try:
        return origins.parse_written(f"https://{f'[{name}]' if ':' in name else name}").host
    except InvalidOrigin:
        raise InvalidMailUrl("its host is neither a name nor an address") from None


def _decoded(text: str | None) -> str:
    try:
        decoded = unquote(text or "", errors="strict")
    except UnicodeDecodeError:
        raise InvalidMailUrl("its percent-encoding is not UTF-8") from None
    if "\0" in decoded:
        raise InvalidMailUrl("it contains %00")
    return decoded


def parse_hook_secrets(text: str) -> tuple[bytes, ...]:
    """Read `whsec_…`, or a list of them with commas in between. Raises InvalidMailUrl."""
    return tuple(_hook_secret(entry.strip()) for entry in text.split(","))


def _hook_secret(text: str) -> bytes:
    least, most = _SECRET_BYTES
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not text.startswith("whsec_") or not least <= len(key) <= most:
        raise InvalidMailUrl(f"a secret is whsec_ and the base64 of {least} to {most} bytes")
    return key

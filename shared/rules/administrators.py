"""Authentication of administrators. Knows no HTTP; the caller gives the time."""

from __future__ import annotations

import hashlib
import hmac

from shared.credentials.id_tokens import IdTokens
from shared.errors import AdminRequired, InvalidIdentityToken, NotAdmin
from shared.rules.settings import AdministratorSettings


def authenticate(
    settings: AdministratorSettings, bearer: str | None, google_id_tokens: IdTokens, now: float
) -> str:
    """Verify a bearer token and give the administrator's name for the log.

    Raises AdminRequired for a missing or invalid token, NotAdmin for a valid Google token of
    somebody else (RFC 6750, section 3.1), and IdentityUnavailable if Google's certificates are
    needed and cannot be fetched. Each kind of token is accepted only if its setting is present.
    """
    if bearer is None:
        raise AdminRequired(cause="no bearer token")
    if settings.token is not None and _equal(bearer, settings.token):
        return "admin token"
    if settings.audience is None:
        raise AdminRequired(cause="not the admin token")
    try:
        identity = google_id_tokens.verify(bearer, settings.audience, now)
    except InvalidIdentityToken as error:
        raise AdminRequired(cause=error.cause) from error
    if identity.email not in settings.service_accounts:
        raise NotAdmin(cause=f"Google's subject {identity.subject} is no administrator")
    return f"Google's subject {identity.subject}"


def _equal(presented: str, secret: str) -> bool:
    """Compare in constant time: digests have the same length for all inputs."""
    return hmac.compare_digest(_digest(presented), _digest(secret))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

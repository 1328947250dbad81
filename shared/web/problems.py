"""Descriptions of errors: an RFC 9457 problem for the client, the cause for the log.

Knows no web framework; `exchange` sends what is made here, and logs it.
"""

from __future__ import annotations

import traceback
from http import HTTPStatus
from typing import Any, NamedTuple

from shared import errors
from shared.errors import HttpError

_STATUS: dict[type[errors.AuthError], int] = {
    errors.InvalidInput: 400,
    errors.InvalidMailToken: 400,
    errors.InvalidCredentials: 401,
    errors.NotAuthenticated: 401,
    errors.AdminRequired: 401,
    errors.InvalidIdentityToken: 401,
    errors.NotAdmin: 403,
    errors.WrongPassword: 403,
    errors.ReauthenticationRequired: 403,
    errors.GoogleNotConfigured: 404,
    errors.MailNotConfigured: 404,
    errors.ProofRequired: 403,
    errors.SignInRequired: 403,
    errors.EmailTaken: 409,
    errors.LinkRequired: 409,
    errors.AccountInUse: 409,
    errors.TooManyAttempts: 429,
    errors.InvalidSource: 400,
    errors.TransferRefused: 409,
    errors.Unavailable: 503,
}

_RENAMED = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
"""RFC 9110's names; Python before 3.13 has those of RFC 7231."""


class Problem(NamedTuple):
    """An error, described."""

    status: int
    headers: dict[str, str]
    members: dict[str, Any]
    """Of the JSON object."""
    log: dict[str, object]
    """Fields for the request's log line."""


def _phrase(status: int) -> str:
    return _RENAMED.get(status) or HTTPStatus(status).phrase


def of_status(status: int) -> HttpError:
    """Make an error from a status alone, such as the framework's."""
    sentence = _phrase(status)
    return HttpError(status, sentence.lower().replace(" ", "_"), sentence)


def describe(error: Exception, *, request_id: str, cookie_name: str) -> Problem:
    """Make an error's RFC 9457 problem and headers; the old page shows the member `error`."""
    headers: dict[str, str] = {}
    extra: dict[str, Any] = {}
    log: dict[str, object] = {}
    if isinstance(error, HttpError):
        status, code, sentence = error.status, error.code, error.sentence
        headers = dict(error.headers)
    elif isinstance(error, errors.AuthError):
        status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
        code, sentence = error.code, error.sentence
        if error.cause is not None:
            log["cause"] = error.cause
        log |= error.facts
        if isinstance(error, errors.InvalidInput):
            extra["field"] = error.field
        if isinstance(error, errors.Unavailable | errors.TooManyAttempts):
            headers["Retry-After"] = str(error.retry_after)
    elif isinstance(error, errors.StoreFault):
        # The operator's to mend, as what the store itself refuses.
        refused = errors.StoreRefused
        status, code, sentence = _STATUS[errors.Unavailable], refused.code, refused.sentence
        headers["Retry-After"] = str(refused.retry_after)
        log |= {"cause": str(error)} | error.facts
    else:
        status, code = 500, "internal_error"
        sentence = "Something went wrong on our side. Please try again later."
        # Only type and frames: the message of a foreign error might quote a secret.
        log["exception"] = type(error).__qualname__
        log["stack"] = traceback.format_tb(error.__traceback__)
    log["code"] = code
    if isinstance(error, errors.AdminRequired):
        headers["WWW-Authenticate"] = 'Bearer realm="AI-Coder"'
    elif status == 401:
        headers["WWW-Authenticate"] = f'Cookie realm="AI-Coder", cookie-name="{cookie_name}"'
    members = {
        "type": "about:blank",
        "title": _phrase(status),
        "status": status,
        "detail": sentence,
        "code": code,
        "request_id": request_id,
        "error": sentence,
    }
    return Problem(status, headers, members | extra, log)

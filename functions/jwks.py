"""GET /.well-known/jwks.json."""

from __future__ import annotations

from flask import Response

from shared import application
from shared.web.endpoint import Call, answer, endpoint, no_such_path


@endpoint("GET")
def jwks(call: Call) -> Response:  # noqa: ARG001  # the keys are the same for everybody
    """Give the public keys (RFC 7517): 200, or 404 where tokens are signed with a secret."""
    keys = application.tokens().jwks()
    if not keys["keys"]:
        raise no_such_path()
    response = answer(keys)
    response.headers["Cache-Control"] = "public, max-age=300"
    return response

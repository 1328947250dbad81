"""GET /.well-known/jwks.json."""

from __future__ import annotations

from flask import Response

from shared.web.call import Call
from shared.web.endpoint import endpoint
from shared.web.responses import answer, no_such_path


@endpoint("GET")
def jwks(call: Call) -> Response:
    """Give the public keys (RFC 7517): 200, or 404 if tokens are signed with a secret."""
    keys = call.app.signing.jwks()
    if not keys["keys"]:
        raise no_such_path()
    response = answer(keys)
    response.headers["Cache-Control"] = "public, max-age=300"
    return response

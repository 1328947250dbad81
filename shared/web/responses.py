"""Responses of functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flask import Response

from shared.errors import HttpError


def answer(payload: dict[str, Any], status: int = 200) -> Response:
    """Answer with a JSON object."""
    return Response(json.dumps(payload), status, content_type="application/json")


def no_content(headers: Mapping[str, str] | None = None) -> Response:
    """Answer 204."""
    response = Response(status=204, headers=headers)
    del response.headers["Content-Type"]
    return response


def no_such_path() -> HttpError:
    """Make the error of an unknown path."""
    return HttpError(404, "not_found", "There is nothing at this address")

"""GET /api/metrics: counts and times of this process, for Prometheus."""

from __future__ import annotations

from flask import Response

from shared import application
from shared.observe import metrics as instruments
from shared.web.endpoint import Call, endpoint


@endpoint("GET", admin=True)
def metrics(_: Call) -> Response:
    """Give them as text. Nothing is asked of the database: a scrape must not keep it awake."""
    return Response(instruments.render(application.gauges()), content_type=instruments.CONTENT_TYPE)

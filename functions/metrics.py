"""GET /api/metrics: metrics of this process, for Prometheus."""

from __future__ import annotations

from flask import Response

from shared.observe import metrics as instruments
from shared.web.call import Call
from shared.web.endpoint import endpoint


@endpoint("GET", admin=True, basic=True)
def metrics(call: Call) -> Response:
    """Give them as text. Does not query the database: a scrape must not keep it awake."""
    text = instruments.render(call.app.gauges())
    return Response(text, content_type=instruments.CONTENT_TYPE)

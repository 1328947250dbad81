"""What OpenTelemetry's collector receives, over its own protocol."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from tests.support.emulator import running_emulator
from tests.support.serving import serving
from tests.support.waiting import until

ADA = {"email": "ada@example.com", "password": "correct horse battery staple"}
INTERVAL = {
    "OTEL_METRIC_EXPORT_INTERVAL": "100",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    "OTEL_SERVICE_NAME": "auth",
}


class Collector(HTTPServer):
    """It keeps what the last export of each metric said."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.points: dict[str, dict[tuple[str, ...], Any]] = {}
        self.services: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def take(self, body: bytes) -> None:
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            self.services |= {
                pair.value.string_value
                for pair in resource.resource.attributes
                if pair.key == "service.name"
            }
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                points = getattr(metric, metric.WhichOneof("data")).data_points
                self.points[metric.name] = {
                    tuple(pair.value.string_value for pair in point.attributes): point
                    for point in points
                }


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/metrics"
        self.server.take(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _collecting() -> Iterator[Collector]:
    collector = Collector()
    with serving(collector):
        yield collector


def test_a_worker_exports_its_metrics_where_an_endpoint_is_configured(tmp_path: Path) -> None:
    settings = {"USERS_FILE": str(tmp_path / "users.json"), **INTERVAL}
    with (
        _collecting() as collector,
        running_emulator(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, **settings) as emulator,
        emulator.client() as client,
    ):
        client.post("/api/signup", json=ADA)
        client.post("/api/login", json=ADA | {"password": "wrong"})
        outcome = ("login", "401", "invalid_credentials")
        requests = "http_server_request_duration_seconds"
        until(lambda: outcome in collector.points.get(requests, {}))
        assert collector.points[requests][outcome].count == 1
        assert 0 < collector.points[requests][outcome].sum < 30
        assert list(collector.points[requests][outcome].explicit_bounds)[:2] == [0.001, 0.0025]
        assert collector.points["process_start_time_seconds"][()].as_double > 1.7e9
        assert collector.services == {"auth"}


def test_a_collector_that_is_away_changes_no_answer(tmp_path: Path) -> None:
    settings = {"USERS_FILE": str(tmp_path / "users.json"), **INTERVAL}
    with (
        running_emulator(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", **settings) as emulator,
        emulator.client() as client,
    ):
        assert client.post("/api/signup", json=ADA).status_code == 201
        time.sleep(0.3)  # Some exports.
        assert client.get("/api/user").status_code == 200


def test_without_the_package_a_warning_says_which_one_it_is(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked" / "opentelemetry"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError")
    settings = {"USERS_FILE": str(tmp_path / "users.json"), "PYTHONPATH": str(blocked.parent)}
    with (
        running_emulator(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", **settings) as emulator,
        emulator.client() as client,
    ):
        assert client.get("/api/livez").status_code == 200
        warnings = [line["message"] for line in emulator.log() if line["severity"] == "WARNING"]
    (warning,) = warnings
    assert warning.endswith("is not installed: opentelemetry-exporter-otlp-proto-http")

"""Exports the metrics to OpenTelemetry where it is installed and configured.

OpenTelemetry's own environment variables name the endpoint and the interval (OpenTelemetry
Specification, *OTLP Exporter Configuration* and *Environment Variables*).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence

from shared.observe import log, metrics
from shared.observe.metrics import Counter, Gauge, Histogram

_PACKAGE = "opentelemetry-exporter-otlp-proto-http"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")


def export_from_workers(gauges: Callable[[], Sequence[Gauge]]) -> None:
    """Start an exporter in each process that the server forks, if an endpoint is configured."""
    if any(os.environ.get(name) for name in _ENDPOINTS):
        os.register_at_fork(after_in_child=functools.partial(_export, gauges))


def _export(gauges: Callable[[], Sequence[Gauge]]) -> None:
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.metrics import CallbackOptions, Observation
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    except ImportError:
        sentence = f"OpenTelemetry is configured, but its package is not installed: {_PACKAGE}"
        log.write("WARNING", sentence)
        return
    meter = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]).get_meter(
        "ai-coder"
    )

    def observing(name: str) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for gauge in gauges():
                if gauge.name == name:
                    yield Observation(gauge.value, dict(gauge.labels))

        return observe

    for gauge in {gauge.name: gauge for gauge in gauges()}.values():
        meter.create_observable_gauge(
            gauge.name, [observing(gauge.name)], description=gauge.description
        )
    exported: dict[str, Callable[[float, dict[str, str]], None]] = {}
    for instrument in metrics.INSTRUMENTS:
        if isinstance(instrument, Histogram):
            exported[instrument.name] = meter.create_histogram(
                instrument.name,
                "s",
                instrument.description,
                explicit_bucket_boundaries_advisory=metrics.BUCKETS,
            ).record
        else:
            counter = meter.create_counter(instrument.name, "1", instrument.description)
            exported[instrument.name] = counter.add

    def hand_over(instrument: Counter | Histogram, value: float, values: tuple[str, ...]) -> None:
        labels = dict(zip(instrument.labels, values, strict=True))
        exported[instrument.name](value, labels)

    metrics.listen(hand_over)

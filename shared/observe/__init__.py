"""What operators see: log, metrics, alerts, telemetry, and what belongs to one request."""

"""What operators see: log, metrics, alerts, traces, and what belongs to one request."""

"""What a server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Counters of a server, in a registry of their own."""

    def __init__(self):
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rws_keras_requests",
            "Requests answered, by protocol, model and status code.",
            ["protocol", "model", "code"],
            registry=self.registry,
        )
        self.rows = Counter(
            "rws_keras_rows", "Rows computed, by model.", ["model"], registry=self.registry
        )
        self.seconds = Histogram(
            "rws_keras_request_seconds",
            "Time to answer a request, by protocol and model.",
            ["protocol", "model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.refused = Counter(
            "rws_keras_requests_refused",
            "Requests refused because all places were taken.",
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "rws_keras_requests_in_flight", "Requests being worked on.", registry=self.registry
        )

    def text(self) -> bytes:
        """All metrics in Prometheus's text form."""
        return generate_latest(self.registry)

"""What a server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Counters of a server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def make(kind, name, text, labels=(), **options):
            return kind(f"rws_keras_{name}", text, labels, registry=self.registry, **options)

        by = ["protocol", "model"]  # `none` where no model of the server is meant
        self.requests = make(Counter, "requests", "Requests answered.", [*by, "code"])
        self.seconds = make(Histogram, "request_seconds", "Time to answer.", by, buckets=_SECONDS)
        self.rows = make(Counter, "rows", "Rows of the requests.", ["model"])
        self.batches = make(Counter, "batches", "Batches computed, of rows of all requests.")
        self.refused = make(Counter, "requests_refused", "Requests over the concurrency limit.")
        self.in_flight = make(Gauge, "requests_in_flight", "Requests being worked on.")

    def answered(self, protocol: str, model: str, code: str, seconds: float) -> None:
        """Counts an answer, be it an error."""
        self.requests.labels(protocol, model, code).inc()
        self.seconds.labels(protocol, model).observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)

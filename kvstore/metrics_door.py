"""What the front door counts, for /metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from prometheus_client.metrics_core import Metric


def metric_of(
    name: str, kind: str, text: str, rows: Iterable[tuple[dict[str, str], float]]
) -> Metric:
    """A metric: its name, ``counter`` or ``gauge``, what it tells, and its samples by labels."""
    # The text format writes a counter's name with "_total", and expects it without.
    metric = Metric(name.removesuffix("_total") if kind == "counter" else name, text, kind)
    for labels, value in rows:
        metric.add_sample(name, labels, value)
    return metric


class Http2Counts(Protocol):
    """What is counted of HTTP/2 and gRPC (``kvstore/api/limits.py``)."""

    answers: list[int]
    broken_connections: int
    client_resets: int
    connections_open: int
    floods: int
    refused_streams: int
    stream_faults: int
    untaken: int


class DoorCounts(Protocol):
    """What the front door counts (``kvstore/api/limits.py``)."""

    answers: dict[int, int]
    connections_accepted: int
    connections_open: int
    connections_refused: int
    handshakes_failed: int
    handshakes_open: int
    late_heads: int
    malformed: int
    requests: int
    streams_open: int
    surprises: int

    @property
    def http2(self) -> Http2Counts:
        """Of HTTP/2 and gRPC."""


_DOOR_SAMPLES: Final = (
    ("kvstore_http_connections_total", "counter", "Connections taken.", "connections_accepted"),
    ("kvstore_http_connections_open", "gauge", "Connections open now.", "connections_open"),
    (
        "kvstore_http_connections_refused_total",
        "counter",
        "Connections refused because too many were open.",
        "connections_refused",
    ),
    (
        "kvstore_tls_handshakes_failed_total",
        "counter",
        "TLS handshakes with clients that came to nothing.",
        "handshakes_failed",
    ),
    (
        "kvstore_tls_handshakes_open",
        "gauge",
        "TLS handshakes with clients under way; they are among the open connections.",
        "handshakes_open",
    ),
    ("kvstore_http_requests_total", "counter", "Requests that came in.", "requests"),
    ("kvstore_http_streams_open", "gauge", "Watch and keep-alive streams open.", "streams_open"),
    (
        "kvstore_http_late_heads_total",
        "counter",
        "Connections that did not show a request in time.",
        "late_heads",
    ),
    ("kvstore_http_malformed_total", "counter", "Requests that are not HTTP.", "malformed"),
    (
        "kvstore_http_internal_errors_total",
        "counter",
        "Requests that failed by a mistake of the server's own.",
        "surprises",
    ),
)


_HTTP2_COUNTERS: Final = (
    ("broken_connections", "Connections ended because the client broke a rule."),
    ("client_resets", "Calls that the client took back."),
    ("floods", "Connections ended because the client did too much of something useless."),
    ("refused_streams", "Calls refused because the client had too many at a time."),
    ("stream_faults", "Calls ended because the client broke a rule."),
    ("untaken", "Answers that the client did not take in time."),
)


class DoorCollector:
    """Reads the front door's counters for prometheus-client."""

    def __init__(self, counts: DoorCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Every sample, as it is now."""
        counts = self._counts
        for name, kind, text, attribute in _DOOR_SAMPLES:
            yield metric_of(name, kind, text, [({}, float(getattr(counts, attribute)))])
        rows = [({"code": str(code)}, float(n)) for code, n in sorted(counts.answers.items())]
        yield metric_of("kvstore_http_answers_total", "counter", "Answers by status.", rows)
        http2 = counts.http2
        for name, text in _HTTP2_COUNTERS:
            value = float(getattr(http2, name))
            yield metric_of(f"kvstore_http2_{name}_total", "counter", text, [({}, value)])
        text = "HTTP/2 connections open now."
        value = float(http2.connections_open)
        yield metric_of("kvstore_http2_connections_open", "gauge", text, [({}, value)])
        rows = [({"code": str(code)}, float(n)) for code, n in enumerate(http2.answers) if n]
        yield metric_of("kvstore_grpc_answers_total", "counter", "Calls answered, by code.", rows)

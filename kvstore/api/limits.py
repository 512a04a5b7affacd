"""What clients may use of the front door, and what it counts."""

from typing import Final

import msgspec

from kvstore.errors import Code

KIB: Final = 1024
ENVELOPE_BYTES: Final = 512 * KIB
"""How much longer than the largest write a request may be, as etcd's receive limit has it."""


class ApiLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What clients may use; each has a test at its edge."""

    max_request_bytes: int = 1536 * KIB
    """Most bytes of one write."""
    max_txn_ops: int = 128
    """Most operations of a transaction; bounds the JSON values of a request."""
    max_connections: int = 20_000
    """Most connections at a time; one more is answered 503 and closed."""
    watch_bytes_max: int = 1024 * KIB
    """Most bytes of events encoded at a time for one watch stream."""
    head_seconds: float = 10.0
    """How long the first head of a connection may take."""
    body_seconds: float = 30.0
    """How long a body may take."""
    stall_seconds: float = 60.0
    """How long a client may take nothing of its answer."""
    idle_seconds: float = 120.0
    """How long a connection may be idle between requests, or take over a later head."""
    linger_seconds: float = 2.0
    """How long the rest of a refused body is read, so that the client gets to see the answer."""
    max_streams: int = 4096
    """Most calls at a time on one HTTP/2 connection; more are refused, to be tried again."""
    keepalive_min_seconds: float = 5.0
    """How often a gRPC client with a call under way may ping."""
    keepalive_interval_seconds: float = 7200.0
    """After how long a silence a gRPC client is pinged."""
    keepalive_timeout_seconds: float = 20.0
    """How long it may take to answer that."""
    idle_connection_seconds: float = 1800.0
    """How long an HTTP/2 connection may be without a call."""
    unsent_bytes_max: int = 64 * 1024 * KIB
    """Bytes of answers that a gRPC client has left waiting, beyond which it gets none."""
    stream_unsent_bytes_max: int = 32 * 1024 * KIB
    """Bytes that wait on an HTTP/2 connection, beyond which its streaming calls make no more."""
    stream_held_bytes_max: int = 16 * 1024 * KIB
    """Bytes of unfinished and untaken messages that the streaming calls of an HTTP/2 connection
    hold, beyond which the client may send nothing more on it."""

    @property
    def raw_body_bytes_max(self) -> int:
        """Most bytes of a body whose bytes are a value."""
        return self.max_request_bytes + ENVELOPE_BYTES

    @property
    def json_body_bytes_max(self) -> int:
        """Most bytes of a JSON body: base64 makes four of three."""
        return self.raw_body_bytes_max * 4 // 3 + 64 * KIB

    @property
    def json_values_max(self) -> int:
        """Most JSON values of a body: a comparison has seven, an operation up to fifteen."""
        return 64 * self.max_txn_ops + 8192

    @property
    def fields_max(self) -> int:
        """Most fields of a message of gRPC: as many as JSON values, of which each is one."""
        return self.json_values_max


class Http2Counters:
    """Plain numbers about HTTP/2 and gRPC."""

    __slots__ = (
        "answers",
        "broken_connections",
        "client_resets",
        "connections_open",
        "floods",
        "refused_streams",
        "stream_faults",
        "untaken",
    )

    def __init__(self) -> None:
        self.answers = [0] * len(Code)
        """Unary answers by gRPC code."""
        self.broken_connections = 0
        """Connections that ended because the client broke a rule."""
        self.client_resets = 0
        """Calls that the client took back."""
        self.connections_open = 0
        self.floods = 0
        """Connections that ended because the client did too much of something useless."""
        self.refused_streams = 0
        """Calls refused because the client had too many at a time."""
        self.stream_faults = 0
        """Calls that ended because the client broke a rule."""
        self.untaken = 0
        """Answers that the client did not take, in time or before it asked for more."""


class Counters:
    """Plain numbers, for whoever exports them."""

    __slots__ = (
        "answers",
        "connections_accepted",
        "connections_open",
        "connections_refused",
        "handshakes_failed",
        "handshakes_open",
        "http2",
        "late_heads",
        "malformed",
        "requests",
        "streams_open",
        "surprises",
    )

    def __init__(self) -> None:
        self.answers: dict[int, int] = {}
        """Unary answers by HTTP status."""
        self.connections_accepted = 0
        self.connections_open = 0
        self.connections_refused = 0
        self.handshakes_failed = 0
        """TLS handshakes that came to nothing."""
        self.handshakes_open = 0
        """TLS handshakes under way; they are among the open connections."""
        self.http2 = Http2Counters()
        self.late_heads = 0
        self.malformed = 0
        """Requests that are not HTTP."""
        self.requests = 0
        self.streams_open = 0
        self.surprises = 0
        """Requests that failed by a mistake of ours."""

    def count_answer(self, status: int) -> None:
        """A call with one answer is answered."""
        self.answers[status] = self.answers.get(status, 0) + 1

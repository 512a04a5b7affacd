"""Is anybody there, and do they ask it too often? PINGs in both directions, as etcd has them.

Source: gRPC's keep-alive guide (client pings: proposal A8, server pings: A9).
"""

from typing import Final

STRIKES_MAX: Final = 2
WITHOUT_STREAMS_SECONDS: Final = 7200.0
"""How often a client may ping while it has no stream."""


class Keepalive:
    """The PINGs of one connection.

    Args:
        min_seconds: how often a client that has a stream may ping.
        interval_seconds: after how long a silence we ping.
        timeout_seconds: how long the client may be silent after that.
        now: seconds.
    """

    __slots__ = (
        "_asked_at",
        "_interval_seconds",
        "_min_seconds",
        "_pinged_at",
        "_strikes",
        "_timeout_seconds",
        "heard_at",
    )

    def __init__(
        self, min_seconds: float, interval_seconds: float, timeout_seconds: float, now: float
    ) -> None:
        self._min_seconds = min_seconds
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds
        self._pinged_at: float | None = None
        self._strikes = 0
        self._asked_at: float | None = None
        self.heard_at = now
        """When anything came in last."""

    def on_ping(self, now: float, *, has_streams: bool, was_served: bool) -> bool:
        """A client pings; False if it did so too often.

        Args:
            now: seconds.
            has_streams: whether it has a stream.
            was_served: whether we sent it a head or DATA since its last ping: then clients measure
                how wide the connection is, and may.
        """
        last, self._pinged_at = self._pinged_at, now
        if was_served:
            self._strikes = 0
            return True
        least = self._min_seconds if has_streams else WITHOUT_STREAMS_SECONDS
        if last is not None and now < last + least:
            self._strikes += 1
        return self._strikes <= STRIKES_MAX

    def wants_ping(self, now: float) -> bool:
        """Whether to ping the client now."""
        if self._asked_at is not None and self.heard_at >= self._asked_at:
            self._asked_at = None
        if self._asked_at is not None or now < self.heard_at + self._interval_seconds:
            return False
        self._asked_at = now
        return True

    def is_lost(self, now: float) -> bool:
        """Whether the client did not even answer a ping."""
        asked = self._asked_at
        return asked is not None and asked > self.heard_at and now >= asked + self._timeout_seconds

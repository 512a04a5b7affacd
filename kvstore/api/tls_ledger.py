"""TLS handshakes with clients are connections as well: they count from their first packet on."""

import logging

from kvstore.api.limits import ApiLimits, Counters

log = logging.getLogger("kvstore.api")


class TlsLedger:
    """Implements ``kvstore.tls.listener.Ledger`` on the front door's counters.

    Args:
        counters: What is counted.
        limits: Of connections.
    """

    __slots__ = ("_counters", "_limits")

    def __init__(self, counters: Counters, limits: ApiLimits) -> None:
        self._counters = counters
        self._limits = limits

    def enter_gate(self) -> bool:
        """Take one of the connections that there may be."""
        counters = self._counters
        if counters.connections_open >= self._limits.max_connections:
            counters.connections_refused += 1
            return False
        counters.connections_open += 1
        counters.handshakes_open += 1
        return True

    def leave_gate(self) -> None:
        """Give it back; the doorman takes it in the same turn if the handshake succeeded."""
        self._counters.connections_open -= 1
        self._counters.handshakes_open -= 1

    def count_failure(self, address: str, words: str, *, is_tls: bool) -> None:  # noqa: ARG002
        """Count: on a port for everybody, whatever is not TLS would fill the log."""
        self._counters.handshakes_failed += 1
        log.debug("no TLS with %s: %s", address, words)

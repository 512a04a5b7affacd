"""One method a call, typed by ``kvstore.types``; each service of the API is a module of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Self

from kvstore.client.auth import AuthCalls
from kvstore.client.cluster import ClusterCalls
from kvstore.client.concurrency import ConcurrencyCalls
from kvstore.client.kv import KvCalls
from kvstore.client.lease import LeaseCalls
from kvstore.client.maintenance import MaintenanceCalls
from kvstore.client.transport import Login, Transport

if TYPE_CHECKING:
    from types import TracebackType

TIMEOUT_SECONDS: Final = 10.0
"""Longer than a server takes to give up (5 s and two election timeouts), so that it can say why."""


class Client(KvCalls, LeaseCalls, ClusterCalls, MaintenanceCalls, AuthCalls, ConcurrencyCalls):
    """Calls the cluster over its endpoints; the first that works is kept. Not for several threads.

    Args:
        endpoints: URLs of members, ``http://host:port``.
        timeout: Seconds that one call may take in all, fail-over included.
        user: Who asks, where authentication is on. The client fetches a token by itself, and a new
            one when that is not good any more.
        password: Theirs.

    Every method raises ``KvError`` for an answer that is an error, ``UnreachableError`` if no
    endpoint took the call, and, if it writes, ``UnknownOutcomeError`` if nobody knows whether it
    happened. Reads are tried again on their own; writes only where nothing can have happened.
    """

    __slots__ = ()

    def __init__(
        self,
        endpoints: Sequence[str],
        timeout: float = TIMEOUT_SECONDS,
        *,
        user: str = "",
        password: str = "",
    ) -> None:
        login = Login(user, password) if user else None
        super().__init__(Transport(endpoints, timeout, login))

    def another(self, endpoints: Sequence[str] = ()) -> Client:
        """A client of the same user for another thread, or for other endpoints."""
        mine = self.transport
        urls = endpoints or [endpoint.url for endpoint in mine.endpoints]
        if mine.login is None:
            return Client(urls, mine.timeout_seconds)
        return Client(
            urls, mine.timeout_seconds, user=mine.login.name, password=mine.login.password
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()

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
from kvstore.client.tls import Tls
from kvstore.client.transport import Login, Transport

if TYPE_CHECKING:
    from types import TracebackType

TIMEOUT_SECONDS: Final = 10.0
"""Longer than a server takes to give up (5 s and two election timeouts), so that it can say why."""


class Client(KvCalls, LeaseCalls, ClusterCalls, MaintenanceCalls, AuthCalls, ConcurrencyCalls):
    """Calls the cluster over its endpoints; the first that works is kept. Not for several threads.

    Args:
        endpoints: URLs of members, ``http://host:port`` or ``https://host:port``.
        timeout: Seconds that one call may take in all, fail-over included.
        user: Who asks, where authentication is on. The client fetches a token by itself, and a new
            one when that is not good any more.
        password: Theirs.
        tls: Which CAs to trust, and what certificate to show, at https endpoints. Its files are
            read once.

    Raises:
        ValueError: An endpoint is no URL, or (``TlsError``) a file cannot be used.

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
        tls: Tls | None = None,
    ) -> None:
        login = Login(user, password) if user else None
        super().__init__(Transport(endpoints, timeout, login, tls))

    def another(self, endpoints: Sequence[str] = ()) -> Client:
        """A client of the same user for another thread, or for other endpoints."""
        mine = self.transport
        urls = endpoints or [endpoint.url for endpoint in mine.endpoints]
        login = mine.login or Login("", "")
        return Client(
            urls, mine.timeout_seconds, user=login.name, password=login.password, tls=mine.tls
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

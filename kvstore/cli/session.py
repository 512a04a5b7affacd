"""A lease that a thread keeps alive for as long as a command holds something by it."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType
from typing import Final, Self

from kvstore.client import Client
from kvstore.errors import ErrorKind, KvError

BEATS_PER_TTL: Final = 3
"""So that two beats may fail before the lease runs out."""


class Session:
    """Grants a lease at its begin, renews it meanwhile, revokes it at its end.

    Args:
        client: Used here for the grant and the end; the thread has one of its own.
        ttl_seconds: How soon others may have what was held, if this process dies.
    """

    def __init__(self, client: Client, ttl_seconds: int) -> None:
        self._client = client
        granted = client.lease_grant(ttl_seconds)
        self.lease = granted.ID
        self._ttl_seconds = max(granted.TTL, 1)
        self._ended = threading.Event()
        self.lost = threading.Event()
        """Set when the lease is, or may be, over."""
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        with contextlib.suppress(KvError):
            # If that fails the lease runs out by itself.
            self._client.lease_revoke(self.lease)
        # A beat that is under way takes no longer than a call may.
        self._thread.join(self._client.transport.timeout_seconds)

    def _beat(self) -> None:
        until = time.monotonic() + self._ttl_seconds
        with self._client.another() as client:
            while not self._ended.wait(self._ttl_seconds / BEATS_PER_TTL):
                sent = time.monotonic()
                try:
                    client.lease_keep_alive(self.lease)
                    until = sent + self._ttl_seconds
                except KvError as error:
                    if error == ErrorKind.LEASE_NOT_FOUND.error() or time.monotonic() >= until:
                        self.lost.set()
                        return

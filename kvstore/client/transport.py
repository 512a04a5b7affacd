"""Calls over HTTP/1.1 with fail-over: which failures may be tried again, and which leave a doubt.

What is known after a failure:

- No connection, or an error while the request was still being sent: the server has no whole
  request, so nothing happened. The next endpoint is tried.
- Nothing came back after all was sent, or an error that a server may give after it proposed the
  write: a read is tried again, **a write has an unknown outcome** and is never sent twice.
- "no leader" and "too many requests" refuse a call before it is proposed: tried again after a
  pause.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import select
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from kvstore.errors import RETRYABLE, Code, ErrorKind, KvError, UnknownOutcomeError

CONNECT_SECONDS: Final = 2.0
PAUSES_SECONDS: Final = (0.05, 0.1, 0.2, 0.4)
PAUSE_SECONDS_MAX: Final = 0.5

_REFUSED: Final = frozenset({ErrorKind.NO_LEADER, ErrorKind.TOO_MANY_REQUESTS})
"""Answers that a server gives only before it proposes."""

_IN_DOUBT: Final = frozenset(
    {Code.CANCELED, Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNAVAILABLE}
)
"""Codes that, after a write, do not say whether it happened."""

_KINDS: Final = {(kind.code, kind.message): kind for kind in ErrorKind}
_CODES_BY_STATUS: Final = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    405: Code.UNIMPLEMENTED,
    413: Code.INVALID_ARGUMENT,
    429: Code.RESOURCE_EXHAUSTED,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


class UnreachableError(KvError):
    """No endpoint took the call; nothing happened."""


class Endpoint:
    """One URL, and the connection to it that is kept open."""

    __slots__ = ("connection", "host", "port", "url")

    def __init__(self, url: str) -> None:
        self.url = url if "://" in url else f"http://{url}"
        parts = urlsplit(self.url)
        if parts.scheme != "http" or parts.hostname is None or parts.path.strip("/"):
            raise ValueError(f"an endpoint must be http://host:port, not {url!r}")
        self.host = parts.hostname
        self.port = parts.port or 2379
        self.connection: http.client.HTTPConnection | None = None

    def connect(self, seconds: float) -> http.client.HTTPConnection:
        """A connection that is fit to send on: the open one, or a new one.

        Raises:
            OSError: Nobody is there.
        """
        if self.connection is not None and _is_idle(self.connection):
            return self.connection
        self.close()
        self.connection = self.connect_anew(seconds)
        return self.connection

    def connect_anew(self, seconds: float) -> http.client.HTTPConnection:
        """A connection of one's own.

        Raises:
            OSError: Nobody is there.
        """
        connection = http.client.HTTPConnection(
            self.host, self.port, timeout=min(seconds, CONNECT_SECONDS)
        )
        connection.connect()
        return connection

    def close(self) -> None:
        """Close the connection that is kept."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def _is_idle(connection: http.client.HTTPConnection) -> bool:
    """Whether nothing waits on an idle connection: what could wait is only the server's goodbye.

    Without this look, a write on a connection that the server closed long ago would be in doubt.
    """
    if connection.sock is None:
        return False
    readable, _, _ = select.select([connection.sock], [], [], 0)
    return not readable


class Transport:
    """Sends calls to the first endpoint that works, and stays with it. Not for several threads."""

    __slots__ = ("_clock", "_first", "_pause", "endpoints", "timeout_seconds")

    def __init__(
        self,
        endpoints: Sequence[str],
        timeout_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if not endpoints:
            raise ValueError("a client needs at least one endpoint, http://host:port")
        self.endpoints = [Endpoint(url) for url in endpoints]
        self.timeout_seconds = timeout_seconds
        self._first = 0
        self._clock = clock
        self._pause = pause

    def close(self) -> None:
        """Close all connections."""
        for endpoint in self.endpoints:
            endpoint.close()

    def call(self, path: str, body: bytes, *, safe: bool, only: Endpoint | None = None) -> bytes:
        """POST ``body`` and return the answer's bytes.

        Args:
            path: Such as ``/v3/kv/put``.
            body: JSON.
            safe: Whether doing it twice is the same as once, so that it may be tried again.
            only: Ask this endpoint and no other.

        Raises:
            UnknownOutcomeError: The write may have happened.
            UnreachableError: No endpoint could be reached; nothing happened.
            KvError: The server's answer is an error.
        """
        deadline = self._clock() + self.timeout_seconds
        order = [only] if only else self.endpoints[self._first :] + self.endpoints[: self._first]
        pauses = itertools.chain(PAUSES_SECONDS, itertools.repeat(PAUSE_SECONDS_MAX))
        while True:
            last_refusal: KvError | None = None
            reasons = []
            for tried, endpoint in enumerate(order):
                left = deadline - self._clock()
                if left <= 0:
                    break
                try:
                    seconds = left / (len(order) - tried) if safe else left
                    answer = self._attempt(endpoint, path, body, seconds, safe=safe)
                    self._first = self.endpoints.index(endpoint)
                    return answer
                except UnreachableError as error:
                    reasons.append(error.message)
                except UnknownOutcomeError:
                    # A member that leaves calls unanswered may be paused: were it asked first
                    # again, each later write would wait its whole time for it.
                    position = self.endpoints.index(endpoint)
                    self._first = (position + 1) % len(self.endpoints)
                    raise
                except KvError as error:
                    if not error.retryable:
                        raise
                    last_refusal = error
            if last_refusal is None:
                raise _unreachable(reasons)
            pause = next(pauses)
            if self._clock() + pause >= deadline:
                raise last_refusal
            self._pause(pause)

    def _attempt(
        self, endpoint: Endpoint, path: str, body: bytes, seconds: float, *, safe: bool
    ) -> bytes:
        try:
            connection = endpoint.connect(seconds)
            assert connection.sock is not None, "a connection without a socket"
            connection.sock.settimeout(seconds)
            connection.request("POST", path, body, {"Content-Type": "application/json"})
        except OSError as error:
            endpoint.close()
            raise UnreachableError(Code.UNAVAILABLE, f"{endpoint.url}: {_words(error)}") from error
        try:
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            endpoint.close()
            words = f"no answer from {endpoint.url}: {_words(error)}"
            if safe:
                raise UnreachableError(Code.UNAVAILABLE, words) from error
            raise UnknownOutcomeError(
                Code.UNAVAILABLE, f"{words}; the write may or may not have happened: read it back"
            ) from error
        if response.status == http.client.OK:
            return answer
        raise refusal(response.status, answer, safe=safe)


def refusal(status: int, answer: bytes, *, safe: bool) -> KvError:
    """The error that an answer other than 200 stands for; ``retryable`` if it may be sent again."""
    code = _CODES_BY_STATUS.get(status, Code.UNKNOWN)
    message = answer[:200].decode(errors="replace").strip() or f"HTTP status {status}"
    with contextlib.suppress(msgspec.DecodeError, ValueError, TypeError, AttributeError):
        content = msgspec.json.decode(answer)
        message = str(content.get("message") or content.get("error") or message)
        code = Code(int(content.get("code", code)))
    return error_for(code, message, safe=safe)


def error_for(code: Code, message: str, *, safe: bool) -> KvError:
    """A typed error, in doubt where a write might have happened."""
    kind = _KINDS.get((code, message))
    if not safe and code in _IN_DOUBT and kind not in _REFUSED:
        return UnknownOutcomeError(code, message)
    return KvError(code, message, retryable=kind in RETRYABLE)


def _unreachable(reasons: list[str]) -> UnreachableError:
    return UnreachableError(
        Code.UNAVAILABLE,
        f"no endpoint could be reached ({'; '.join(reasons) or 'the time was up'}); "
        "is a node running there? 'kvstore cluster' starts three",
    )


def _words(error: Any) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

"""One request, many answers: a stream on a connection of its own, a line of JSON each."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Self

from kvstore.client.calls import stream_line
from kvstore.client.transport import (
    Endpoint,
    Transport,
    UnreachableError,
    is_stale_token,
    last_words,
    refusal,
    words_of,
)
from kvstore.errors import Code, KvError

if TYPE_CHECKING:
    from types import TracebackType

LINE_BYTES_MAX: Final = 16 * 1024 * 1024
KEEPALIVE_IDLE_SECONDS: Final = 20


class StreamLostError(KvError):
    """The stream broke, or fell silent for longer than was allowed."""


class Stream:
    """The lines of an answer that takes its time. Not for several threads, but for ``close``.

    Args:
        transport: Where to, and who asks.
        path: Such as ``/v3/maintenance/snapshot``.
        body: JSON.
        only: Ask this endpoint and no other.
        silence_seconds: How long the server may say nothing; None: for ever.
        headers: Beside those that every request has.

    Raises:
        UnreachableError: No endpoint took the request; nothing happened.
        StreamLostError: The server took it, and went away without a word.
        KvError: The server's answer is an error.
    """

    __slots__ = ("_connection", "_response", "_socket", "endpoint")

    def __init__(
        self,
        transport: Transport,
        path: str,
        body: bytes,
        *,
        only: Endpoint | None = None,
        silence_seconds: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        transport.log_in()
        try:
            self._open(transport, path, body, only, silence_seconds, headers or {})
        except KvError as error:
            if transport.login is None or not is_stale_token(error):
                raise
            transport.log_in(anew=True)
            self._open(transport, path, body, only, silence_seconds, headers or {})

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
        """Hang up; for the server that means that the caller has gone."""
        # Wakes the thread that waits for a line, if it is another one.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._response.close()
        self._connection.close()

    def lines(self) -> Iterator[bytes]:
        """Each line of the answer, without its end."""
        while True:
            try:
                line = self._response.readline(LINE_BYTES_MAX)
            except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
                # The last two are how http.client reports that another thread closed it.
                raise self._lost(error) from error
            if not line:
                return
            if not line.endswith(b"\n"):
                raise self._lost("it ends within a line")
            yield line[:-1]

    def results(self) -> Iterator[Any]:
        """What each line holds, as JSON objects.

        Raises:
            KvError: A line is an error, or nothing of ours.
        """
        for line in self.lines():
            yield stream_line(line)

    def read(self) -> bytes:
        """The whole answer, if it is a single one."""
        try:
            return self._response.read()
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            raise self._lost(error) from error

    def _open(
        self,
        transport: Transport,
        path: str,
        body: bytes,
        only: Endpoint | None,
        silence_seconds: float | None,
        headers: dict[str, str],
    ) -> None:
        reasons = []
        for endpoint in transport.in_order(only):
            connection = None
            try:
                connection = endpoint.connect_anew(transport.timeout_seconds)
                connection.request("POST", path, body, transport.headers() | headers)
            except OSError as error:
                reasons.append(f"{endpoint.url}: {words_of(last_words(connection) or error)}")
                continue
            assert connection.sock is not None, "a connection without a socket"
            self.endpoint = endpoint
            self._connection = connection
            self._socket = connection.sock
            self._socket.settimeout(silence_seconds)
            _watch_over(self._socket)
            self._begin()
            return
        raise UnreachableError(
            Code.UNAVAILABLE,
            f"no endpoint could be reached ({'; '.join(reasons)})",
            retryable=True,
        )

    def _begin(self) -> None:
        """Wait for the head of the answer, which comes with its first line."""
        try:
            self._response = self._connection.getresponse()
            status = self._response.status
            answer = b"" if status == http.client.OK else self._response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise self._lost(error) from error
        except BaseException:
            # Ctrl-C while waiting: the server shall hear at once that nobody waits any more.
            self._connection.close()
            raise
        if status != http.client.OK:
            self._connection.close()
            raise refusal(status, answer, safe=True)

    def _lost(self, error: object) -> StreamLostError:
        words = f"the stream from {self.endpoint.url} broke: {words_of(error)}"
        return StreamLostError(Code.UNAVAILABLE, words, retryable=True)


def _watch_over(connected: socket.socket) -> None:
    """Let the kernel notice a machine that is gone: a wait without end would wait for it."""
    if connected.family in (socket.AF_INET, socket.AF_INET6):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)

"""A watch that outlives connections and members: it goes on after the last revision it has seen."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from kvstore.client import json_codec
from kvstore.client.transport import (
    PAUSE_SECONDS_MAX,
    Endpoint,
    Transport,
    error_for,
    error_of_reason,
    is_stale_token,
    last_words,
    refusal,
    words_of,
)
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.types import WatchCreateRequest, WatchRequest, WatchResponse

if TYPE_CHECKING:
    from types import TracebackType

LINE_BYTES_MAX: Final = 256 * 1024 * 1024
IDLE_SECONDS: Final = 30.0


class WatchCanceledError(KvError):
    """The server ended the watch; ``compact_revision`` is set if what it owed was compacted."""

    def __init__(self, code: Code, message: str, compact_revision: int) -> None:
        super().__init__(code, message)
        self.compact_revision = compact_revision


class _StreamLostError(Exception):
    """The stream ended, fell silent or broke: open another."""


class Watch:
    """Responses of one watcher, as an iterator; events come in revision order, each once.

    A stream that is silent for ``idle_seconds`` is opened anew: over plain HTTP nothing else tells
    an idle member from one that is gone. Not for several threads, but for ``close``.
    """

    __slots__ = (
        "_clock",
        "_closing",
        "_connection",
        "_idle_seconds",
        "_pause",
        "_position",
        "_request",
        "_response",
        "_socket",
        "_transport",
        "next_revision",
    )

    def __init__(
        self,
        transport: Transport,
        request: WatchCreateRequest,
        *,
        idle_seconds: float = IDLE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = transport
        self._request = request
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._pause = pause
        self._position = 0
        self._connection: http.client.HTTPConnection | None = None
        self._response: http.client.HTTPResponse | None = None
        self._closing = threading.Event()
        self._socket: socket.socket | None = None
        self.next_revision = request.start_revision
        self._open()

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
        """End the watch; the iterator stops."""
        self._closing.set()
        if self._socket is not None:
            # Wakes the thread that waits for a line, if it is another one.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._drop()

    def __iter__(self) -> Iterator[WatchResponse]:
        while not self._closing.is_set():
            try:
                response = self._receive()
            except _StreamLostError:
                if self._closing.is_set():
                    return
                self._drop()
                self._position += 1
                self._open()
                continue
            if response.events:
                assert response.events[-1].kv is not None, "an event without a key"
                self.next_revision = response.events[-1].kv.mod_revision + 1
            elif response.header is not None and response.header.revision:
                # Word of progress: all events up to this revision have been delivered.
                self.next_revision = max(self.next_revision, response.header.revision + 1)
            yield response

    def _drop(self) -> None:
        if self._response is not None:
            self._response.close()
        if self._connection is not None:
            self._connection.close()
        self._response = self._connection = self._socket = None

    def _open(self) -> None:
        """Open a stream on the first endpoint that takes it, and wait until the watcher exists.

        Raises:
            KvError: None took it in the client's time; or the watch cannot be.
        """
        deadline = self._clock() + self._transport.timeout_seconds
        endpoints = self._transport.endpoints
        last = "the time was up"
        renewed = False
        self._transport.log_in()
        while self._clock() < deadline and not self._closing.is_set():
            for turn in range(len(endpoints)):
                endpoint = endpoints[(self._position + turn) % len(endpoints)]
                # Each gets its share of what is left: a member that is paused takes calls and says
                # nothing.
                seconds = (deadline - self._clock()) / (len(endpoints) - turn)
                if seconds <= 0:
                    break
                try:
                    self._open_on(endpoint, seconds)
                except KvError as error:
                    self._drop()
                    if renewed or self._transport.login is None or not is_stale_token(error):
                        raise
                    renewed = True
                    last = error.message
                    self._transport.log_in(anew=True)
                    continue
                except (OSError, http.client.HTTPException, _StreamLostError) as error:
                    last = f"{endpoint.url}: {words_of(last_words(self._connection) or error)}"
                    self._drop()
                    continue
                self._position += turn
                return
            self._pause(PAUSE_SECONDS_MAX)
        if not self._closing.is_set():
            raise KvError(
                Code.UNAVAILABLE,
                f"no endpoint takes the watch ({last}); go on from revision {self.next_revision}",
                retryable=True,
            )

    def _open_on(self, endpoint: Endpoint, seconds: float) -> None:
        connection = endpoint.connect_anew(seconds)
        self._connection = connection
        assert connection.sock is not None, "a connection without a socket"
        self._socket = connection.sock
        self._socket.settimeout(min(seconds, self._idle_seconds))
        wanted = msgspec.structs.replace(self._request, start_revision=self.next_revision)
        body = json_codec.encode(WatchRequest(create_request=wanted))
        connection.request("POST", "/v3/watch", body, self._transport.headers())
        # The answer's head comes with the first response, not before.
        self._response = connection.getresponse()
        if self._response.status != http.client.OK:
            error = refusal(self._response.status, self._response.read(), safe=True)
            if error.retryable:
                raise _StreamLostError(error.message)
            raise error
        created = self._receive()
        if not created.created:
            raise _StreamLostError("the stream did not begin with the watcher's creation")
        if created.header is not None and not self.next_revision:
            self.next_revision = created.header.revision + 1
        self._socket.settimeout(self._idle_seconds)

    def _receive(self) -> WatchResponse:
        """The next line of the stream.

        Raises:
            _StreamLostError: There is none.
            KvError: The server ended the watch.
        """
        if self._response is None:
            raise _StreamLostError("closed")
        try:
            line = self._response.readline(LINE_BYTES_MAX)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # The last two are how http.client reports that another thread closed it.
            raise _StreamLostError(str(error)) from error
        if not line.endswith(b"\n"):
            raise _StreamLostError("the stream ended")
        return self._interpret(line)

    def _interpret(self, line: bytes) -> WatchResponse:
        try:
            content: Any = msgspec.json.decode(line)
            if "error" in content:
                raise _stream_error(content["error"])
            response = json_codec.from_object(WatchResponse, content["result"])
        except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise KvError(Code.INTERNAL, f"the stream is no watch: {error}") from error
        if response.canceled:
            if response.compact_revision:
                kind = ErrorKind.COMPACTED
                raise WatchCanceledError(
                    kind.code,
                    f"{kind.message}; the oldest that is left is {response.compact_revision}",
                    response.compact_revision,
                )
            reason = error_of_reason(response.cancel_reason or "canceled")
            raise WatchCanceledError(reason.code, reason.message, 0)
        return response


def _stream_error(content: Any) -> Exception:
    code = Code(int(content.get("code", content.get("grpc_code", Code.UNKNOWN))))
    error = error_for(code, str(content.get("message", "")), safe=True)
    # A member that stops or has no leader ends its streams; another can go on.
    return _StreamLostError(error.message) if error.retryable else error

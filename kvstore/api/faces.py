"""Which face is asked? A request finds its face by its path, and its answer is written."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from kvstore.api.answer import CORS, V3_HEAD, Answer, Pending, error_answer
from kvstore.api.backend import Service
from kvstore.api.caller_headers import caller_of
from kvstore.api.exchange import Exchange
from kvstore.api.health import health, unknown_path, version, wrong_method
from kvstore.api.http1 import Closing, Lane, Written, read_body, send_continue, wants_continue
from kvstore.api.limits import ApiLimits, Counters
from kvstore.api.rest.calls import CORS as REST_CORS
from kvstore.api.rest.calls import ERROR_HEAD as REST_ERROR_HEAD
from kvstore.api.rest.calls import METHODS as REST_METHODS
from kvstore.api.rest.calls import Rest, method_not_allowed
from kvstore.api.rest.request import PATH as REST_PATH
from kvstore.api.rest.request import RestRequest
from kvstore.api.v3_json.streams import StreamLimits, Streams
from kvstore.api.v3_json.unary import PREFIXES, UnaryCall, unary_calls
from kvstore.api.wait import Waiter
from kvstore.budget import Budget
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.service.caller import Caller

log = logging.getLogger("kvstore.api")

_V3_PATHS: Final = tuple(prefix + "/" for prefix in PREFIXES)
_METRICS_HEAD: Final = b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n" + CORS

_Stream = Callable[[Exchange, Caller], Awaitable[None]]


class Faces:
    """All faces of one service, behind aiohttp's parser.

    Args:
        service: what they ask.
        limits: of requests.
        lane: writes the answers.
        counters: what is counted.
        metrics: the text of ``/metrics``.
        new_budget: makes the budget of a slice of work on the loop.
    """

    def __init__(
        self,
        service: Service,
        limits: ApiLimits,
        lane: Lane,
        counters: Counters,
        metrics: Callable[[], bytes],
        new_budget: Callable[[], Budget],
    ) -> None:
        self._service = service
        self._limits = limits
        self._lane = lane
        self._counters = counters
        self._metrics = metrics
        self._json_bytes_max = limits.json_body_bytes_max
        self._unary = unary_calls(service, limits.json_values_max)
        stream_limits = StreamLimits(
            request_bytes_max=limits.json_body_bytes_max, watch_bytes_max=limits.watch_bytes_max
        )
        streams = Streams(service, stream_limits, new_budget)
        self._streams: dict[str, _Stream] = {}
        for prefix in PREFIXES:
            self._streams[prefix + "/watch"] = streams.watch
            self._streams[prefix + "/lease/keepalive"] = streams.keep_alive
        self._rest = Rest(service)
        self._open_streams: set[asyncio.Task[None]] = set()

    def end_streams(self) -> None:
        """Tell every open stream that the server stops."""
        for task in self._open_streams:
            task.cancel()

    async def handle(self, request: web.BaseRequest) -> Written:
        """Answer a request, whatever it is.

        Raises:
            ConnectionError: the client is gone.
        """
        self._counters.requests += 1
        path, _, query = request.raw_path.partition("?")
        head = V3_HEAD
        try:
            call = self._unary.get(path)
            if call is not None and request.method == "POST":
                answer = await self._call(request, call)
            else:
                if not path.startswith("/"):
                    # A proxy's client sends the whole URL (RFC 9112 §3.2.2).
                    path = urlsplit(path).path
                if path.startswith(REST_PATH):
                    head = REST_ERROR_HEAD
                if path in self._streams and request.method == "POST":
                    return await self._stream(request, self._streams[path])
                answer = await self._other(request, path, query)
        except KvError as error:
            answer = error_answer(error, head)
            return await self._answer(request, answer, closes=isinstance(error, Closing))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("a request to %s failed by a mistake of the server's own", path)
            self._counters.surprises += 1
            answer = error_answer(_internal(), head)
        return await self._answer(request, answer)

    async def _answer(
        self, request: web.BaseRequest, answer: Answer, *, closes: bool = False
    ) -> Written:
        answers = self._counters.answers
        answers[answer.status] = answers.get(answer.status, 0) + 1
        return await self._lane.answer(request, answer, closes=closes)

    async def _call(self, request: web.BaseRequest, call: UnaryCall) -> Answer:
        body = await read_body(request, self._json_bytes_max, self._limits.body_seconds)
        return await _outcome(call.pending(body, caller_of(request.headers)))

    async def _other(self, request: web.BaseRequest, path: str, query: str) -> Answer:
        method = request.method
        if path.startswith(REST_PATH):
            return await self._rest_call(request, path, query)
        if method == "OPTIONS":
            return Answer(b"", None, 200, CORS)
        if path.startswith(_V3_PATHS):
            return _no_such_call(path in self._unary or path in self._streams)
        if path.startswith("/v1/"):
            message = f"Not Found: keys are at {REST_PATH}, all at {REST_PATH}?prefix"
            return error_answer(KvError(Code.NOT_FOUND, message), REST_ERROR_HEAD)
        if path not in ("/health", "/version", "/metrics"):
            return unknown_path()
        if method != "GET":
            return wrong_method()
        if path == "/health":
            return await _outcome(health(self._service, query))
        if path == "/version":
            return version(self._service)
        return Answer(self._metrics(), None, 200, _METRICS_HEAD)

    async def _rest_call(self, request: web.BaseRequest, path: str, query: str) -> Answer:
        method = request.method
        if method == "OPTIONS":
            return Answer(b"", None, 200, REST_CORS)
        if method not in REST_METHODS:
            raise method_not_allowed()
        body = b""
        if method == "PUT":
            limits = self._limits
            body = await read_body(request, limits.raw_body_bytes_max, limits.body_seconds)
        asked = RestRequest(method, path[len(REST_PATH) :], query, request.headers, body)
        return await _outcome(self._rest.pending(asked, caller_of(request.headers)))

    def _failure(self, task: "asyncio.Task[None]") -> KvError | None:
        """How a stream ended by itself: well, or with an error to tell its client."""
        failure = task.exception()
        if failure is None or isinstance(failure, KvError):
            return failure
        if isinstance(failure, ConnectionError):
            raise failure
        log.error("a stream failed by a mistake of the server's own", exc_info=failure)
        self._counters.surprises += 1
        return _internal()

    async def _stream(self, request: web.BaseRequest, stream: _Stream) -> Written:
        """Run a stream until it ends, its time is over, or the server stops."""
        lane = self._lane
        if lane.is_draining:
            raise ErrorKind.STOPPED.error()
        caller = caller_of(request.headers)
        if wants_continue(request):
            send_continue(request)
        exchange = lane.exchange(request, V3_HEAD)
        task = asyncio.ensure_future(stream(exchange, caller))
        self._open_streams.add(task)
        self._counters.streams_open += 1
        error: KvError | None = None
        try:
            done, _ = await asyncio.wait([task], timeout=caller.timeout_seconds)
            if not done:
                error = ErrorKind.DEADLINE_EXCEEDED.error()
            elif task.cancelled():
                error = ErrorKind.STOPPED.error()
            else:
                error = self._failure(task)
        finally:
            self._counters.streams_open -= 1
            self._open_streams.discard(task)
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        return await lane.end_exchange(request, exchange, error, V3_HEAD)


async def _outcome(pending: Pending) -> Answer:
    waiter = Waiter()
    pending.begin(waiter)
    return pending.finish(await waiter.wait())


def _internal() -> KvError:
    return KvError(Code.INTERNAL, "kvstore: internal error")


def _no_such_call(exists: bool) -> Answer:
    """Below ``/v3/``: another method than POST, or a path that is none."""
    if exists:
        return error_answer(KvError(Code.UNIMPLEMENTED, "Method Not Allowed"))
    return error_answer(KvError(Code.NOT_FOUND, "Not Found"))

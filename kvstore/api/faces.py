"""Which face is asked? A request finds its face by its path, and its answer is written."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from kvstore.api.access import Access
from kvstore.api.answer import CORS, V3_HEAD, Answer, error_answer
from kvstore.api.backend import Service
from kvstore.api.caller_headers import caller_of, in_time
from kvstore.api.http1 import (
    Closing,
    Lane,
    Written,
    message_too_large,
    read_body,
    send_continue,
    wants_continue,
)
from kvstore.api.lean.heads import LeanCall
from kvstore.api.limits import ApiLimits, Counters
from kvstore.api.plain import PlainPaths
from kvstore.api.rest.calls import CORS as REST_CORS
from kvstore.api.rest.calls import ERROR_HEAD as REST_ERROR_HEAD
from kvstore.api.rest.calls import METHODS as REST_METHODS
from kvstore.api.rest.calls import Rest, method_not_allowed
from kvstore.api.rest.request import PATH as REST_PATH
from kvstore.api.rest.request import RestRequest
from kvstore.api.running import Running, internal_error
from kvstore.api.v3_json.decode import Malformed
from kvstore.api.v3_json.keep_alive import single_calls
from kvstore.api.v3_json.streams import Stream, StreamLimits, Streams
from kvstore.api.v3_json.table import PREFIXES
from kvstore.api.v3_json.unary import UnaryCall, unary_calls
from kvstore.api.wait import finished
from kvstore.api.websocket import Sockets, wants_websocket
from kvstore.budget import Budget
from kvstore.errors import Code, ErrorKind, KvError

log = logging.getLogger("kvstore.api")

_V3_PATHS: Final = tuple(prefix + "/" for prefix in PREFIXES)

_SURPRISE: Final = "a request to %s failed by a mistake of the server's own"


class Faces:
    """All faces of one service, behind aiohttp's parser.

    Args:
        service: what they ask.
        limits: of requests.
        lane: writes the answers.
        counters: what is counted.
        metrics: the text of ``/metrics``.
        new_budget: makes the budget of a slice of work on the loop.
        access: who may ask.

    Attributes:
        lean: the v3 calls with one answer that is not long in coming, by path.
    """

    def __init__(
        self,
        service: Service,
        limits: ApiLimits,
        lane: Lane,
        counters: Counters,
        metrics: Callable[[], bytes],
        new_budget: Callable[[], Budget],
        access: Access,
    ) -> None:
        self._limits = limits
        self._lane = lane
        self._counters = counters
        self._access = access
        self._is_open = access.is_open
        self._now = asyncio.get_running_loop().time
        self._json_bytes_max = limits.json_body_bytes_max
        self._plain = PlainPaths(service, metrics)
        self._rest = Rest(service)
        self._running = Running(counters)
        self._unary = unary_calls(service, limits.json_values_max)
        self.lean: dict[str, LeanCall] = {
            **{path: call for path, call in self._unary.items() if not call.is_patient},
            **single_calls(service),
        }
        stream_limits = StreamLimits(
            request_bytes_max=limits.json_body_bytes_max, watch_bytes_max=limits.watch_bytes_max
        )
        self._streams = Streams(service, stream_limits, new_budget).by_path()
        self._sockets = Sockets(self._unary, self._streams, limits, self._running)

    def end_streams(self) -> None:
        """Tell everything that would go on for long that the server stops."""
        self._running.end_all()

    async def handle(self, request: web.BaseRequest) -> Written:
        """Answer a request of a client, whatever it is.

        Raises:
            ConnectionError: the client is gone.
        """
        self._counters.requests += 1
        path, _, query = request.raw_path.partition("?")
        head = V3_HEAD
        try:
            if not self._is_open and (refusal := self._access.refusal(request.headers)):
                return await self._answer(request, refusal)
            call = self._unary.get(path)
            if call is not None and request.method == "POST":
                answer = await self._call(request, call)
            else:
                if not path.startswith("/"):
                    # A proxy's client sends the whole URL (RFC 9112 §3.2.2).
                    path = urlsplit(path).path
                if path.startswith(REST_PATH):
                    head = REST_ERROR_HEAD
                elif path.startswith(_V3_PATHS):
                    if request.method == "POST" and path in self._streams:
                        return await self._stream(request, self._streams[path])
                    if request.method == "GET" and wants_websocket(request):
                        return await self._socket(request, path)
                answer = await self._other(request, path, query)
        except KvError as error:
            answer = error_answer(error, head)
            return await self._answer(request, answer, closes=isinstance(error, Closing))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception(_SURPRISE, path)
            answer = self._surprise(head)
        return await self._answer(request, answer)

    async def handle_metrics(self, request: web.BaseRequest) -> Written:
        """Answer a request at ``--listen-metrics-urls``, where only the plain paths are.

        Raises:
            ConnectionError: the client is gone.
        """
        self._counters.requests += 1
        path, _, query = request.raw_path.partition("?")
        try:
            answer = await self._plain.answer(request.method, path, query, metrics_only=True)
        except Exception:
            log.exception(_SURPRISE, path)
            answer = self._surprise(V3_HEAD)
        return await self._answer(request, answer)

    def _surprise(self, head: bytes) -> Answer:
        """Count an exception that nobody foresaw, and answer for it."""
        self._counters.surprises += 1
        return error_answer(internal_error(), head)

    async def _answer(
        self, request: web.BaseRequest, answer: Answer, *, closes: bool = False
    ) -> Written:
        self._counters.count_answer(answer.status)
        return await self._lane.answer(request, answer, closes=closes)

    async def _call(self, request: web.BaseRequest, call: UnaryCall) -> Answer:
        began = self._now()
        seconds = self._limits.body_seconds
        body = await read_body(request, self._json_bytes_max, seconds, message_too_large)
        caller = caller_of(request.headers, self._now() - began)
        pending = call.pending(body, caller)
        if not call.is_patient:
            return await finished(pending)
        if self._lane.is_draining:
            raise ErrorKind.STOPPED.error()
        return await self._running.patiently(pending, caller.timeout_seconds)

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
        return await self._plain.answer(method, path, query)

    async def _rest_call(self, request: web.BaseRequest, path: str, query: str) -> Answer:
        method = request.method
        if method == "OPTIONS":
            return Answer(b"", None, 200, REST_CORS)
        if method not in REST_METHODS:
            raise method_not_allowed()
        body = b""
        began = self._now()
        if method == "PUT":
            limits = self._limits
            body = await read_body(request, limits.raw_body_bytes_max, limits.body_seconds)
        asked = RestRequest(method, path[len(REST_PATH) :], query, request.headers, body)
        caller = caller_of(request.headers, self._now() - began)
        return await finished(self._rest.pending(asked, caller))

    async def _stream(self, request: web.BaseRequest, stream: Stream) -> Written:
        """Run a stream over a request and its response."""
        lane = self._lane
        if lane.is_draining:
            raise ErrorKind.STOPPED.error()
        caller = in_time(caller_of(request.headers))
        if wants_continue(request):
            send_continue(request)
        exchange = lane.exchange(request, V3_HEAD)
        error = await self._running.stream(stream(exchange, caller), caller.timeout_seconds)
        if isinstance(error, Malformed) and not exchange.is_open:
            return await self._answer(request, error_answer(error), closes=True)
        return await lane.end_exchange(request, exchange, error, V3_HEAD)

    async def _socket(self, request: web.BaseRequest, path: str) -> Written:
        """Run any call over a websocket, which takes the connection with it when it ends."""
        if self._lane.is_draining:
            raise ErrorKind.STOPPED.error()
        refusal = await self._sockets.serve(request, path)
        if refusal is not None:
            return await self._answer(request, refusal, closes=True)
        return self._lane.closing


def _no_such_call(exists: bool) -> Answer:
    """Below ``/v3/``: another method than POST, or a path that is none."""
    if exists:
        return error_answer(KvError(Code.UNIMPLEMENTED, "Method Not Allowed"))
    return error_answer(KvError(Code.NOT_FOUND, "Not Found"))

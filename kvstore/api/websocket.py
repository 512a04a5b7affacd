"""Websockets (RFC 6455): any path of the v3 API, a message a request, a message a line of answer.

As in etcd, whose gateway turns the messages of a client into the body of a POST, and each line of
its response into a message. So streams work where a client cannot write a request's body and read
the response at the same time, and in browsers, which cannot set headers: the token comes in
``Sec-WebSocket-Protocol: Bearer, <token>`` or in the cookie ``token``. When the call ends the
connection is closed, without a close frame.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import WSMsgType, web

from kvstore.api.answer import TEXT_HEAD, Answer, error_answer
from kvstore.api.caller_headers import caller_of
from kvstore.api.error_map import error_body, stream_error_line
from kvstore.api.limits import ApiLimits
from kvstore.api.running import Running
from kvstore.api.v3_json.decode import Malformed
from kvstore.api.v3_json.streams import Stream
from kvstore.api.v3_json.unary import UnaryCall
from kvstore.api.wait import finished
from kvstore.errors import Code, KvError
from kvstore.service.caller import Caller

_BEARER: Final = "Bearer"
_WAITING_MAX: Final = 16
"""Messages that wait for a stream to take them; then the client's sending stalls."""

_DATA: Final = (WSMsgType.TEXT, WSMsgType.BINARY)


def wants_websocket(request: web.BaseRequest) -> bool:
    """Whether a request asks for the connection to become a websocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def websocket_caller(request: web.BaseRequest) -> Caller:
    """The caller behind a websocket: its own ways to bring a token come before the ordinary one.

    Raises:
        KvError: a header cannot be read.
    """
    caller = caller_of(request.headers)
    token = request.cookies.get("token")
    if token is None:
        _, found, text = request.headers.get("Sec-WebSocket-Protocol", "").partition("Bearer,")
        token = text.strip(" ") if found else None
    return caller if token is None else msgspec.structs.replace(caller, token=token)


class Sockets:
    """All calls, over websockets.

    Args:
        unary: the unary calls by path.
        streams: the streams by path.
        limits: of messages and of patience.
        running: knows what is under way.
    """

    def __init__(
        self,
        unary: Mapping[str, UnaryCall],
        streams: Mapping[str, Stream],
        limits: ApiLimits,
        running: Running,
    ) -> None:
        self._unary = unary
        self._streams = streams
        self._limits = limits
        self._running = running

    async def serve(self, request: web.BaseRequest, path: str) -> Answer | None:
        """Open a websocket and carry the call of a path over it.

        Returns:
            The answer if it cannot be opened; None once it is over.

        Raises:
            KvError: a header cannot be read.
            ConnectionError: the client went away.
        """
        caller = websocket_caller(request)
        asked = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
        socket = web.WebSocketResponse(
            # One that is not ours is not agreed to, in silence as in etcd.
            protocols=(_BEARER,) if asked[0].strip() == _BEARER else (),
            compress=False,
            max_msg_size=self._limits.json_body_bytes_max,
            timeout=self._limits.linger_seconds,
            decode_text=False,
        )
        try:
            await socket.prepare(request)
        except web.HTTPException as refusal:
            return Answer((refusal.text or "").encode(), None, refusal.status, TEXT_HEAD)
        exchange = SocketExchange(socket, is_stream=path in self._streams)
        conversation = asyncio.ensure_future(self._converse(exchange, path, caller))
        pump = asyncio.ensure_future(exchange.pump())
        try:
            await asyncio.wait([conversation, pump], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (conversation, pump):
                task.cancel()
            await asyncio.wait([conversation, pump])
        for task in (conversation, pump):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        return None

    async def _converse(self, exchange: "SocketExchange", path: str, caller: Caller) -> None:
        stream = self._streams.get(path)
        call = self._unary.get(path)
        if stream is not None:
            error = await self._running.stream(stream(exchange, caller), caller.timeout_seconds)
            if isinstance(error, Malformed) and not exchange.is_open:
                await exchange.send([error_body(error.code, error.message)])
            elif error is not None and not exchange.is_within_message:
                await exchange.send([stream_error_line(error)])
        elif call is not None:
            await exchange.send([await self._ask(exchange, call, caller)])
        else:
            await exchange.send([error_body(Code.NOT_FOUND, "Not Found")])

    async def _ask(self, exchange: "SocketExchange", call: UnaryCall, caller: Caller) -> bytes:
        body = await exchange.receive()
        try:
            pending = call.pending(body, caller)
        except KvError as error:
            return error_answer(error).body
        if call.is_patient:
            # Whoever hangs up cancels this, and the call hears of it.
            answer = await self._running.patiently(pending, caller.timeout_seconds)
        else:
            answer = await finished(pending)
        if answer.slices is None:
            return answer.body
        parts: list[bytes] = []
        for part in answer.slices:
            parts.append(part)
            await asyncio.sleep(0)
        return b"".join(parts)


class SocketExchange:
    """An ``Exchange`` on a websocket.

    Args:
        socket: an open one.
        is_stream: whether more than one request may come; else what follows it is dropped.
    """

    def __init__(self, socket: "web.WebSocketResponse[bool]", *, is_stream: bool) -> None:
        self._socket = socket
        self._is_stream = is_stream
        self._requests: asyncio.Queue[bytes] = asyncio.Queue(_WAITING_MAX)
        self._parts: list[bytes] = []
        self.is_open = False
        """Whether anything was said."""

    @property
    def is_within_message(self) -> bool:
        """Whether a message was begun and not sent."""
        return bool(self._parts)

    async def pump(self) -> None:
        """Read the client's messages, and answer its pings, until it hangs up.

        It runs beside the call even where that wants no second message: only so it shows that
        nobody waits for the answer any more.
        """
        got_one = False
        while (message := await self._socket.receive()).type in _DATA:
            if self._is_stream or not got_one:
                got_one = True
                data: bytes = message.data
                await self._requests.put(data + b"\n")

    async def receive(self) -> bytes:
        """The next message."""
        return await self._requests.get()

    async def send(self, messages: list[bytes]) -> None:
        """Send each line as a message."""
        self.is_open = True
        for message in messages:
            await self._socket.send_frame(message.removesuffix(b"\n"), WSMsgType.TEXT)

    async def send_part(self, part: bytes, *, last: bool) -> None:
        """Collect a message and send it: a frame says first how long it is."""
        self._parts.append(part)
        if last:
            message = b"".join(self._parts)
            self._parts.clear()
            await self.send([message])

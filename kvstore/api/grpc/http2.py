"""The server's end of an HTTP/2 connection (RFC 9113), without sockets and without a clock.

Bytes go in at ``receive`` and come out of ``take``; streams hear of what concerns them at once. A
client that breaks a rule is told so by the code that the RFC names for it: the stream alone where
that is enough, else the connection. Everything that a client can make us hold or do has a limit
(``flow.py``); ``docs/operations.md`` lists them.
"""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from kvstore.api.grpc.flow import WINDOW_IN_BYTES
from kvstore.api.grpc.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    GOAWAY,
    HAS_PRIORITY,
    HEADER,
    HEADER_BYTES,
    HEADERS,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_ID_MAX,
    WINDOW_BYTES_DEFAULT,
    WINDOW_UPDATE,
    ConnectionFault,
    ErrorCode,
    settings,
    window_update,
)
from kvstore.api.grpc.header_blocks import HEADER_LIST_BYTES_MAX, Field, HeaderBlocks, Odd
from kvstore.api.grpc.lifecycle import Connection
from kvstore.api.grpc.stream import Stream
from kvstore.api.grpc.turns import LOOK_BYTES
from kvstore.api.limits import ApiLimits, Http2Counters

BLOCK_BYTES_MAX: Final = HEADER_LIST_BYTES_MAX
CONTINUATIONS_MAX: Final = 16
"""Most frames of one header block (CVE-2024-27316)."""


H = TypeVar("H")


class Http2Connection(Connection, Generic[H]):
    """One connection.

    Args:
        digest: makes what ``open_stream`` is given of the headers of a well-formed request.
        open_stream: makes the stream for a request: the connection, its number, and its head.
        limits: of streams and of time.
        counters: what is counted.
        is_spent: whether to stop, and to handle the rest when ``go_on`` is called; asked every
            ``LOOK_BYTES``.
        now: seconds.
    """

    __slots__ = (
        "_block",
        "_block_flags",
        "_block_frames",
        "_block_stream",
        "_blocks",
        "_held",
        "_is_greeted",
        "_is_spent",
        "_kept",
        "_memo",
        "_need",
        "_open_stream",
    )

    def __init__(
        self,
        digest: Callable[[list[Field]], H],
        open_stream: "Callable[[Http2Connection[H], int, H], Stream]",
        limits: ApiLimits,
        counters: Http2Counters,
        is_spent: Callable[[], bool],
        now: float,
    ) -> None:
        super().__init__(limits, counters, now)
        self._blocks = HeaderBlocks(digest)
        self._memo = self._blocks.memo
        self._open_stream = open_stream
        self._is_spent = is_spent
        self._held = bytearray()
        """The beginning of a frame whose rest did not come in yet."""
        self._kept = b""
        """What is left to handle, if the connection is behind."""
        self._need = len(PREFACE)
        self._is_greeted = False
        self._block = b""
        self._block_flags = self._block_frames = self._block_stream = 0
        own_settings = {
            MAX_CONCURRENT_STREAMS: min(limits.max_streams, STREAM_ID_MAX),
            MAX_HEADER_LIST_SIZE: HEADER_LIST_BYTES_MAX,
        }
        self.outbox.frames += (
            settings(own_settings),
            window_update(0, WINDOW_IN_BYTES - WINDOW_BYTES_DEFAULT),
        )

    def receive(self, data: bytes, now: float) -> None:
        """Take in bytes; streams hear of what they say. Never raises for what a client sent.

        Args:
            data: what came in, cut anywhere.
            now: seconds.
        """
        if self.is_over:
            return
        self._keepalive.heard_at = now
        if self.is_behind:
            self._kept += data
            return
        self.now = now
        held = self._held
        if held or self._need > HEADER_BYTES:
            held += data
            if len(held) < self._need:
                return
            data = bytes(held)
            held.clear()
        self._handle(data, now)

    def go_on(self, now: float) -> None:
        """Handle more of what is kept; some of it in any case.

        Args:
            now: seconds.
        """
        data, self._kept = self._kept, b""
        stream, self._put_off = self._put_off, None
        self.is_behind = False
        if self.is_over:
            return
        self.now = now
        if stream is not None and not stream.is_over:
            stream.on_turn()
            if data and self._is_spent():
                self._kept = data
                self.is_behind = True
                return
        self._handle(data, now, is_first=stream is None)

    def _handle(self, data: bytes, now: float, *, is_first: bool = False) -> None:
        if self.is_over:
            return
        try:
            rest = self._read_frames(data, is_first=is_first)
        except ConnectionFault as fault:
            self._break(fault)
            return
        if self.is_behind:
            self._kept = rest
            # Whether the client is late with a frame is seen when there is no other.
            self._incomplete_since = None if self._only is None else now
            return
        if rest:
            self._held += rest
            if self._incomplete_since is None or len(rest) < len(data):
                self._incomplete_since = now
        elif self._only is None:
            self._incomplete_since = None

    # --- Frames -----------------------------------------------------------------------------------

    def _read_frames(self, data: bytes, *, is_first: bool) -> bytes:
        """Handle all whole frames, unless the budget is spent before: then we are behind.

        What is left over is the beginning of the next frame, or much more if we are behind. The
        first one is handled in any case if it ``is_first``.
        """
        position = 0
        size = len(data)
        look_at = LOOK_BYTES
        if not self._is_greeted:
            if not data.startswith(PREFACE):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "not HTTP/2")
            self._is_greeted = True
            position = len(PREFACE)
        unpack = HEADER.unpack_from
        self._need = HEADER_BYTES
        while size - position >= HEADER_BYTES:
            word, flags, stream_id = unpack(data, position)
            length = word >> 8
            kind = word & 255
            if length > FRAME_BYTES_MAX:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "frame too long")
            start = position + HEADER_BYTES
            end = start + length
            if end > size:
                self._need = HEADER_BYTES + length
                break
            if end > look_at:
                if self._is_spent() and not is_first:
                    self.is_behind = True
                    break
                is_first = False
                look_at = end + LOOK_BYTES
            position = end
            stream_id &= STREAM_ID_MAX
            if self._only is not None and kind != self._only:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "another frame was due")
            if kind == DATA:
                self._on_data(data, start, end, flags, stream_id)
            elif kind == HEADERS:
                if flags & (PADDED | HAS_PRIORITY | END_HEADERS) == END_HEADERS and stream_id & 1:
                    # As nearly all are: a block, and nothing else.
                    self._on_block(data[start:end], flags, stream_id)
                else:
                    self._on_headers(data, start, end, flags, stream_id)
            elif kind == WINDOW_UPDATE:
                self._on_window_update(data[start:end], stream_id)
            else:
                self._on_other(kind, flags, stream_id, data[start:end])
            if self.is_over:
                return b""
            if self.is_behind:
                break
        return data[position:] if position < size else b""

    def _on_other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == CONTINUATION:
            self._on_continuation(payload, flags, stream_id)
        elif kind == RST_STREAM:
            self._on_rst_stream(payload, stream_id)
        elif kind == PUSH_PROMISE:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client cannot push")
        elif kind == PRIORITY:
            self._on_priority(payload, stream_id)
        elif kind not in (SETTINGS, PING, GOAWAY):
            # RFC 9113 §5.5: unknown frames mean nothing to us.
            self._count_idle()
        elif stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "frame of the connection on a stream")
        elif kind == SETTINGS:
            self._on_settings(payload, flags)
        elif kind == PING:
            self._on_ping(payload, flags)
        else:
            self._on_goaway(payload)

    # --- Requests ---------------------------------------------------------------------------------

    def _on_data(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:
        length = end - start
        self._window_in -= length
        if self._window_in < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window allows")
        if self._window_in < WINDOW_IN_BYTES // 2:
            self._refill_all()
        stream = self.streams.get(stream_id)
        if stream is None:
            self._on_late(stream_id, flags)
            return
        if stream.is_client_done:
            self._stream_fault(stream_id, ErrorCode.STREAM_CLOSED)
            return
        stream.window_in -= length
        if stream.window_in < 0:
            self._stream_fault(stream_id, ErrorCode.FLOW_CONTROL_ERROR)
            return
        if flags & PADDED:
            start, end = _unpadded(data, start, end)
            length = end - start
        is_last = flags & END_STREAM != 0
        if start == end and not is_last:
            self._count_idle()
        expected = stream.expected_bytes
        if (expected is None or (is_last and expected == length)) and not stream.granted_bytes:
            # As below; nearly all calls come by here.
            stream.is_client_done = is_last
            stream.on_data(data, start, end, is_last)
        else:
            self._deliver(stream, data, start, end, is_last)

    def _deliver(self, stream: Stream, data: bytes, start: int, end: int, is_last: bool) -> None:
        stream.is_client_done = is_last
        if stream.granted_bytes:
            stream.granted_bytes = max(stream.granted_bytes - (end - start), 0)
        expected = stream.expected_bytes
        if expected is not None:
            stream.expected_bytes = expected = expected - (end - start)
            if expected < 0 or (is_last and expected):
                # RFC 9113 §8.1.1: the length is not what content-length says.
                self._stream_fault(stream.id, ErrorCode.PROTOCOL_ERROR)
                return
        stream.on_data(data, start, end, is_last)

    def _on_late(self, stream_id: int, flags: int) -> None:
        """DATA or trailers on a stream that is closed, or that never was."""
        if stream_id > self._last_id or not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on a stream that is not open")
        self._count_idle()
        if stream_id not in self._late:
            self._stream_fault(stream_id, ErrorCode.STREAM_CLOSED)
        elif flags & END_STREAM:
            del self._late[stream_id]

    def _on_headers(self, data: bytes, start: int, end: int, flags: int, stream_id: int) -> None:
        if flags & (PADDED | HAS_PRIORITY):
            start, end = _bare(data, start, end, flags)
        if not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream of ours")
        if flags & END_HEADERS:
            self._on_block(data[start:end], flags, stream_id)
            return
        self._block = data[start:end]
        self._block_flags = flags
        self._block_stream = stream_id
        self._block_frames = 1
        self._incomplete_since = self.now
        self._only = CONTINUATION

    def _on_continuation(self, payload: bytes, flags: int, stream_id: int) -> None:
        if self._only != CONTINUATION or stream_id != self._block_stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "nothing to go on with")
        self._block += payload
        self._block_frames += 1
        if len(self._block) > BLOCK_BYTES_MAX or self._block_frames > CONTINUATIONS_MAX:
            self.counters.floods += 1
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "header block too long")
        if flags & END_HEADERS:
            block, self._block = self._block, b""
            self._block_frames = 0
            self._only = None
            self._on_block(block, self._block_flags, stream_id)

    def _on_block(self, block: bytes, flags: int, stream_id: int) -> None:
        head = self._memo.get(block)
        if head is None:
            head = self._blocks.read(block)
        is_last = flags & END_STREAM != 0
        if stream_id <= self._last_id:
            self._on_trailers(head, is_last, stream_id)
            return
        self._last_id = stream_id
        if self.is_draining and self._drained_at is None:
            # RFC 9113 §6.8: it was told that this one would not be looked at.
            self._remember_late(stream_id)
            self._count_idle()
        elif len(self.streams) >= self._limits.max_streams:
            self.counters.refused_streams += 1
            self._refuse(stream_id, is_last, ErrorCode.REFUSED_STREAM)
        elif isinstance(head, Odd):
            self._refuse(stream_id, is_last, ErrorCode.PROTOCOL_ERROR)
        else:
            stream = self._open_stream(self, stream_id, head)
            self.streams[stream_id] = stream
            if stream.is_eager:
                stream.is_client_done = is_last
                stream.on_open()
            elif is_last:
                self._deliver(stream, b"", 0, 0, is_last)

    def _refuse(self, stream_id: int, is_last: bool, code: ErrorCode) -> None:
        if not is_last:
            self._remember_late(stream_id)
        self._stream_fault(stream_id, code)

    def _on_trailers(self, head: object, is_last: bool, stream_id: int) -> None:
        """A second block on a stream: trailers, or a mistake (RFC 9113 §8.1)."""
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id not in self._late:
                raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS on a closed stream")
            self._on_late(stream_id, END_STREAM if is_last else 0)
        elif stream.is_client_done:
            self._stream_fault(stream_id, ErrorCode.STREAM_CLOSED)
        elif head is not Odd.TRAILERS or not is_last:
            self._stream_fault(stream_id, ErrorCode.PROTOCOL_ERROR)
        else:
            self._deliver(stream, b"", 0, 0, is_last)

    def _on_rst_stream(self, payload: bytes, stream_id: int) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of another length")
        self._check_not_idle(stream_id)
        stream = self.streams.get(stream_id)
        if stream is None:
            self._late.pop(stream_id, None)
            self._count_idle()
            return
        stream.is_client_done = True
        self.counters.client_resets += 1
        self._drop(stream)
        self._count_reset()


def _bare(data: bytes, start: int, end: int, flags: int) -> tuple[int, int]:
    """Where the header block is in a HEADERS frame (RFC 9113 §6.2)."""
    if flags & PADDED:
        start, end = _unpadded(data, start, end)
    if flags & HAS_PRIORITY:
        start += 5
        if start > end:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short")
    return start, end


def _unpadded(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the content of a padded frame is (RFC 9113 §6.1)."""
    if start == end:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "no room for the length of the padding")
    start, end = start + 1, end - data[start]
    if end < start:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
    return start, end

"""What becomes of a connection: its streams end, it is drained, idle, broken or lost.

And the frames that concern it as a whole: SETTINGS, PING, WINDOW_UPDATE, GOAWAY, and what is known
of streams that are closed.
"""

from collections import OrderedDict
from typing import Final

from kvstore.api.grpc.flow import (
    IDLE_BURST,
    IDLE_PER_SECOND,
    RESET_BURST,
    RESETS_PER_SECOND,
    UPDATE_BURST,
    UPDATES_PER_FRAME,
    UPDATES_PER_SECOND,
    WINDOW_IN_BYTES,
    Allowance,
    Grants,
)
from kvstore.api.grpc.frames import (
    ACK,
    ENABLE_PUSH,
    FRAME_BYTES_MAX,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    NUMBER,
    PING,
    SETTINGS,
    STREAM_ID_MAX,
    WINDOW_BYTES_DEFAULT,
    WINDOW_BYTES_MAX,
    ConnectionFault,
    ErrorCode,
    frame,
    goaway,
    read_settings,
    rst_stream,
    window_update,
)
from kvstore.api.grpc.keepalive import Keepalive
from kvstore.api.grpc.outbox import Outbox
from kvstore.api.grpc.stream import Stream
from kvstore.api.limits import ApiLimits, Http2Counters

LATE_STREAMS_MAX: Final = 4096
"""So many closed streams are remembered whose client may not know yet."""
_DRAIN_PING: Final = b"kvdrain\0"
_KEEPALIVE_PING: Final = b"kvalive\0"
_DRAIN_SECONDS: Final = 1.0


class Connection:
    """A connection, apart from how its requests are read.

    Args:
        limits: of streams and of time.
        counters: what is counted.
        now: seconds.
    """

    __slots__ = (
        "_client_leaves",
        "_drained_at",
        "_idle_frames",
        "_idle_since",
        "_incomplete_since",
        "_keepalive",
        "_last_id",
        "_late",
        "_limits",
        "_only",
        "_put_off",
        "_resets",
        "_spare_updates",
        "_updates",
        "_window_in",
        "counters",
        "fault",
        "grants",
        "has_more",
        "held_bytes",
        "is_awake",
        "is_behind",
        "is_draining",
        "is_over",
        "now",
        "outbox",
        "streams",
    )

    def __init__(self, limits: ApiLimits, counters: Http2Counters, now: float) -> None:
        self._limits = limits
        self.counters = counters
        self.now = now
        """When the bytes came in that are being read; seconds."""
        self.outbox = Outbox(limits.stream_unsent_bytes_max)
        self.grants = Grants()
        self.held_bytes = 0
        """What streaming calls hold of what the client said, but for large messages."""
        self._window_in = WINDOW_IN_BYTES
        self.streams: dict[int, Stream] = {}
        """Those that are not closed, by number."""
        self.fault: ConnectionFault | None = None
        """How the client broke the connection."""
        self.is_over = False
        """Whether it is to be closed, once what waits is out."""
        self.is_draining = False
        """Whether the client was told to take its next call elsewhere."""
        self.is_awake = False
        """Whether what there is to say will be written soon, so that nobody need be told of it."""
        self.is_behind = False
        """Whether some of what came in is kept, to be handled when ``go_on`` is called."""
        self.has_more = False
        """Whether more could have been taken than was."""
        self._drained_at: float | None = None
        self._client_leaves = False
        self._incomplete_since: float | None = now
        self._only: int | None = SETTINGS
        self._put_off: Stream | None = None
        self._last_id = 0
        self._late: OrderedDict[int, None] = OrderedDict()
        self._resets = Allowance(RESET_BURST, RESETS_PER_SECOND)
        self._idle_frames = Allowance(IDLE_BURST, IDLE_PER_SECOND)
        self._spare_updates = Allowance(UPDATE_BURST, UPDATES_PER_SECOND)
        self._updates = 0
        self._idle_since: float = now
        self._keepalive = Keepalive(
            limits.keepalive_min_seconds,
            limits.keepalive_interval_seconds,
            limits.keepalive_timeout_seconds,
            now,
        )

    # --- What the server does ---------------------------------------------------------------------

    def take(self, now: float) -> bytes:
        """What is to be sent now; more may be there afterwards (``has_more``).

        Args:
            now: seconds.
        """
        outbox = self.outbox
        self.has_more = outbox.pump(now)
        frames = outbox.frames
        if not frames:
            return b""
        data = bytes(frames[0]) if len(frames) == 1 else b"".join(frames)
        frames.clear()
        return data

    def set_writable(self, now: float, *, is_writable: bool) -> None:
        """The socket takes more, or does not: then nothing more is read either.

        Args:
            now: seconds.
            is_writable: which of the two.
        """
        self.outbox.is_writable = is_writable
        if is_writable:
            self._keepalive.heard_at = now
            if self._incomplete_since is not None:
                self._incomplete_since = now

    def lose(self) -> None:
        """The connection is gone."""
        self.is_over = True
        for stream in list(self.streams.values()):
            self._drop(stream)

    def drain(self, now: float) -> None:
        """Let calls that are under way end, and take no more (RFC 9113 §6.8).

        Calls that the client sent before it heard are still taken: it is told first that there will
        be an end, and where the end is once it has heard that.
        """
        if self.is_draining or self.is_over:
            return
        self.is_draining = True
        self._drained_at = now
        self.outbox.frames += (
            goaway(STREAM_ID_MAX, ErrorCode.NO_ERROR),
            frame(PING, 0, 0, _DRAIN_PING),
        )

    def tick(self, now: float) -> None:
        """Time has passed: limits on it are looked at.

        Args:
            now: seconds.
        """
        limits = self._limits
        drained_at = self._drained_at
        if drained_at is not None and now >= drained_at + _DRAIN_SECONDS and not self.is_behind:
            self._draw_the_line()
        for stream in list(self.streams.values()):
            stream.on_tick(now)
        since = self._incomplete_since
        if not self.outbox.is_writable or self.is_behind:
            # Nothing is read: whatever the client says, and owes us, waits in the socket, or here.
            return
        if since is not None and now >= since + limits.head_seconds:
            self._break(ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "frames come in too slowly"))
        elif self._keepalive.is_lost(now):
            self.fault = ConnectionFault(ErrorCode.NO_ERROR, "no answer to a ping")
            self.is_over = True
        elif self.streams:
            self._idle_since = now
        elif now >= self._idle_since + limits.idle_connection_seconds:
            self.drain(now)
        if not self.is_over and self._keepalive.wants_ping(now):
            self.outbox.frames.append(frame(PING, 0, 0, _KEEPALIVE_PING))

    # --- What streams do --------------------------------------------------------------------------

    def refill(self, stream: Stream) -> None:
        """Let the client send on, up to what is free of the stream's window."""
        if stream.is_client_done or stream.is_over:
            return
        room = max(WINDOW_BYTES_DEFAULT - stream.unconsumed_bytes, stream.granted_bytes)
        gain = room - stream.window_in
        if gain > 0 and (gain >= WINDOW_BYTES_DEFAULT // 2 or stream.granted_bytes):
            stream.window_in += gain
            self.outbox.frames.append(window_update(stream.id, gain))

    def hold(self, change: int) -> None:
        """Streaming calls hold so many bytes more, or less, of what the client said."""
        self.held_bytes += change
        if change < 0 and self._window_in < WINDOW_IN_BYTES // 2 and not self.is_over:
            self._refill_all()

    def _refill_all(self) -> None:
        """Let the client send on, on all streams, unless too much is held already.

        Whoever holds it has a limit on its time, or waits for the client to read.
        """
        if self.held_bytes < self._limits.stream_held_bytes_max:
            gain = WINDOW_IN_BYTES - self._window_in
            self._window_in += gain
            self.outbox.frames.append(window_update(0, gain))

    def ask(self, stream: Stream, size_bytes: int) -> None:
        """Have a message come in that is larger than a stream's window."""
        stream.has_asked = True
        self.grants.ask(stream, size_bytes)

    def put_off(self, stream: Stream) -> None:
        """Handle nothing more for now: the stream has much to read, which comes first then."""
        self._put_off = stream
        self.is_behind = True

    def received(self, stream: Stream) -> None:
        """The message that was asked for is there."""
        if stream.has_asked:
            stream.has_asked = False
            stream.granted_bytes = 0
            self.grants.release(stream)

    def close(self, stream: Stream) -> None:
        """All that we had to say on a stream is out; whatever the client still says is dropped."""
        del self.streams[stream.id]
        stream.is_over = True
        if not stream.is_client_done:
            # RFC 9113 §8.1: the rest of the request is not needed.
            self.outbox.frames.append(rst_stream(stream.id, ErrorCode.NO_ERROR))
            self._remember_late(stream.id)
        if stream.has_asked:
            self.received(stream)
        if not self.streams:
            self._end_if_empty()

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream in the middle."""
        if not stream.is_over:
            self.outbox.frames.append(rst_stream(stream.id, code))
            if not stream.is_client_done:
                self._remember_late(stream.id)
            self._drop(stream)

    # --- The ends of things -----------------------------------------------------------------------

    def _drop(self, stream: Stream) -> None:
        del self.streams[stream.id]
        stream.is_over = True
        self.outbox.drop(stream)
        self.received(stream)
        stream.on_gone()
        if not self.streams:
            self._end_if_empty()

    def _end_if_empty(self) -> None:
        self._idle_since = self.now
        if self._client_leaves or (self.is_draining and self._drained_at is None):
            self.is_over = True

    def _break(self, fault: ConnectionFault) -> None:
        """Tell the client which rule it broke, and be done with it."""
        self.fault = fault
        self.counters.broken_connections += 1
        self.outbox.frames.append(goaway(self._last_id, fault.code, fault.words))
        self.lose()

    def _draw_the_line(self) -> None:
        """The client has heard that no more calls are taken: these are the last."""
        if self._drained_at is not None:
            self._drained_at = None
            self.outbox.frames.append(goaway(self._last_id, ErrorCode.NO_ERROR))
            if not self.streams:
                self._end_if_empty()

    def _remember_late(self, stream_id: int) -> None:
        late = self._late
        late[stream_id] = None
        if len(late) > LATE_STREAMS_MAX:
            late.popitem(last=False)

    def _stream_fault(self, stream_id: int, code: ErrorCode) -> None:
        """A rule was broken on one stream (RFC 9113 §5.4.2)."""
        self.counters.stream_faults += 1
        stream = self.streams.get(stream_id)
        if stream is None:
            self.outbox.frames.append(rst_stream(stream_id, code))
        else:
            self.reset(stream, code)
        self._count_reset()

    def _count_reset(self) -> None:
        """The client took a stream back, or made us do it."""
        if not self._resets.spend(self.now):
            self.counters.floods += 1
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many streams reset")

    def _count_idle(self) -> None:
        """A frame that brings nothing."""
        if not self._idle_frames.spend(self.now):
            self.counters.floods += 1
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames without content")

    def _check_not_idle(self, stream_id: int) -> None:
        if not stream_id & 1 or stream_id > self._last_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "frame on a stream that is not open")

    # --- Windows, settings and pings --------------------------------------------------------------

    def _on_window_update(self, payload: bytes, stream_id: int) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of another length")
        gain = NUMBER.unpack(payload)[0] & WINDOW_BYTES_MAX
        outbox = self.outbox
        if self._updates < UPDATES_PER_FRAME * outbox.data_frames:
            self._updates += 1
        elif not self._spare_updates.spend(self.now):
            self.counters.floods += 1
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many WINDOW_UPDATEs")
        if stream_id == 0:
            outbox.window += gain
            if not gain:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
            if outbox.window > WINDOW_BYTES_MAX:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "window too large")
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            # The last ones of a client cross with our end of the stream.
            self._check_not_idle(stream_id)
        elif not gain:
            self._stream_fault(stream_id, ErrorCode.PROTOCOL_ERROR)
        elif not outbox.widen(stream, gain):
            self._stream_fault(stream_id, ErrorCode.FLOW_CONTROL_ERROR)

    def _on_settings(self, payload: bytes, flags: int) -> None:
        if flags & ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS acknowledged with more")
            self._count_idle()
            return
        if len(payload) % 6:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of another length")
        if self._only is not None:
            self._only = None
        else:
            self._count_idle()
        initial_window = self.outbox.initial_window
        for name, value in read_settings(payload):
            if name == INITIAL_WINDOW_SIZE:
                if value > WINDOW_BYTES_MAX:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "window too large")
                initial_window = value
            elif name == ENABLE_PUSH and value > 1:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
            elif name == MAX_FRAME_SIZE and not FRAME_BYTES_MAX <= value < 1 << 24:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE out of its range")
        if initial_window != self.outbox.initial_window:
            # Once a frame, whatever it repeats: each time costs a step for each stream.
            self.outbox.widen_all(list(self.streams.values()), initial_window)
        self.outbox.frames.append(frame(SETTINGS, ACK, 0))

    def _on_ping(self, payload: bytes, flags: int) -> None:
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING of another length")
        if flags & ACK:
            self._count_idle()
            if payload == _DRAIN_PING:
                self._draw_the_line()
            return
        outbox = self.outbox
        was_served, outbox.was_served = outbox.was_served, False
        outbox.frames.append(frame(PING, ACK, 0, payload))
        has_streams = bool(self.streams)
        heard_at = self._keepalive.heard_at
        if not self._keepalive.on_ping(heard_at, has_streams=has_streams, was_served=was_served):
            self.counters.floods += 1
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")

    def _on_priority(self, payload: bytes, stream_id: int) -> None:
        """RFC 9113 §5.3.2: what it says is not used any more."""
        self._count_idle()
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY of no stream")
        if len(payload) != 5:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of another length")

    def _on_goaway(self, payload: bytes) -> None:
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY too short")
        self._count_idle()
        self._client_leaves = True
        if not self.streams:
            self._end_if_empty()

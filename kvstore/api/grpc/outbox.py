"""What leaves on one connection, and when: the windows of RFC 9113 §5.2 on the way out.

Heads, trailers and answers to control frames leave at once. DATA waits for its stream's window, for
the connection's and for the socket; streams that can go on take turns, a frame each.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

from kvstore.api.grpc.frames import (
    DATA,
    FRAME_BYTES_MAX,
    HEADER,
    WINDOW_BYTES_DEFAULT,
    WINDOW_BYTES_MAX,
    ConnectionFault,
    ErrorCode,
)

WRITE_BYTES: Final = 256 * 1024
"""How much DATA leaves in one go: other connections want the loop as well."""

AHEAD_BYTES: Final = 64 * 1024
"""What a streaming call may have waiting beyond its window, so that the next one finds it ready."""

STREAM_BYTES_MAX: Final = 32 * 1024 * 1024
"""What may wait on a connection whose streaming calls go on, unless its owner says otherwise."""

Piece: TypeAlias = bytes | memoryview


NOTHING: Final[deque[Piece]] = deque(maxlen=0)
"""What a stream has pending that never had to wait: most need no queue of their own."""


class Sender(Protocol):
    """A stream, as seen from here."""

    id: int
    window_out: int
    pending: deque[Piece]
    pending_bytes: int
    ending: bytes | None
    moved_at: float

    def on_room(self) -> None:
        """Some of what waited has left, or there is room for more."""

    def on_sent(self) -> None:
        """All has left, its end as well."""


class Outbox:
    """The frames of one connection on their way out.

    Args:
        stream_bytes_max: what may wait while streaming calls make more.
    """

    __slots__ = (
        "_called",
        "_in_line",
        "_ready",
        "_stream_bytes_max",
        "claimed_bytes",
        "data_frames",
        "frames",
        "initial_window",
        "is_writable",
        "moved_at",
        "pending_bytes",
        "was_served",
        "window",
    )

    def __init__(self, stream_bytes_max: int = STREAM_BYTES_MAX) -> None:
        self._stream_bytes_max = stream_bytes_max
        self._in_line: OrderedDict[int, Sender] = OrderedDict()
        """Streams that would go on, had the connection less that waits."""
        self._called: set[int] = set()
        """Those whose turn it is, and that have not claimed yet."""
        self.claimed_bytes = 0
        """What streaming calls are making of DATA that will wait, or leave."""
        self._ready: OrderedDict[int, Sender] = OrderedDict()
        self.frames: list[Piece] = []
        """What leaves next."""
        self.window = WINDOW_BYTES_DEFAULT
        self.initial_window = WINDOW_BYTES_DEFAULT
        self.is_writable = True
        """Whether the socket takes more."""
        self.pending_bytes = 0
        """DATA that waits."""
        self.moved_at = 0.0
        """When any of it last left; seconds."""
        self.data_frames = 0
        self.was_served = False
        """Whether a head or DATA left since somebody last looked here."""

    def take_room(self, stream: Sender, size: int) -> bool:
        """Whether DATA of this size may leave in one frame, at once; the windows then count it."""
        if (
            size > stream.window_out
            or size > self.window
            or size > FRAME_BYTES_MAX
            or not self.is_writable
            or stream.pending
        ):
            return False
        self.window -= size
        self.data_frames += 1
        self.was_served = True
        return True

    def send(self, stream: Sender, pieces: Sequence[Piece], size: int, now: float) -> None:
        """Queue DATA.

        Args:
            stream: whose.
            pieces: the bytes; none is empty.
            size: how many they are together.
            now: seconds.
        """
        if not stream.pending:
            stream.moved_at = now
            stream.pending = deque()
        stream.pending += pieces
        stream.pending_bytes += size
        self.pending_bytes += size
        if stream.window_out > 0:
            self._ready[stream.id] = stream

    def finish(self, stream: Sender, ending: bytes) -> None:
        """Let a frame that ends the stream leave behind its DATA."""
        if stream.pending:
            stream.ending = ending
        else:
            self.frames.append(ending)
            stream.on_sent()

    def claim(self, stream: Sender, bytes_max: int, bytes_min: int) -> int:
        """Keep room for DATA that a streaming call is about to make.

        It makes what the client can take, and a little more. Where much waits on the connection
        already, that little is none; where too much does, the stream stands in line.

        Args:
            stream: whose.
            bytes_max: most that would be made at a time.
            bytes_min: what cannot be made in less.

        Returns:
            How many bytes it may make, to be given back by ``waive``; 0: none until ``on_room``.
        """
        is_called = stream.id in self._called
        if is_called:
            self._called.remove(stream.id)
        used = self.pending_bytes + self.claimed_bytes
        ahead = AHEAD_BYTES if used < self._stream_bytes_max // 2 else 0
        if stream.window_out <= 0 or stream.pending_bytes > ahead:
            return 0
        if used >= self._stream_bytes_max or (self._in_line and not is_called):
            self._in_line[stream.id] = stream
            return 0
        window = min(stream.window_out, self.window) if self.is_writable else 0
        room = max(window, 0) + ahead - stream.pending_bytes
        size = max(min(bytes_max, room, self._stream_bytes_max - used), bytes_min)
        self.claimed_bytes += size
        return size

    def waive(self, size: int) -> None:
        """What was claimed is there, or will not be."""
        self.claimed_bytes -= size
        self.call_next()

    def call_next(self) -> None:
        """Let the next in line go on, if there is room; it calls the one behind it."""
        if self._in_line and self.pending_bytes + self.claimed_bytes < self._stream_bytes_max:
            number, stream = self._in_line.popitem(last=False)
            self._called.add(number)
            stream.on_room()

    def leave_line(self, stream: Sender) -> None:
        """It is gone; if it was called already, another is."""
        self._in_line.pop(stream.id, None)
        self._called.discard(stream.id)
        self.call_next()

    def has_stalled(self, stream: Sender, now: float, seconds: float) -> bool:
        """Whether the client has for so long given no window to DATA that waits.

        What the socket does not take is another matter, and the server's to judge.
        """
        if not stream.pending or not self.is_writable:
            return False
        if stream.window_out <= 0:
            return now >= stream.moved_at + seconds
        return self.window <= 0 and now >= max(self.moved_at, stream.moved_at) + seconds

    def drop(self, stream: Sender) -> None:
        """Nobody wants what waits there."""
        self._ready.pop(stream.id, None)
        self.pending_bytes -= stream.pending_bytes
        stream.pending_bytes = 0
        stream.pending.clear()
        stream.ending = None
        self.call_next()

    def widen(self, stream: Sender, gain: int) -> bool:
        """A stream's window changed; False if it overflows."""
        stream.window_out += gain
        if stream.window_out > 0:
            if stream.pending:
                self._ready[stream.id] = stream
            else:
                stream.on_room()
        return stream.window_out <= WINDOW_BYTES_MAX

    def widen_all(self, streams: list[Sender], initial_window: int) -> None:
        """SETTINGS_INITIAL_WINDOW_SIZE changed: all windows move with it, even below zero.

        Raises:
            ConnectionFault: one overflows (RFC 9113 §6.9.2).
        """
        gain = initial_window - self.initial_window
        self.initial_window = initial_window
        for stream in streams:
            if not self.widen(stream, gain):
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "window too large")

    def pump(self, now: float) -> bool:
        """Move DATA that may leave to ``frames``; whether more could, in another go."""
        left = WRITE_BYTES
        while self._ready and self.window > 0 and self.is_writable:
            if left <= 0:
                return True
            _, stream = self._ready.popitem(last=False)
            if stream.window_out > 0 and stream.pending:
                left -= self._send_frame(stream, now)
        return False

    def _send_frame(self, stream: Sender, now: float) -> int:
        size = min(stream.window_out, self.window, FRAME_BYTES_MAX, stream.pending_bytes)
        pending = stream.pending
        self.frames.append(HEADER.pack(size << 8 | DATA, 0, stream.id))
        left = size
        while left:
            piece = pending.popleft()
            if len(piece) > left:
                # A view: what remains of a large answer is not copied for each frame.
                view = memoryview(piece)
                pending.appendleft(view[left:])
                piece = view[:left]
            self.frames.append(piece)
            left -= len(piece)
        stream.window_out -= size
        self.window -= size
        stream.pending_bytes -= size
        self.pending_bytes -= size
        stream.moved_at = self.moved_at = now
        self.data_frames += 1
        self.was_served = True
        if not pending and stream.ending is not None:
            self.frames.append(stream.ending)
            stream.on_sent()
        else:
            if pending and stream.window_out > 0:
                self._ready[stream.id] = stream
            stream.on_room()
        if self._in_line:
            self.call_next()
        return size

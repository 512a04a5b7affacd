"""From DATA to messages: the length-prefixed messages of gRPC.

+----------------+---------------------------+
| compressed (8) |        length (32)        |
+----------------+---------------------------+
|                 message ...                |
+--------------------------------------------+
"""

import zlib
from collections import deque
from typing import Final, NamedTuple

from kvstore.api.grpc.answers import PREFIX, PREFIX_BYTES
from kvstore.errors import Code, KvError
from kvstore.service.limits import not_received

_GZIP: Final = 16 + zlib.MAX_WBITS
PIECES: Final = 64
PIECE_BYTES: Final = 256
"""A message may come in so many pieces, and in as many more as are of this size on average.

Each costs a step, whatever it brings: a message byte by byte would cost a thousand times what it
costs whole.
"""


class Message(NamedTuple):
    """A message as it came in: its bytes, and whether they are compressed."""

    body: bytes
    is_compressed: bool


class Assembly:
    """The messages of one call, put together from pieces.

    Args:
        bytes_max: longest message.
    """

    __slots__ = ("_bytes_max", "_part", "_pieces", "messages", "wanted_bytes")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._part = bytearray()
        self._pieces = 0
        self.messages: deque[Message] = deque()
        """Those that are whole, and not taken yet."""
        self.wanted_bytes = 0
        """How long the message is that is coming in, with its prefix; 0: not known yet."""

    @property
    def part_bytes(self) -> int:
        """How much is there of the message that is coming in."""
        return len(self._part)

    def feed(self, data: bytes, start: int, end: int) -> bool:
        """Take in ``data[start:end]``; whether that completed a message.

        Raises:
            KvError: what comes is no message, or a longer one than is taken.
        """
        part = self._part
        count = len(self.messages)
        if part:
            taken = min(max(self.wanted_bytes, PREFIX_BYTES) - len(part), end - start)
            part += data[start : start + taken]
            start += taken
            if not self.wanted_bytes and len(part) == PREFIX_BYTES:
                self.wanted_bytes = self._size(part, 0)
                taken = min(self.wanted_bytes - PREFIX_BYTES, end - start)
                part += data[start : start + taken]
                start += taken
            if len(part) != self.wanted_bytes:
                self._count_piece()
                return False
            self.messages.append(Message(bytes(part[PREFIX_BYTES:]), part[0] == 1))
            part.clear()
            self._pieces = self.wanted_bytes = 0
        while end - start >= PREFIX_BYTES:
            size = self._size(data, start)
            if start + size > end:
                self.wanted_bytes = size
                break
            is_compressed = data[start] == 1
            self.messages.append(Message(data[start + PREFIX_BYTES : start + size], is_compressed))
            start += size
        part += data[start:end]
        return len(self.messages) > count

    def drop_part(self) -> None:
        """The message that is coming in is not wanted any more."""
        self._part = bytearray()
        self._pieces = self.wanted_bytes = 0

    @property
    def whole_bytes(self) -> int:
        """How long the messages are that are whole and not taken yet, with their prefixes."""
        return sum([PREFIX_BYTES + len(message.body) for message in self.messages])

    def _count_piece(self) -> None:
        self._pieces += 1
        if self._pieces > PIECES + len(self._part) // PIECE_BYTES:
            raise KvError(Code.RESOURCE_EXHAUSTED, "kvstore: a message in too many small pieces")

    def _size(self, data: bytes | bytearray, start: int) -> int:
        flag, length = PREFIX.unpack_from(data, start)
        if flag > 1:
            raise KvError(Code.INTERNAL, f"grpc: received unexpected payload format {flag}")
        if length > self._bytes_max:
            raise not_received(length, self._bytes_max)
        return PREFIX_BYTES + int(length)


def opened(message: Message, bytes_max: int, *, is_gzip: bool) -> bytes:
    """The bytes of a message, decompressed where that is due.

    Args:
        message: what came in.
        bytes_max: most bytes that it may have.
        is_gzip: whether the call's ``grpc-encoding`` is gzip.

    Raises:
        KvError: it cannot be decompressed, or becomes too long.
    """
    if not message.is_compressed:
        return message.body
    if not is_gzip:
        words = "grpc: compressed flag set with identity or empty encoding"
        raise KvError(Code.INTERNAL, words)
    decompressor = zlib.decompressobj(_GZIP)
    try:
        body = decompressor.decompress(message.body, bytes_max + 1)
    except zlib.error as error:
        words = f"grpc: failed to decompress the received message: {error}"
        raise KvError(Code.INTERNAL, words) from None
    if len(body) > bytes_max:
        words = f"grpc: received message after decompression larger than max {bytes_max}"
        raise KvError(Code.RESOURCE_EXHAUSTED, words)
    if not decompressor.eof or decompressor.unused_data:
        words = "grpc: failed to decompress the received message: it is not one gzip stream"
        raise KvError(Code.INTERNAL, words)
    return body

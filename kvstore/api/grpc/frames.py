"""The frames of HTTP/2 (RFC 9113 §4.1), as far as a server writes them, and what can be wrong.

+-----------------------------------------------+
|                 length (24)                   |
+---------------+---------------+---------------+
|   type (8)    |   flags (8)   |
+-+-------------+---------------+-------------------------------+
|R|                 stream identifier (31)                      |
+=+=============================================================+
|                          payload ...                          |
+---------------------------------------------------------------+
"""

import enum
from struct import Struct
from typing import Final

from kvstore.errors import KvstoreError

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client says first (RFC 9113 §3.4)."""

HEADER: Final = Struct(">IBI")
"""Length and type in one number, flags, stream."""
HEADER_BYTES: Final = 9
FRAME_BYTES_MAX: Final = 16_384
"""Longest payload that we take: the least that RFC 9113 §6.5.2 allows, and what clients send."""
STREAM_ID_MAX: Final = 2**31 - 1
WINDOW_BYTES_MAX: Final = 2**31 - 1
WINDOW_BYTES_DEFAULT: Final = 65_535

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

ACK: Final = 1
END_STREAM: Final = 1
END_HEADERS: Final = 4
PADDED: Final = 8
HAS_PRIORITY: Final = 32

MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
ENABLE_PUSH: Final = 2

NUMBER: Final = Struct(">I")
_SETTING: Final = Struct(">HI")
_GOAWAY: Final = Struct(">IBIII")
_FRAME_WITH_NUMBER: Final = Struct(">IBII")


class ErrorCode(enum.IntEnum):
    """Why a stream or a connection ends (RFC 9113 §7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(KvstoreError):
    """The client broke a rule in a way that ends the connection (RFC 9113 §5.4.1).

    Args:
        code: what it is told.
        words: and the words beside it.
    """

    def __init__(self, code: ErrorCode, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*row) for row in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The settings in a frame, in their order; its length is a multiple of six."""
    return list(_SETTING.iter_unpack(payload))


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """A RST_STREAM frame."""
    return _FRAME_WITH_NUMBER.pack(4 << 8 | RST_STREAM, 0, stream_id, code)


def window_update(stream_id: int, gain: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return _FRAME_WITH_NUMBER.pack(4 << 8 | WINDOW_UPDATE, 0, stream_id, gain)


def goaway(last_id: int, code: ErrorCode, words: str = "") -> bytes:
    """A GOAWAY frame: streams up to ``last_id`` are, or may have been, taken care of."""
    text = words.encode()
    return _GOAWAY.pack((8 + len(text)) << 8 | GOAWAY, 0, 0, last_id, code) + text

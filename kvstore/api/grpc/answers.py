"""The frames of gRPC's answers: head, messages, trailers; most of their bytes never change.

Header blocks here use no dynamic table (RFC 7541 §2.3.2), so they are the same on all connections.
"""

from struct import Struct
from typing import Final

from kvstore.api.grpc.frames import DATA, END_HEADERS, END_STREAM, HEADER, HEADERS, frame
from kvstore.errors import Code, KvError

PREFIX: Final = Struct(">BI")
"""What stands before a message: whether it is compressed, and its length."""
PREFIX_BYTES: Final = 5
_MESSAGE_BYTES_MAX: Final = 4096
"""Longest text of an error, encoded: a header block stays within one frame."""
_STATUS_NAME: Final = 8
_CONTENT_TYPE_NAME: Final = 31
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}


def _integer(value: int, prefix_bits: int) -> bytes:
    """A number as RFC 7541 §5.1 writes it, behind bits that are zero."""
    full = (1 << prefix_bits) - 1
    if value < full:
        return bytes((value,))
    digits = [full]
    value -= full
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _indexed_name(name: int, value: bytes) -> bytes:
    """A field that is not put into a table, with a name of the static table."""
    return _integer(name, 4) + _integer(len(value), 7) + value


def field(name: bytes, value: bytes) -> bytes:
    """A field that is not put into a table."""
    return b"\0" + _integer(len(name), 7) + name + _integer(len(value), 7) + value


_CONTENT_TYPE: Final = _indexed_name(_CONTENT_TYPE_NAME, b"application/grpc")
_HEAD: Final = b"\x88" + _CONTENT_TYPE
_OK: Final = field(b"grpc-status", b"0")

_HEAD_WORD: Final = len(_HEAD) << 8 | HEADERS
_OK_WORD: Final = len(_OK) << 8 | HEADERS
_beginning: Final = Struct(f">IBI{len(_HEAD)}sIBIBI").pack
_end: Final = Struct(f">IBI{len(_OK)}s").pack
_ENDS: Final = END_STREAM | END_HEADERS

ACCEPTED_ENCODINGS: Final = field(b"grpc-accept-encoding", b"gzip")


def whole(stream_id: int, message: bytes) -> bytes:
    """An answer of one message: its head, the message, and trailers that say that all is well."""
    length = len(message)
    word = (length + PREFIX_BYTES) << 8 | DATA
    return b"%b%b%b" % (
        _beginning(_HEAD_WORD, END_HEADERS, stream_id, _HEAD, word, 0, stream_id, 0, length),
        message,
        _end(_OK_WORD, _ENDS, stream_id, _OK),
    )


def end(stream_id: int) -> bytes:
    """Trailers that say that all is well."""
    return _end(_OK_WORD, _ENDS, stream_id, _OK)


def head(stream_id: int) -> bytes:
    """The head alone."""
    return HEADER.pack(_HEAD_WORD, END_HEADERS, stream_id) + _HEAD


def error_end(stream_id: int, error: KvError) -> bytes:
    """Trailers with an error."""
    return frame(HEADERS, _ENDS, stream_id, _status_fields(error))


def error_only(stream_id: int, error: KvError, status: int = 200, more: bytes = b"") -> bytes:
    """A whole answer that is an error: gRPC's "Trailers-Only".

    Args:
        stream_id: the stream.
        error: what to say.
        status: the HTTP status.
        more: further fields, encoded.
    """
    status_field = b"\x88" if status == 200 else _indexed_name(_STATUS_NAME, b"%d" % status)
    block = status_field + _CONTENT_TYPE + _status_fields(error) + more
    return frame(HEADERS, _ENDS, stream_id, block)


def _status_fields(error: KvError) -> bytes:
    code = error.code if error.code is not Code.OK else Code.UNKNOWN
    fields = field(b"grpc-status", b"%d" % code)
    return fields + field(b"grpc-message", encoded_message(error.message))


def encoded_message(text: str) -> bytes:
    """An error's text as ``grpc-message`` has it: UTF-8, percent-encoded, cut where too long."""
    raw = text.encode("utf-8", "replace")
    parts: list[bytes] = []
    size = 0
    for byte in raw:
        part = bytes((byte,)) if byte in _PLAIN else b"%%%02X" % byte
        size += len(part)
        if size > _MESSAGE_BYTES_MAX:
            break
        parts.append(part)
    return b"".join(parts)

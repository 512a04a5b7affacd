"""Header blocks (RFC 7541): bytes to what they mean, once for each block that a client repeats.

A client says much the same before each call, and after the first few its whole head is a dozen
bytes that point into a table. What such bytes mean changes only with the table, so it is looked up
by the block itself, until a block changes the table. A client that gives each call a timeout of its
own changes it each time; so the two forms that fields mostly have are read here, with hpack's table
and its Huffman code, and all others by hpack.
"""

import enum
import logging
import re
from collections.abc import Callable
from typing import Final, Generic, TypeAlias, TypeVar, cast

from hpack import Decoder, HPACKDecodingError, HPACKError, OversizedHeaderListError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable, table_entry_size

from kvstore.api.grpc.frames import ConnectionFault, ErrorCode

# At level debug it would write every header to the log, tokens included.
logging.getLogger("hpack").setLevel(logging.INFO)

HEADER_LIST_BYTES_MAX: Final = 64 * 1024
"""Longest list of headers, 32 bytes for each of them included (RFC 9113 §6.5.2)."""

MEMO_BLOCKS_MAX: Final = 64
MEMO_BLOCK_BYTES_MAX: Final = 1024

_SIZE_UPDATE: Final = 0x20
_SIZE_UPDATE_MASK: Final = 0xE0
_STATIC: Final = HeaderTable.STATIC_TABLE
_STATIC_COUNT: Final = len(_STATIC)

Field: TypeAlias = tuple[bytes, bytes]
T = TypeVar("T")

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"(?![ \t])[^\0\r\n]*(?<![ \t])")
_DIGITS: Final = re.compile(rb"[0-9]+")
_REQUEST_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_REQUIRED: Final = frozenset({b":method", b":scheme", b":path"})
_OF_HTTP1: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)


class Odd(enum.Enum):
    """What a header block is, if not the head of a request."""

    MALFORMED = enum.auto()
    TRAILERS = enum.auto()


def _is_sound(field: Field) -> bool:
    """Whether a field may be in a request, wherever it stands there (RFC 9113 §8.1.1, §8.2)."""
    name, value = field
    if not name.startswith(b":"):
        if name in _OF_HTTP1 or _NAME.fullmatch(name) is None:
            return False
        if name == b"te" and value.lower() != b"trailers":
            return False
        if name == b"content-length" and _DIGITS.fullmatch(value) is None:
            return False
    return not value or _VALUE.fullmatch(value) is not None


def judge(fields: list[Field]) -> Odd | None:
    """Hold a list of headers against RFC 9113 §8.2 and §8.3; None: the head of a request."""
    pseudo: set[bytes] = set()
    has_regular = False
    for field in fields:
        name = field[0]
        if name[:1] == b":":
            if has_regular or name in pseudo or name not in _REQUEST_PSEUDO:
                return Odd.MALFORMED
            pseudo.add(name)
        else:
            has_regular = True
        if not _is_sound(field):
            return Odd.MALFORMED
    if not pseudo:
        return Odd.TRAILERS
    if not pseudo >= _REQUIRED or (b":path", b"") in fields:
        return Odd.MALFORMED
    return None


def _resizes(block: bytes) -> bool:
    """Whether it changes how much the table may hold, which counts each time (RFC 7541 §6.3)."""
    return bool(block) and block[0] & _SIZE_UPDATE_MASK == _SIZE_UPDATE


class HeaderBlocks(Generic[T]):
    """The header blocks of one connection, in the order in which they come in.

    Args:
        digest: what to make of the headers of a request that is well-formed.
        list_bytes_max: longest list of headers.
    """

    __slots__ = ("_decoder", "_digest", "_entries", "_list_bytes_max", "memo")

    def __init__(
        self, digest: Callable[[list[Field]], T], list_bytes_max: int = HEADER_LIST_BYTES_MAX
    ) -> None:
        self._decoder = Decoder(list_bytes_max)
        self._entries = self._decoder.header_table.dynamic_entries
        self._list_bytes_max = list_bytes_max
        self._digest = digest
        self.memo: dict[bytes, T | Odd] = {}
        """Blocks that did not change the table, and what they mean as long as nothing does."""

    def read(self, block: bytes) -> T | Odd:
        """Decode a block that is not in the memo.

        Args:
            block: the whole of it, without frames.

        Raises:
            ConnectionFault: it cannot be decoded, or is too long: the table is lost with it.
        """
        entries = self._entries
        count, first = len(entries), entries[0] if entries else None
        try:
            fields = self._decoded(block)
        except OversizedHeaderListError:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "header list too long") from None
        except (HPACKError, IndexError) as error:
            # IndexError: hpack looks at the first byte of a string that is not there.
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "bad header block") from error
        meaning = judge(fields) or self._digest(fields)
        # Entries come in at the front, as tuples of their own, and leave at the back: if neither
        # the first one nor their number is another, the table is as it was.
        if len(entries) != count or (entries and entries[0] is not first):
            self.memo.clear()
        elif len(block) <= MEMO_BLOCK_BYTES_MAX and not _resizes(block):
            if len(self.memo) >= MEMO_BLOCKS_MAX:
                self.memo.clear()
            self.memo[block] = meaning
        return meaning

    def _decoded(self, block: bytes) -> list[Field]:
        """The fields of a block.

        Raises:
            HPACKError: it cannot be decoded, or is too long.
            IndexError: the same.
        """
        fields: list[Field] = []
        entries = self._entries
        position = size = 0
        end = len(block)
        while position < end:
            byte = block[position]
            if byte > 0x80 and byte != 0xFF:
                # A field of the table (RFC 7541 §6.1).
                index = byte - 0x81
                field = _STATIC[index] if index < _STATIC_COUNT else entries[index - _STATIC_COUNT]
                position += 1
            elif 0x40 < byte < 0x7F and block[position + 1] & 0x7F != 0x7F:
                # A name of the table with a value that becomes part of it (RFC 7541 §6.2.1).
                index = byte - 0x41
                name = (
                    _STATIC[index] if index < _STATIC_COUNT else entries[index - _STATIC_COUNT]
                )[0]
                length = block[position + 1]
                position += 2 + (length & 0x7F)
                if position > end:
                    raise HPACKDecodingError("value cut short")
                value = block[position - (length & 0x7F) : position]
                field = (name, decode_huffman(value) if length & 0x80 else value)
                self._decoder.header_table.add(*field)
            else:
                break
            fields.append(field)
            size += table_entry_size(*field)
            if size > self._list_bytes_max:
                raise OversizedHeaderListError
        if position < end:
            if fields and block[position] & 0xE0 == _SIZE_UPDATE:
                raise HPACKDecodingError("size update behind a field")
            # With ``raw``, hpack's tuples are of bytes; its types do not say so.
            rest = cast("list[Field]", self._decoder.decode(block[position:], raw=True))
            size += sum(table_entry_size(*field) for field in rest)
            if size > self._list_bytes_max:
                raise OversizedHeaderListError
            fields += rest
        return fields

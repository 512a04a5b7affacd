"""Header blocks (RFC 7541): bytes to what they mean, once for each block that a client repeats.

A client says much the same before each call, and after the first few its whole head is a dozen
bytes that point into a table. What such bytes mean changes only with the table, so it is looked up
by the block itself, until a block changes the table.
"""

import enum
import logging
import re
from collections.abc import Callable
from typing import Final, Generic, TypeAlias, TypeVar, cast

from hpack import Decoder, HPACKError, OversizedHeaderListError

from kvstore.api.grpc.frames import ConnectionFault, ErrorCode

# At level debug it would write every header to the log, tokens included.
logging.getLogger("hpack").setLevel(logging.INFO)

HEADER_LIST_BYTES_MAX: Final = 64 * 1024
"""Longest list of headers, 32 bytes for each of them included (RFC 9113 §6.5.2)."""

MEMO_BLOCKS_MAX: Final = 64
MEMO_BLOCK_BYTES_MAX: Final = 1024

Field: TypeAlias = tuple[bytes, bytes]
T = TypeVar("T")

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"(?![ \t])[^\0\r\n]*(?<![ \t])")
_REQUEST_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_REQUIRED: Final = frozenset({b":method", b":scheme", b":path"})
_OF_HTTP1: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)


class Odd(enum.Enum):
    """What a header block is, if not the head of a request."""

    MALFORMED = enum.auto()
    TRAILERS = enum.auto()


def judge(fields: list[Field]) -> Odd | None:
    """Hold a list of headers against RFC 9113 §8.2 and §8.3; None: the head of a request."""
    pseudo: set[bytes] = set()
    has_regular = False
    for name, value in fields:
        if name.startswith(b":"):
            if has_regular or name in pseudo or name not in _REQUEST_PSEUDO:
                return Odd.MALFORMED
            pseudo.add(name)
        else:
            has_regular = True
            if name in _OF_HTTP1 or _NAME.fullmatch(name) is None:
                return Odd.MALFORMED
            if name == b"te" and value.lower() != b"trailers":
                return Odd.MALFORMED
        if value and _VALUE.fullmatch(value) is None:
            return Odd.MALFORMED
    if not pseudo:
        return Odd.TRAILERS
    if not pseudo >= _REQUIRED or (b":path", b"") in fields:
        return Odd.MALFORMED
    return None


class HeaderBlocks(Generic[T]):
    """The header blocks of one connection, in the order in which they come in.

    Args:
        digest: what to make of the headers of a request that is well-formed.
        list_bytes_max: longest list of headers.
    """

    __slots__ = ("_decoder", "_digest", "_entries", "memo")

    def __init__(
        self, digest: Callable[[list[Field]], T], list_bytes_max: int = HEADER_LIST_BYTES_MAX
    ) -> None:
        self._decoder = Decoder(list_bytes_max)
        self._entries = self._decoder.header_table.dynamic_entries
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
            decoded = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "header list too long") from None
        except (HPACKError, IndexError) as error:
            # IndexError: hpack looks at the first byte of a string that is not there.
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "bad header block") from error
        # With ``raw``, hpack's tuples are of bytes; its types do not say so.
        fields = cast("list[Field]", decoded)
        meaning = judge(fields) or self._digest(fields)
        # Entries come in at the front, as tuples of their own, and leave at the back: if neither
        # the first one nor their number is another, the table is as it was.
        if len(entries) != count or (entries and entries[0] is not first):
            self.memo.clear()
        elif len(block) <= MEMO_BLOCK_BYTES_MAX:
            if len(self.memo) >= MEMO_BLOCKS_MAX:
                self.memo.clear()
            self.memo[block] = meaning
        return meaning

"""The unit on disk: one batch is one write and one sync, and counts whole or not at all.

A batch begins at a sector's start, so that no sector that was ever synced is written again, and its
header lies in one sector, which a disk writes whole or not at all. All numbers are little endian::

    byte  0        4         6        8               16              24               32
          +--------+---------+--------+---------------+---------------+----------------+
          | "KWAL" | format  | flags  | segment       | batch         | segment size   |
          | magic  | u16     | u16    | number u64    | number u64    | in bytes u64   |
          +--------+---------+--------+---------------+---------------+----------------+
    byte 32                36              40                  44              48
          +----------------+---------------+-------------------+---------------+
          | payload length | CRC32C of the | header CRC of the | CRC32C of     |
          | u32, bytes     | body u32      | batch before u32  | bytes 0 to 43 |
          +----------------+---------------+-------------------+---------------+
    byte 48                48 + length     + one a mark        up to a whole sector
          +----------------+---------------+-------------------+
          | payload        | bits          | padding (0xFF)    |   the body
          +----------------+---------------+-------------------+

Flag 1 seals the segment: the next batch is the first of the next one. Later formats keep the magic,
the format and the header's CRC where they are, so that a header that checks but names another
format is a newer version's, not damage.

**Marks tell torn from corrupt.** Segments are filled with zeros before they are used, hence a
sector that a power cut kept from the disk reads as zeros. A client may store zeros too; so every
256th byte from the second sector on, as far as the payload reaches, has its top bit set, and the
bit that was there is kept behind the payload: one byte a mark, 0xFF if it was set, else 0xBF. The
bits and the padding have their top bits set by themselves. So no sector of a batch is all zero once
it is written, and none starts as a header does: a batch that fails its check although all its
sectors arrived was damaged afterwards, and a sector after the log's end that starts with a byte
below 0x80 other than zero is a later batch. Two marks a sector, because one damaged byte must not
make a sector look unwritten.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import google_crc32c
import msgspec

from wal.errors import CorruptError, FormatError
from wal.files import SECTOR_BYTES

MAGIC: Final = b"KWAL"
FORMAT: Final = 1
FLAG_SEAL: Final = 1

_HEADER: Final = struct.Struct("<4sHHQQQIII")
_CRC: Final = struct.Struct("<I")
HEADER_BYTES: Final = _HEADER.size + _CRC.size
FIRST_MARK: Final = SECTOR_BYTES - HEADER_BYTES
"""Where in the body the second sector starts."""

MARK_STRIDE: Final = 256
_ZERO_SECTOR: Final = bytes(SECTOR_BYTES)
_MARKED: Final = bytes(value | 0x80 for value in range(256))
_BIT: Final = bytes(0xFF if value & 0x80 else 0xBF for value in range(256))
_MASK: Final = bytes(0xFF if value == 0xFF else 0x7F for value in range(256))
"""What a byte of the bits takes away from its mark."""
_PADDING: Final = b"\xff" * SECTOR_BYTES
_PLAIN_STARTS: Final = bytes([0, *range(0x80, 0x100)])

_crc32c = google_crc32c.value


class Place(msgspec.Struct, frozen=True):
    """Where the next batch goes: what its header must say, and what it must follow.

    ``chain`` is the header CRC of the batch before, 0 for the very first.
    """

    segment: int
    segment_size: int
    offset: int
    batch: int
    chain: int


class Batch(msgspec.Struct, frozen=True):
    """A batch read back and checked. ``size`` is what it takes on the disk, ``crc`` its
    header's.
    """

    payload: bytes
    sealed: bool
    size: int
    crc: int


class Unwritten(msgspec.Struct, frozen=True):
    """There is no batch here. ``torn`` says that one had been begun: its header arrived, some of
    its sectors did not.
    """

    torn: bool


def mark_count(length: int) -> int:
    """Return how many marks a payload of ``length`` bytes gets."""
    return (length - FIRST_MARK + MARK_STRIDE - 1) // MARK_STRIDE if length > FIRST_MARK else 0


def batch_size(length: int) -> int:
    """Return the bytes on disk, a whole number of sectors, of a batch whose payload has ``length``
    bytes.
    """
    size = HEADER_BYTES + length + mark_count(length)
    return size + -size % SECTOR_BYTES


def encode(
    parts: Sequence[bytes], length: int, place: Place, flags: int = 0
) -> tuple[bytes, bytes, int]:
    """Frame a payload.

    Args:
        parts: The payload, in pieces.
        length: The bytes in ``parts`` together.
        place: Where it will be written.
        flags: ``FLAG_SEAL`` or 0.

    Returns: The header and the body, to be written one behind the other, and the CRC that the next
        batch chains to.
    """
    marks = mark_count(length)
    padding = -(HEADER_BYTES + length + marks) % SECTOR_BYTES
    if marks:
        # Joined once with room for the bits: a large payload is copied twice altogether, here and
        # for the CRC, which takes bytes only.
        buffer = bytearray().join(
            (
                *parts,
                _PADDING[:marks] if marks <= SECTOR_BYTES else b"\xff" * marks,
                _PADDING[:padding],
            )
        )
        plain = buffer[FIRST_MARK:length:MARK_STRIDE]
        buffer[FIRST_MARK:length:MARK_STRIDE] = plain.translate(_MARKED)
        buffer[length : length + marks] = plain.translate(_BIT)
        body = bytes(buffer)
    else:
        body = b"".join((*parts, _PADDING[:padding]))
    fields = _HEADER.pack(
        MAGIC,
        FORMAT,
        flags,
        place.segment,
        place.batch,
        place.segment_size,
        length,
        _crc32c(body),
        place.chain,
    )
    crc = _crc32c(fields)
    return fields + _CRC.pack(crc), body, crc


def decode(data: bytes, place: Place, file: str) -> Batch | Unwritten:
    """Read the batch at ``place.offset`` of a segment's bytes.

    Args:
        data: The whole segment; as long as ``place.segment_size``.
        place: Where to look, and what must be there if anything is.
        file: The segment's path, for errors.

    Returns:
        The batch, or ``Unwritten`` if it never reached the disk whole.

    Raises:
        CorruptError: Something is here that was damaged after it was written.
        FormatError: Another version wrote it.
    """
    offset = place.offset
    if data[offset : offset + 4] == b"\0\0\0\0":
        if data[offset : offset + SECTOR_BYTES] != _ZERO_SECTOR:
            raise CorruptError(
                file, offset, "a batch's magic is gone, the rest of its sector is not"
            )
        return Unwritten(torn=False)
    header = data[offset : offset + HEADER_BYTES]
    length, body_crc, crc, flags = decode_header(header, place, len(data), file)
    size = batch_size(length)
    if offset + size > len(data):
        raise CorruptError(file, offset, "a batch reaches beyond the end of its segment")
    start = offset + HEADER_BYTES
    body = data[start : offset + size]
    if _crc32c(body) != body_crc:
        for sector in range(offset + SECTOR_BYTES, offset + size, SECTOR_BYTES):
            # The first byte tells all but always; the comparison is for the one in a million that
            # does not.
            if not data[sector] and data[sector : sector + SECTOR_BYTES] == _ZERO_SECTOR:
                return Unwritten(torn=True)
        raise CorruptError(file, start, f"batch {place.batch} fails its checksum")
    return Batch(_unmark(body, length), flags == FLAG_SEAL, size, crc)


def decode_header(header: bytes, place: Place, size: int, file: str) -> tuple[int, int, int, int]:
    """Read a batch's header.

    Args:
        header: Its bytes.
        place: Where it stands, and what must be there.
        size: The segment's, in bytes.
        file: Its path, for errors.

    Returns:
        The payload's length, the body's checksum, the header's own, the flags.

    Raises:
        CorruptError: It was damaged after it was written.
        FormatError: Another version wrote it.
    """
    offset = place.offset
    magic, found, flags, segment, batch, segment_size, length, body_crc, chain = (
        _HEADER.unpack_from(header)
    )
    (crc,) = _CRC.unpack_from(header, _HEADER.size)
    if magic != MAGIC or crc != _crc32c(header[: _HEADER.size]):
        raise CorruptError(file, offset, "a batch's header fails its checksum")
    if found != FORMAT:
        raise FormatError(file, found, FORMAT)
    if segment_size != size:
        reason = f"the segment had {segment_size} bytes when this was written, and has {size} now"
        raise CorruptError(file, min(segment_size, size), reason)
    if (segment, batch, chain) != (place.segment, place.batch, place.chain):
        reason = (
            f"batch {batch} of segment {segment} stands where "
            f"batch {place.batch} of segment {place.segment} belongs"
            if (segment, batch) != (place.segment, place.batch)
            else f"batch {batch} does not follow the batch before it"
        )
        raise CorruptError(file, offset, reason)
    return length, body_crc, crc, flags


def peek_place(data: bytes) -> tuple[int, int]:
    """Return batch number and chain as a segment's first header gives them, unchecked: ``decode``
    checks it.
    """
    fields = _HEADER.unpack_from(data)
    return fields[4], fields[8]


def find_batch(data: bytes, offset: int, number: int, newer_than: int) -> Place | None:
    """Look for a batch whose header is sound.

    Args:
        data: A whole segment.
        offset: Where to begin, a sector's start.
        number: The segment's.
        newer_than: A batch with this number, or a lower one, is not meant.

    Returns:
        The place of the first; None if there is none. ``decode`` checks the batch itself.
    """
    for start in range(offset, len(data) - HEADER_BYTES, SECTOR_BYTES):
        if data[start : start + 4] != MAGIC:
            continue
        fields = _HEADER.unpack_from(data, start)
        place = Place(number, len(data), start, fields[4], fields[8])
        with suppress(CorruptError, FormatError):
            decode_header(data[start : start + HEADER_BYTES], place, len(data), "")
            if place.batch > newer_than:
                return place
    return None


def refuse_later_batches(data: bytes, offset: int, file: str) -> None:
    """Check what lies behind the log's end, at ``offset``.

    A batch is written only once the one before is synced. Remnants of the one batch that was being
    written when the power went may lie here, but the start of any later batch proves that the one
    that is missing had been there.

    Raises:
        CorruptError: A later batch is here.
    """
    starts = data[offset + SECTOR_BYTES :: SECTOR_BYTES]
    if starts.translate(None, _PLAIN_STARTS):
        sector = next(i for i, byte in enumerate(starts) if 0 < byte < 0x80)
        where = offset + (sector + 1) * SECTOR_BYTES
        reason = f"the batch at byte {offset} is missing, but this one was written after it"
        raise CorruptError(file, where, reason)


def _unmark(body: bytes, length: int) -> bytes:
    marks = mark_count(length)
    if not marks:
        return body[:length]
    buffer = bytearray(body[:length])
    marked = int.from_bytes(buffer[FIRST_MARK::MARK_STRIDE], "little")
    mask = int.from_bytes(body[length : length + marks].translate(_MASK), "little")
    buffer[FIRST_MARK::MARK_STRIDE] = (marked & mask).to_bytes(marks, "little")
    return bytes(buffer)

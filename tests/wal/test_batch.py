"""The bytes of a batch, and what is concluded from damaged ones."""

from __future__ import annotations

import struct

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wal.batch import (
    FIRST_MARK,
    FLAG_SEAL,
    HEADER_BYTES,
    MARK_STRIDE,
    Batch,
    Place,
    Unwritten,
    batch_size,
    decode,
    encode,
    refuse_later_batches,
)
from wal.errors import CorruptError, FormatError
from wal.files import SECTOR_BYTES

SEGMENT_BYTES = 16 * 1024
PLACE = Place(segment=3, segment_size=SEGMENT_BYTES, offset=1024, batch=7, chain=0xDEADBEEF)

# Values of all lengths around what marks and sectors make special, with the zeros that clients
# store.
payloads = st.one_of(
    st.binary(max_size=2000),
    st.integers(0, 4096).map(bytes),
    st.builds(
        lambda before, zeros, after: before + bytes(zeros) + after,
        st.binary(max_size=600),
        st.integers(0, 3000),
        st.binary(max_size=600),
    ),
    st.sampled_from([FIRST_MARK - 1, FIRST_MARK, FIRST_MARK + 1, FIRST_MARK + MARK_STRIDE]).map(
        lambda length: b"\x80" * length
    ),
    # What follows the payload starts just before, at, or just behind a sector's start.
    st.builds(
        lambda sectors, more: bytes(sectors * SECTOR_BYTES - HEADER_BYTES + more),
        st.integers(1, 8),
        st.integers(-20, 1),
    ),
)


def _on_disk(payload: bytes, place: Place = PLACE, flags: int = 0) -> bytearray:
    header, body, _crc = encode([payload], len(payload), place, flags)
    segment = bytearray(place.segment_size)
    segment[place.offset : place.offset + len(header) + len(body)] = header + body
    return segment


def test_golden_bytes_of_a_short_batch() -> None:
    header, body, crc = encode([b"abc", b"def"], 6, PLACE)
    fields = bytes.fromhex(
        "4b57414c"  # "KWAL"
        "0100 0000"  # format 1, no flags
        "0300000000000000"  # segment 3
        "0700000000000000"  # batch 7
        "0040000000000000"  # of 16 KiB
        "06000000"  # 6 bytes of payload
    )
    assert body == b"abcdef" + b"\xff" * (SECTOR_BYTES - HEADER_BYTES - 6)
    fields += struct.pack("<II", google_crc32c.value(body), 0xDEADBEEF)
    assert header == fields + struct.pack("<I", google_crc32c.value(fields))
    assert crc == google_crc32c.value(fields)
    assert header.hex() == (
        "4b57414c01000000030000000000000007000000000000000040000000000000"
        "0600000035fe9bc1efbeadde6bbef2e1"
    )


def test_golden_bytes_of_marks() -> None:
    # Every 256th byte from the second sector on has its top bit set, and what it was is kept behind
    # the payload.
    payload = bytes(FIRST_MARK) + b"\x01" + bytes(255) + b"\x81" + bytes(99)
    _header, body, _crc = encode([payload], len(payload), PLACE)
    marked = bytes(FIRST_MARK) + b"\x81" + bytes(255) + b"\x81" + bytes(99)
    assert body == marked + b"\xbf\xff" + b"\xff" * (512 - 356 - 2)


@given(payloads, st.sampled_from([0, FLAG_SEAL]))
def test_a_batch_reads_back(payload: bytes, flags: int) -> None:
    segment = _on_disk(payload, flags=flags)
    size = batch_size(len(payload))
    crc = encode([payload], len(payload), PLACE, flags)[2]
    assert decode(bytes(segment), PLACE, "f") == Batch(payload, flags == FLAG_SEAL, size, crc)
    assert not any(segment[PLACE.offset + size :])


@given(payloads)
def test_no_sector_of_a_batch_is_zero_and_none_but_the_first_starts_as_a_header(
    payload: bytes,
) -> None:
    segment = _on_disk(payload)
    end = PLACE.offset + batch_size(len(payload))
    for start in range(PLACE.offset + SECTOR_BYTES, end, SECTOR_BYTES):
        # Two marks: one damaged byte must not make a sector look as if it had never been written.
        assert segment[start] >= 0x80
        assert segment[start + MARK_STRIDE] >= 0x80


@given(payloads, st.data())
def test_a_lost_sector_is_torn_and_any_other_damage_is_corruption(
    payload: bytes, data: st.DataObject
) -> None:
    segment = _on_disk(payload)
    sectors = batch_size(len(payload)) // SECTOR_BYTES
    sector = data.draw(st.integers(0, sectors - 1))
    start = PLACE.offset + sector * SECTOR_BYTES
    if data.draw(st.booleans()):
        segment[start : start + SECTOR_BYTES] = bytes(SECTOR_BYTES)
        assert decode(bytes(segment), PLACE, "f") == Unwritten(torn=sector > 0)
    else:
        segment[start + data.draw(st.integers(0, SECTOR_BYTES - 1))] ^= data.draw(
            st.integers(1, 255)
        )
        with pytest.raises(CorruptError) as caught:
            decode(bytes(segment), PLACE, "f")
        assert caught.value.file == "f"
        assert PLACE.offset <= caught.value.offset < PLACE.offset + sectors * SECTOR_BYTES
        assert caught.value.remedy in str(caught.value)


@pytest.mark.parametrize(
    "other",
    [
        Place(4, SEGMENT_BYTES, 1024, 7, 0xDEADBEEF),
        Place(3, SEGMENT_BYTES, 1024, 8, 0xDEADBEEF),
        Place(3, SEGMENT_BYTES, 1024, 7, 0xDEADBEE0),
    ],
    ids=["segment", "batch", "chain"],
)
def test_a_batch_of_another_place_is_corruption(other: Place) -> None:
    with pytest.raises(CorruptError):
        decode(bytes(_on_disk(b"payload")), other, "f")


def test_a_segment_that_lost_its_end_is_corruption() -> None:
    segment = _on_disk(b"payload")
    del segment[-SECTOR_BYTES:]
    with pytest.raises(CorruptError, match="had 16384 bytes"):
        decode(bytes(segment), PLACE, "f")


def test_a_newer_format_is_refused_as_such_and_a_damaged_one_as_damage() -> None:
    segment = _on_disk(b"payload")
    segment[PLACE.offset + 4] = 2
    with pytest.raises(CorruptError):
        decode(bytes(segment), PLACE, "f")
    fields = bytes(segment[PLACE.offset : PLACE.offset + HEADER_BYTES - 4])
    struct.pack_into("<I", segment, PLACE.offset + HEADER_BYTES - 4, google_crc32c.value(fields))
    with pytest.raises(FormatError) as caught:
        decode(bytes(segment), PLACE, "f")
    assert (caught.value.found, caught.value.supported) == (2, 1)


@given(payloads)
def test_remnants_of_a_torn_batch_pass_and_a_later_batch_does_not(payload: bytes) -> None:
    torn = _on_disk(payload)
    torn[PLACE.offset : PLACE.offset + SECTOR_BYTES] = bytes(SECTOR_BYTES)
    refuse_later_batches(bytes(torn), PLACE.offset, "f")
    after = PLACE.offset + batch_size(len(payload))
    later = Place(PLACE.segment, SEGMENT_BYTES, after, PLACE.batch + 1, 0)
    torn[after:] = _on_disk(b"later", later)[after:]
    with pytest.raises(CorruptError) as caught:
        refuse_later_batches(bytes(torn), PLACE.offset, "f")
    assert caught.value.offset == after

"""Header blocks, held against hpack's own decoder: what is read here is what it would read."""

import hypothesis.strategies as st
import pytest
from hpack import Decoder, Encoder, HPACKError
from hypothesis import given

from kvstore.api.grpc.frames import ConnectionFault, ErrorCode
from kvstore.api.grpc.header_blocks import HeaderBlocks, Odd
from tests.kvstore.api.grpc.raw import REQUEST

FIELDS = st.lists(
    st.tuples(
        st.sampled_from(
            [b"grpc-timeout", b"user-agent", b"te", b"x", b"authorization", b"y" * 300]
        ),
        st.sampled_from([b"trailers", b"1S", b"4999u", b"", b"z" * 126, b"z" * 127, b"w" * 5000]),
        st.booleans(),
    ),
    max_size=6,
)


@given(st.lists(st.tuples(FIELDS, st.booleans(), st.sampled_from([None, 0, 100, 4096]))))
def test_blocks_of_an_encoder_are_read_as_hpack_reads_them(blocks):
    encoder, decoder = Encoder(), Decoder()
    ours = HeaderBlocks(list)
    for fields, huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode([*REQUEST, *fields], huffman=huffman)
        expected = [tuple(field) for field in decoder.decode(block, raw=True)]
        found = ours.memo.get(block) or ours.read(block)
        malformed = any(name == b"te" and value != b"trailers" for name, value in expected)
        assert found == (Odd.MALFORMED if malformed else expected)
        assert list(ours._entries) == list(decoder.header_table.dynamic_entries)


@given(st.lists(st.binary(max_size=30), max_size=4))
def test_any_bytes_are_read_as_hpack_reads_them_or_refused(blocks):
    decoder = Decoder()
    encoder = Encoder()
    ours = HeaderBlocks(list)
    first = encoder.encode(REQUEST)
    decoder.decode(first)
    ours.read(first)
    for block in blocks:
        try:
            decoder.decode(block, raw=True)
            is_good = True
        except (HPACKError, IndexError):
            is_good = False
        try:
            if block not in ours.memo:
                ours.read(block)
        except ConnectionFault:
            assert not is_good
            return
        assert is_good
        assert list(ours._entries) == list(decoder.header_table.dynamic_entries)


def test_a_size_update_counts_each_time_it_comes():
    """A block with one leaves an empty table as it is, and still is no block to remember."""
    base, smallest, usual = b"\x83\x86\x84", b"\x20", b"\x3f\xe1\x1f"
    decoder, ours = Decoder(), HeaderBlocks(list)
    added = base + b"\x40\x03x-a\x011"
    for block in (usual + base, smallest + base, usual + base, added, base + b"\xbe"):
        expected = [tuple(field) for field in decoder.decode(block, raw=True)]
        assert (ours.memo.get(block) or ours.read(block)) == expected


@pytest.mark.parametrize(
    ("length", "is_sound"), [(b"0", True), (b"12", True), (b"", False), (b"+1", False)]
)
def test_a_content_length_is_a_number_or_the_request_is_malformed(length, is_sound):
    block = Encoder().encode([*REQUEST, (b"content-length", length)])
    assert (HeaderBlocks(list).read(block) is not Odd.MALFORMED) == is_sound


def test_a_size_update_behind_a_field_is_refused():
    with pytest.raises(ConnectionFault) as raised:
        HeaderBlocks(list).read(b"\x83\x20")
    assert raised.value.code is ErrorCode.COMPRESSION_ERROR


@pytest.mark.parametrize("block", [b"\x44", b"\x44\x05abcd", b"\x44\x81\x00", b"\xc0", b"\x7e\1x"])
def test_a_field_that_is_not_all_there_is_refused(block):
    with pytest.raises(ConnectionFault) as raised:
        HeaderBlocks(list).read(block)
    assert raised.value.code is ErrorCode.COMPRESSION_ERROR


def test_fields_of_both_kinds_count_as_one_list():
    blocks = HeaderBlocks(list, list_bytes_max=200)
    # 42 for the method, then 33 for each of the others.
    blocks.read(b"\x83" + b"\0\1x\0" * 4)
    with pytest.raises(ConnectionFault) as raised:
        blocks.read(b"\x83" + b"\0\1x\0" * 5)
    assert raised.value.code is ErrorCode.ENHANCE_YOUR_CALM

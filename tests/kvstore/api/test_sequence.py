"""A body of many objects is cut in the same places, whatever pieces it comes in."""

import json

from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.v3_json.sequence import JsonSequence

OBJECTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.text(alphabet='{}[]"\\,: aé', max_size=5) | st.integers(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
        max_leaves=4,
    ),
    max_size=3,
)


@given(st.lists(OBJECTS, max_size=4), st.sampled_from([" ", "", "\n", "\r\n\t"]), st.data())
def test_objects_come_out_whole_however_the_body_is_cut(objects, between, data):
    body = between.join(json.dumps(item, ensure_ascii=False) for item in objects).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    sequence = JsonSequence(10_000)
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        found += sequence.feed(body[start:end])
    assert [json.loads(text) for text in found] == objects
    assert not sequence.is_broken


def test_anything_but_objects_ends_the_sequence_after_what_was_good():
    for garbage in (b"null", b"[1]", b"5", b'"x"', b",", b"}"):
        sequence = JsonSequence(100)
        assert sequence.feed(b'{"a":1}' + garbage + b'{"b":2}') == [b'{"a":1}']
        assert sequence.is_broken
        assert sequence.feed(b'{"c":3}') == []


def test_an_object_may_be_so_long_and_no_longer():
    sequence = JsonSequence(10)
    assert sequence.feed(b'{"a":1234') == []
    assert sequence.feed(b"}") == [b'{"a":1234}']
    assert sequence.feed(b'{"a":12345') == []
    assert not sequence.is_broken
    assert sequence.feed(b"6") == []
    assert sequence.is_broken


def test_a_byte_at_a_time_costs_a_look_at_each_byte_once():
    sequence = JsonSequence(1 << 20)
    body = b'{"key":"' + b"x" * 50_000 + b'"}'
    found = []
    for at in range(len(body)):
        found += sequence.feed(body[at : at + 1])
    assert found == [body]

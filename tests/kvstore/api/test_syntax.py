"""The words for broken JSON are those of Go's encoding/json, which callers of etcd match on."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.v3_json.syntax import TRUNCATED, explain


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "invalid character 'x' looking for beginning of value"),
        ("é", "invalid character 'Ã' looking for beginning of value"),
        ("٣", "invalid character 'Ù' looking for beginning of value"),
        ("'a'", "invalid character '\\'' looking for beginning of value"),
        ("NaN", "invalid character 'N' looking for beginning of value"),
        ("\x01", "invalid character '\\x01' looking for beginning of value"),
        ("{", TRUNCATED),
        ('{"a"', TRUNCATED),
        ('{"a":', TRUNCATED),
        ('{"a":tr', TRUNCATED),
        ('{"a":-', TRUNCATED),
        ('{"a":"\\u00', TRUNCATED),
        ("[1,2", TRUNCATED),
        ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
        ('{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        ('["\n"]', "invalid character '\\n' in string literal"),
        ('["\\x"]', "invalid character 'x' in string escape code"),
        ('["\\u12g4"]', "invalid character 'g' in \\u hexadecimal character escape"),
        ("[trux]", "invalid character 'x' in literal true (expecting 'e')"),
        ("[-a]", "invalid character 'a' in numeric literal"),
        ("[1.]", "invalid character ']' after decimal point in numeric literal"),
        ("[1e+]", "invalid character ']' in exponent of numeric literal"),
        ("[01]", "invalid character '1' after array element"),
    ],
)
def test_the_first_fault_is_named(text, words):
    assert explain(text) == words


def test_any_depth_is_scanned_without_recursion():
    assert explain("[" * 100_000) == TRUNCATED


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(VALUES.map(json.dumps), st.data())
def test_cut_short_is_unexpected_end_or_still_whole(text, data):
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    try:
        json.loads(cut)
    except ValueError:
        assert explain(cut) == TRUNCATED


@given(st.text('{}[]",:\\ue+-.019truefalsnl \n', max_size=20))
def test_scan_and_parser_agree_on_what_is_json(text):
    text = "[" + text
    try:
        json.JSONDecoder(parse_constant=int).raw_decode(text)
        parses = True
    except ValueError:
        parses = False
    assert (explain(text) == "invalid JSON") == parses

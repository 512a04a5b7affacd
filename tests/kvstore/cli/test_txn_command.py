"""Transactions typed line by line."""

from __future__ import annotations

import io
import sys

import click
import pytest

from kvstore.cli.txn import compare_of, request_of
from kvstore.types import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseOp,
    SortOrder,
    SortTarget,
    TxnResponse,
)

TYPED = """mod("k") > "0"
value("k") = "a\\n\\x00\\"b"

put k new
get --prefix k

del k
"""


def test_three_parts_are_read_and_sent_at_once(fake, run, monkeypatch):
    pair = KeyValue(b"k", 1, 1, 1, b"v", 0)
    fake.answers["txn"] = TxnResponse(
        succeeded=True,
        responses=[
            ResponseOp(response_put=PutResponse(prev_kv=pair)),
            ResponseOp(response_range=RangeResponse(kvs=[pair])),
            ResponseOp(response_delete_range=DeleteRangeResponse(deleted=1, prev_kvs=[pair])),
        ],
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO(TYPED))
    assert run("txn") == (0, b"SUCCESS\n\nOK\nk\nv\n\nk\nv\n\n1\nk\nv\n", "")
    compare, success, failure = fake.calls[-1][1]
    assert compare == [
        Compare(CompareResult.GREATER, CompareTarget.MOD, b"k", mod_revision=0),
        Compare(CompareResult.EQUAL, CompareTarget.VALUE, b"k", value=b'a\n\0"b'),
    ]
    assert success == [
        RequestOp(request_put=PutRequest(b"k", b"new")),
        RequestOp(request_range=RangeRequest(b"k", b"l")),
    ]
    assert failure == [RequestOp(request_delete_range=DeleteRangeRequest(b"k"))]


def test_the_parts_are_asked_for_on_request(fake, run, monkeypatch):
    fake.answers["txn"] = TxnResponse()
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n\n"))
    assert run("txn", "-i")[1] == (
        b"compares:\nsuccess requests (get, put, del):\nfailure requests (get, put, del):\n"
        b"FAILURE\n"
    )
    assert fake.calls[-1][1] == ([], [], [])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('ver("k") != "2"', Compare(CompareResult.NOT_EQUAL, CompareTarget.VERSION, b"k", 2)),
        (
            'create ( "k" ) < 3',
            Compare(CompareResult.LESS, CompareTarget.CREATE, b"k", create_revision=3),
        ),
        ('lease("k") = "4d"', Compare(CompareResult.EQUAL, CompareTarget.LEASE, b"k", lease=0x4D)),
        ('val("k") = "\\101\\\\é"', Compare(CompareResult.EQUAL, CompareTarget.VALUE, b"k",
                                            value="A\\é".encode())),
    ],
)  # fmt: skip
def test_comparisons(line, expected):
    assert compare_of(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('put "a key" "a value" --lease=4d', PutRequest(b"a key", b"a value", 0x4D)),
        ("put k --ignore-value", PutRequest(b"k", ignore_value=True)),
        ("del --from-key k --prev-kv", DeleteRangeRequest(b"k", b"\0", True)),
        (
            "get k z --rev=4 --limit 2 --order descend --sort-by create --consistency s",
            RangeRequest(b"k", b"z", 2, 4, SortOrder.DESCEND, SortTarget.CREATE, serializable=True),
        ),
    ],
)
def test_requests(line, expected):
    found = request_of(line)
    assert expected in (found.request_put, found.request_range, found.request_delete_range)


@pytest.mark.parametrize(
    "line", ["mod(k) > 0", 'mod("k") >= "0"', 'size("k") = "1"', 'mod("k") = "x"', ""]
)
def test_a_line_that_compares_nothing_is_named(line):
    with pytest.raises(click.UsageError):
        compare_of(line)


@pytest.mark.parametrize(
    "line", ["", "txn", "put k", "get", 'put "k', "del k l --prefix", "get k --nonsense"]
)
def test_a_line_that_is_no_request_is_named(line):
    with pytest.raises(click.UsageError):
        request_of(line)

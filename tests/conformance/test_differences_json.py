"""The rows about JSON: what newer gateways take, and what they refuse."""

from __future__ import annotations

import pytest

from tests.conformance.answers import Answer
from tests.conformance.calls import Call
from tests.conformance.servers import Server

pytestmark = pytest.mark.e2e


def sent(server: Server, path: str, raw: bytes) -> Answer:
    """The answer to a body as it is."""
    server.send(Call("/v3" + path, raw=raw))
    return server.receive()


def is_refused(answer: Answer) -> bool:
    """As malformed."""
    return answer.status == 400 and answer.body["code"] == 3


def test_syntax_errors_have_other_words(ours: Server) -> None:
    answer = sent(ours, "/kv/range", b'{"key":7}')
    assert is_refused(answer)
    assert "key" in answer.body["message"]
    assert answer.body["error"] == answer.body["message"]


def test_a_field_given_twice_is_refused(ours: Server) -> None:
    assert is_refused(sent(ours, "/kv/put", b'{"key":"YQ==","key":"Yg=="}'))
    assert is_refused(sent(ours, "/kv/put", b'{"key":"YQ==","prev_kv":true,"prevKv":true}'))


def test_two_members_of_a_oneof_are_refused(ours: Server) -> None:
    both = b'{"request_range":{"key":"YQ=="},"request_put":{"key":"YQ=="}}'
    assert is_refused(sent(ours, "/kv/txn", b'{"success":[%b]}' % both))


def test_null_in_a_list_is_refused(ours: Server) -> None:
    assert is_refused(sent(ours, "/kv/txn", b'{"success":[null]}'))


def test_null_is_no_message(ours: Server) -> None:
    assert is_refused(sent(ours, "/maintenance/status", b"null"))


def test_an_unknown_enum_name_is_its_default(ours: Server) -> None:
    assert sent(ours, "/kv/range", b'{"key":"YQ==","sort_order":"SIDEWAYS"}').status == 200


def test_base64_is_taken_in_all_forms(ours: Server) -> None:
    assert sent(ours, "/kv/put", b'{"key":"-_8","value":"YQ"}').status == 200
    found = sent(ours, "/kv/range", b'{"key":"+/8="}').body["kvs"]
    assert found[0]["key"] == "+/8="
    assert found[0]["value"] == "YQ=="

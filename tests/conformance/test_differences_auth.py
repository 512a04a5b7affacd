"""The rows about users and permissions."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.conformance.answers import Answer
from tests.conformance.calls import Call
from tests.conformance.servers import Server

pytestmark = pytest.mark.e2e

DENIED: Final = "etcdserver: permission denied"
NOBODY: Final = "etcdserver: user name is empty"


def asked(server: Server, path: str, body: Any = None, **more: Any) -> Answer:
    """The answer to one call."""
    server.send(Call("/v3" + path, {} if body is None else body, **more))
    return server.receive()


def words(answer: Answer) -> str:
    """Of an error, a stream's too; none for a success."""
    error = answer.body.get("error", "")
    return error["message"] if isinstance(error, dict) else error


@pytest.fixture
def guarded(ours: Server) -> Server:
    """Authentication is on: root, and ann who may read and write keys from a up to c.

    Key b and lease 5 with key x are there.
    """
    ours.ask("/v3/lease/grant", {"TTL": 100, "ID": 5})
    ours.ask("/v3/kv/put", {"key": b"b", "value": b"v"})
    ours.ask("/v3/kv/put", {"key": b"x", "value": b"secret", "lease": 5})
    both = {"permType": "READWRITE", "key": b"a", "range_end": b"c"}
    for path, body in (
        ("role/add", {"name": "root"}),
        ("role/add", {"name": "r"}),
        ("role/grant", {"name": "r", "perm": both}),
        ("user/add", {"name": "root", "password": "pw"}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("user/add", {"name": "ann", "password": "pw"}),
        ("user/grant", {"user": "ann", "role": "r"}),
        ("enable", {}),
    ):
        ours.ask("/v3/auth/" + path, body)
    for name in ("root", "ann"):
        login = {"name": name, "password": "pw"}
        ours.state.tokens[name] = ours.ask("/v3/auth/authenticate", login)["token"]
    return ours


def test_a_bad_token_is_nothing_while_authentication_is_off(ours: Server) -> None:
    assert asked(ours, "/kv/range", {"key": b"a"}, token="nonsense").status == 200


def test_a_bearer_prefix_is_taken(guarded: Server) -> None:
    bearer = "Bearer " + guarded.state.tokens["ann"]
    assert asked(guarded, "/kv/range", {"key": b"b"}, token=bearer).status == 200
    assert asked(guarded, "/kv/range", {"key": b"b"}, token="Bearer x").status == 401


def test_nobody_is_told_nothing(guarded: Server) -> None:
    for path, body in (
        ("/maintenance/status", {}),
        ("/maintenance/alarm", {}),
        ("/cluster/member/list", {}),
        ("/lease/timetolive", {"ID": 5}),
        ("/lease/keepalive", {"ID": 5}),
        ("/lease/leases", {}),
    ):
        assert words(asked(guarded, path, body)) == NOBODY, path
    for path, body in (
        ("/maintenance/status", {}),
        ("/maintenance/alarm", {}),
        ("/cluster/member/list", {}),
        ("/lease/timetolive", {"ID": 5}),
    ):
        assert asked(guarded, path, body, user="ann").status == 200, path


def test_leases_are_as_secret_as_their_keys(guarded: Server) -> None:
    for path, body in (
        ("/lease/timetolive", {"ID": 5, "keys": True}),
        ("/lease/keepalive", {"ID": 5}),
        ("/lease/leases", {}),
    ):
        assert words(asked(guarded, path, body, user="ann")) == DENIED, path
        assert asked(guarded, path, body, user="root").status == 200, path


def test_admin_calls_answer_with_a_code(guarded: Server) -> None:
    for path in ("/maintenance/defragment", "/maintenance/hash"):
        nobody = asked(guarded, path)
        assert (nobody.status, nobody.body["code"], words(nobody)) == (400, 3, NOBODY)
        ann = asked(guarded, path, user="ann")
        assert (ann.status, ann.body["code"], words(ann)) == (403, 7, DENIED)
        assert asked(guarded, path, user="root").status == 200


def test_compaction_and_alarms_are_for_root(guarded: Server) -> None:
    member = guarded.member_id
    for path, body in (
        ("/kv/compaction", {"revision": 2}),
        ("/maintenance/alarm", {"action": "ACTIVATE", "memberID": member, "alarm": "NOSPACE"}),
        ("/maintenance/transfer-leadership", {"targetID": member}),
    ):
        assert words(asked(guarded, path, body, user="ann")) == DENIED, path
        assert words(asked(guarded, path, body)) == NOBODY, path


def test_granting_and_ending_leases_needs_a_user(guarded: Server) -> None:
    assert words(asked(guarded, "/lease/grant", {"TTL": 100, "ID": 6})) == NOBODY
    assert asked(guarded, "/lease/grant", {"TTL": 100, "ID": 6}, user="ann").status == 200
    assert words(asked(guarded, "/lease/revoke", {"ID": 6})) == NOBODY
    assert words(asked(guarded, "/lease/revoke", {"ID": 5}, user="ann")) == DENIED
    assert asked(guarded, "/lease/revoke", {"ID": 6}, user="ann").status == 200


def test_nested_operations_are_looked_at(guarded: Server) -> None:
    for inner in (
        {"request_range": {"key": b"x"}},
        {"request_put": {"key": b"x", "value": b"w"}},
        {"request_delete_range": {"key": b"x"}},
    ):
        for branch in ("success", "failure"):
            nested = {"success": [{"request_txn": {branch: [inner]}}]}
            assert words(asked(guarded, "/kv/txn", nested, user="ann")) == DENIED
    compare: Any = {"compare": [{"key": b"x", "target": "VALUE", "value": b"secret"}]}
    comparing = {"success": [{"request_txn": compare}]}
    assert words(asked(guarded, "/kv/txn", comparing, user="ann")) == DENIED


def test_puts_in_a_transaction_are_looked_at_whole(guarded: Server) -> None:
    write = {"permType": "WRITE", "key": b"w"}
    guarded.ask("/v3/auth/role/grant", {"name": "r", "perm": write}, user="root")
    for put in ({"key": b"b", "lease": 5}, {"key": b"w", "prev_kv": True}):
        txn = {"success": [{"request_put": put}]}
        assert words(asked(guarded, "/kv/txn", txn, user="ann")) == DENIED, put
    txn = {"success": [{"request_put": {"key": b"w"}}, {"request_put": {"key": b"b"}}]}
    assert asked(guarded, "/kv/txn", txn, user="ann").status == 200


def test_a_watch_to_the_end_needs_all_of_it(guarded: Server) -> None:
    creation = {"create_request": {"key": b"a", "range_end": b"\0", "start_revision": 1}}
    stream = guarded.open(Call("/v3/watch", creation, user="ann"))
    stream.wait(5.0)
    result = stream.lines[0]["result"]
    assert result["canceled"]
    assert result["cancel_reason"].endswith(DENIED)


def test_role_root_shows_everything(guarded: Server) -> None:
    shown = asked(guarded, "/auth/role/get", {"role": "root"}, user="root").body["perm"]
    assert shown == [{"permType": "READWRITE", "range_end": "AA=="}]


def test_permissions_that_are_none_are_refused(guarded: Server) -> None:
    none = asked(guarded, "/auth/role/grant", {"name": "r"}, user="root")
    assert words(none) == "etcdserver: permission not given"
    for perm in ({"key": b"", "range_end": b"c"}, {"key": b"c", "range_end": b"a"}):
        bad = asked(guarded, "/auth/role/grant", {"name": "r", "perm": perm}, user="root")
        assert words(bad) == "etcdserver: invalid auth management", perm


def test_long_passwords_are_refused(ours: Server) -> None:
    added = asked(ours, "/auth/user/add", {"name": "bob", "password": "p" * 73})
    assert (added.status, words(added)) == (500, "bcrypt: password length exceeds 72 bytes")
    assert asked(ours, "/auth/user/add", {"name": "bob", "password": "p" * 72}).status == 200

"""A test a row of the table of differences: ours gives the newer answer."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from tests.conformance import test_differences_auth, test_differences_json
from tests.conformance.answers import Answer
from tests.conformance.calls import Call, Revision
from tests.conformance.differences import LEFT_OUT, TABLE
from tests.conformance.servers import Server
from tests.e2e.cluster import HOST

pytestmark = pytest.mark.e2e


def test_every_row_has_its_test() -> None:
    tests = {
        name.removeprefix("test_")
        for module in (globals(), vars(test_differences_json), vars(test_differences_auth))
        for name in module
        if name.startswith("test_")
    }
    assert {row.name for row in TABLE} | set(LEFT_OUT) <= tests
    assert len({row.name for row in TABLE} | set(LEFT_OUT)) == len(TABLE) + len(LEFT_OUT)


def asked(server: Server, path: str, body: Any = None, **more: Any) -> Answer:
    """The answer to one call."""
    server.send(Call("/v3" + path, {} if body is None else body, **more))
    answer = server.receive()
    if isinstance(answer.body, dict):
        header = answer.body.get("header") or {}
        server.state.revision = int(header.get("revision", server.state.revision))
    return answer


def get(server: Server, path: str) -> Answer:
    """The answer to a GET."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Answer(response.status, json.loads(response.read()))
    finally:
        connection.close()


def test_failed_precondition_is_400(ours: Server) -> None:
    assert asked(ours, "/lease/grant", {"TTL": 100, "ID": 1}).status == 200
    again = asked(ours, "/lease/grant", {"TTL": 100, "ID": 1})
    assert (again.status, again.body["code"]) == (400, 9)


def test_alarm_has_a_header(ours: Server) -> None:
    header = asked(ours, "/maintenance/alarm").body["header"]
    assert header["revision"] == str(ours.state.base)
    assert header["member_id"] == ours.member_id


def test_status_tells_more(ours: Server) -> None:
    status = asked(ours, "/maintenance/status").body
    assert status["storageVersion"].startswith("3.")
    assert int(status["dbSizeQuota"]) > 0
    assert status["downgradeInfo"] == {}


def test_an_unknown_path_is_answered_in_json(ours: Server) -> None:
    answer = asked(ours, "/kv/nothing")
    assert (answer.status, answer.content_type) == (404, "application/json")
    assert (answer.body["code"], answer.body["message"]) == (5, "Not Found")


def test_keys_only_drops_the_lease(ours: Server) -> None:
    asked(ours, "/lease/grant", {"TTL": 100, "ID": 5})
    asked(ours, "/kv/put", {"key": b"k", "value": b"v", "lease": 5})
    (bare,) = asked(ours, "/kv/range", {"key": b"k", "keys_only": True}).body["kvs"]
    assert "lease" not in bare
    assert "value" not in bare
    by_value = {"key": b"k", "keys_only": True, "sort_target": "VALUE"}
    (kept,) = asked(ours, "/kv/range", by_value).body["kvs"]
    assert kept["lease"] == "5"
    assert "value" not in kept


def test_a_transaction_tells_its_first_error(ours: Server) -> None:
    ranges = {"request_range": {"key": b"k", "revision": Revision(5)}}
    puts = {"request_put": {"key": b"k", "lease": 404}}
    assert asked(ours, "/kv/txn", {"success": [ranges, puts]}).body["code"] == 11
    assert asked(ours, "/kv/txn", {"success": [puts, ranges]}).body["code"] == 5


def test_a_deletion_at_the_compacted_revision_is_kept(ours: Server) -> None:
    asked(ours, "/kv/put", {"key": b"k"})
    asked(ours, "/kv/deleterange", {"key": b"k"})
    asked(ours, "/kv/compaction", {"revision": Revision(0), "physical": True})
    stream = ours.open(
        Call("/v3/watch", {"create_request": {"key": b"k", "start_revision": Revision(0)}})
    )
    while not any("events" in line["result"] for line in stream.lines):
        assert stream.wait(5.0) or stream.lines, "no event came"
    (event,) = stream.lines[-1]["result"]["events"]
    assert event["type"] == "DELETE"
    assert event["kv"]["mod_revision"] == str(ours.state.revision)


def test_an_unknown_order_is_refused(ours: Server) -> None:
    for body in ({"sort_order": 7}, {"sort_target": 9}, {"sort_order": 1, "sort_target": 9}):
        answer = asked(ours, "/kv/range", {"key": b"k", **body})
        assert (answer.status, answer.body["code"]) == (400, 3)
        assert answer.body["message"] == "etcdserver: invalid sort option"


def test_a_watch_from_a_negative_revision_is_refused(ours: Server) -> None:
    stream = ours.open(Call("/v3/watch", {"create_request": {"key": b"k", "start_revision": -1}}))
    stream.wait(5.0)
    result = stream.lines[0]["result"]
    assert result["created"]
    assert result["canceled"]
    assert result["watch_id"] == "-1"
    assert result["cancel_reason"] == "etcdserver: mvcc: required revision has been compacted"


def test_a_stream_of_nonsense_is_silent(ours: Server) -> None:
    stream = ours.open(Call("/v3/watch", raw=b"nonsense"))
    stream.wait(0.3)
    assert not stream.lines
    assert not stream.ended


def test_another_method_is_unimplemented(ours: Server) -> None:
    answer = get(ours, "/v3/kv/range")
    assert (answer.status, answer.body["code"]) == (501, 12)
    assert answer.body["message"] == "Method Not Allowed"


def test_newer_paths_are_served(ours: Server) -> None:
    hashed = asked(ours, "/maintenance/hashkv").body
    assert hashed["hash_revision"] == str(ours.state.base)
    assert "authRevision" in asked(ours, "/auth/status").body
    refused = asked(ours, "/maintenance/downgrade", {"action": "VALIDATE", "version": "x"})
    assert refused.body["message"] == "etcdserver: wrong downgrade target version format"


def test_health_gives_a_reason_and_version_the_storage(ours: Server) -> None:
    assert get(ours, "/health").body == {"health": "true", "reason": ""}
    assert set(get(ours, "/version").body) == {"etcdserver", "etcdcluster", "storage"}


def test_urls_that_are_none_are_refused(ours: Server) -> None:
    update = {"ID": ours.member_id, "peerURLs": ["bad"]}
    assert asked(ours, "/cluster/member/update", update).body["code"] == 3
    assert asked(ours, "/maintenance/status").status == 200


def test_activating_no_alarm_does_nothing(ours: Server) -> None:
    answer = asked(ours, "/maintenance/alarm", {"action": "ACTIVATE", "alarm": "NONE"})
    assert answer.status == 200
    assert "alarms" not in asked(ours, "/maintenance/alarm").body

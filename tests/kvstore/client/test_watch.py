"""A watch delivers each event once, in order, whatever becomes of its streams."""

from __future__ import annotations

import json
import threading

import pytest

from kvstore.client import Client, WatchCanceledError
from kvstore.errors import Code, ErrorKind, KvError

A = "http://a:1"
B = "http://b:1"


def created(revision: int) -> str:
    return json.dumps({"result": {"header": {"revision": str(revision)}, "created": True}})


def event(revision: int, header_revision: int | None = None) -> str:
    kv = {"key": "aw==", "mod_revision": str(revision), "value": "dg=="}
    header = {"revision": str(header_revision or revision)}
    return json.dumps({"result": {"header": header, "events": [{"kv": kv}]}})


def start_revisions(script):
    return [
        json.loads(body)["create_request"].get("start_revision") for _, _, body in script.requests
    ]


@pytest.fixture
def client(script):
    with Client([A, B], timeout=5) as found:
        yield found


def revisions(watch, count):
    found = []
    for response in watch:
        found += [each.kv.mod_revision for each in response.events]
        if len(found) >= count:
            return found
    raise AssertionError("the watch ended")


def test_a_lost_stream_goes_on_elsewhere_after_the_last_event(client, script, stream):
    script.on(A, stream(created(4), event(5), event(6)))
    script.on(B, stream(created(9), event(7, 9), event(9)), script.silence)
    with client.watch(b"k") as watch:
        assert revisions(watch, 4) == [5, 6, 7, 9]
        assert watch.next_revision == 10
    assert start_revisions(script) == [None, 7]


def test_catching_up_the_headers_revision_is_not_what_was_delivered(client, script, stream):
    script.on(A, stream(created(50), event(5, 50)))
    script.on(B, stream(created(50), event(6, 50)), script.silence)
    with client.watch(b"k", start_revision=2) as watch:
        assert revisions(watch, 2) == [5, 6]
    assert start_revisions(script) == [2, 6]


def test_progress_moves_the_place_where_it_goes_on(client, script, stream):
    progress = json.dumps({"result": {"header": {"revision": "40"}}})
    script.on(A, stream(created(4), progress))
    script.on(B, stream(created(40), event(41)), script.silence)
    with client.watch(b"k", progress_notify=True) as watch:
        assert revisions(watch, 1) == [41]
    assert start_revisions(script) == [None, 41]


def test_nothing_written_after_creation_is_missed(client, script, stream):
    script.on(A, stream(created(4)))
    script.on(B, stream(created(6), event(5, 6)), script.silence)
    with client.watch(b"k") as watch:
        assert revisions(watch, 1) == [5]
    assert start_revisions(script) == [None, 5]


def test_a_silent_stream_is_opened_anew(client, script, stream):
    script.on(A, stream(created(4)), script.silence)
    script.on(B, stream(created(4), event(5)), script.silence)
    with client.watch(b"k", idle_seconds=0.05) as watch:
        assert revisions(watch, 1) == [5]


def test_a_member_that_stops_or_is_paused_is_left(client, script, stream, http_answer):
    line = json.dumps({"error": {"code": 14, "message": ErrorKind.NO_LEADER.message}})
    body = json.dumps({"code": 14, "message": ErrorKind.STOPPED.message})
    script.on(A, stream(created(4), line))
    script.on(B, http_answer(body, 503))
    script.on(A, stream(created(5), event(5)), script.silence)
    with client.watch(b"k") as watch:
        assert revisions(watch, 1) == [5]
    assert [url for url, _, _ in script.requests] == [A, B, A]


def test_a_compacted_start_is_an_error_that_says_where_to_go_on(client, script, stream):
    line = json.dumps({"result": {"canceled": True, "compact_revision": "49"}})
    script.on(A, stream(created(60), line))
    with client.watch(b"k", start_revision=1) as watch, pytest.raises(WatchCanceledError) as caught:
        revisions(watch, 1)
    assert caught.value.compact_revision == 49
    assert caught.value.code is Code.OUT_OF_RANGE


def test_a_creation_that_fails_says_why(client, script, stream):
    line = json.dumps(
        {
            "result": {
                "created": True,
                "canceled": True,
                "watch_id": "-1",
                "cancel_reason": "mvcc: watcher range is empty",
            }
        }
    )
    script.on(A, stream(line))
    with pytest.raises(WatchCanceledError, match="watcher range is empty"):
        client.watch(b"k", b"a")


def test_a_refusal_of_the_call_is_not_repeated(client, script, http_answer):
    script.on(A, http_answer('{"code":7,"message":"etcdserver: permission denied"}', 403))
    with pytest.raises(KvError, match="permission denied"):
        client.watch(b"k")


def test_close_from_another_thread_ends_the_iteration(client, script, stream):
    script.on(A, stream(created(4), event(5)), script.silence)
    watch = client.watch(b"k")
    closer = threading.Thread(target=watch.close)
    found = []
    for response in watch:
        found.append(response.events[0].kv.mod_revision)
        closer.start()
    closer.join()
    assert found == [5]


def test_no_endpoint_at_all_ends_in_time(script):
    now = [0.0]

    def pause(seconds):
        now[0] += seconds

    from kvstore.client.watch import Watch
    from kvstore.types import WatchCreateRequest

    with Client([A, B], timeout=3) as client, pytest.raises(KvError, match="no endpoint"):
        Watch(client.transport, WatchCreateRequest(key=b"k"), clock=lambda: now[0], pause=pause)
    assert now[0] <= 3.5

"""The rows of etcd's watch semantics, one by one."""

import pytest

from kvstore.types import EventType, FilterType
from kvstore.watch.limits import WatchLimits
from tests.kvstore.watch.client import Client, revision, revisions


def test_created_answers_with_the_id_and_the_current_revision():
    client = Client()
    client.put(b"a")
    client.create(b"a")
    client.create(b"a")
    first, second = client.take()
    assert (first.watch_id, first.created, first.canceled, revision(first)) == (0, True, False, 2)
    assert second.watch_id == 1
    assert client.take() == []


def test_automatic_ids_skip_those_in_use_and_given_ones_may_be_negative():
    client = Client()
    client.create(b"a", watch_id=1)
    client.create(b"a", watch_id=-5)
    client.create(b"a")
    client.create(b"a")
    assert [response.watch_id for response in client.take()] == [1, -5, 0, 2]


def test_a_duplicate_id_is_refused_and_the_stream_lives_on():
    client = Client()
    client.create(b"a", watch_id=1)
    client.create(b"b", watch_id=1)
    refused = client.take()[1]
    assert refused.watch_id == -1
    assert refused.created
    assert refused.canceled
    assert refused.cancel_reason == "mvcc: duplicate watch ID provided on the WatchStream"
    client.put(b"a")
    assert revisions(client.take()[0]) == [2]


@pytest.mark.parametrize(("key", "range_end"), [(b"b", b"a"), (b"b", b"b"), (b"b", b"a\xff")])
def test_an_empty_range_is_refused(key, range_end):
    client = Client()
    client.create(key, range_end)
    (refused,) = client.take()
    assert (refused.watch_id, refused.created, refused.canceled) == (-1, True, True)
    assert refused.cancel_reason == "mvcc: watcher range is empty"
    assert client.hub.watchers == 0


def test_a_negative_start_revision_is_refused_as_compacted():
    client = Client()
    client.create(b"a", start_revision=-1)
    (refused,) = client.take()
    assert refused.canceled
    assert refused.cancel_reason == "etcdserver: mvcc: required revision has been compacted"


def test_an_empty_key_is_the_lowest_key():
    client = Client()
    client.create(b"", b"\0")
    client.create(b"")
    client.take()
    client.put(b"\0")
    assert sorted(response.watch_id for response in client.take()) == [0, 1]
    client.put(b"z")
    assert [response.watch_id for response in client.take()] == [0]


def test_live_events_come_a_revision_a_response():
    client = Client()
    client.create(b"a", b"c")
    client.take()
    client.write((b"a", b"1"), (b"b", b"2"))
    client.put(b"a")
    two, one = client.take()
    assert (revision(two), revisions(two)) == (2, [2, 2])
    assert (revision(one), revisions(one)) == (3, [3])


def test_the_past_comes_in_few_responses_with_the_current_revision():
    client = Client()
    for _ in range(300):
        client.put(b"a")
    client.create(b"a", b"b", start_revision=2)
    responses = [response for response in client.take() if response.events]
    # The last revision of a block may go on in the next one, and waits for it.
    assert [len(response.events) for response in responses] == [255, 45]
    assert {revision(response) for response in responses} == {301}


def test_a_future_start_revision_hears_nothing_before_it():
    client = Client()
    client.create(b"a", start_revision=4, progress_notify=True)
    client.take()
    client.put(b"a")
    client.put(b"a")
    client.hub.progress_tick()
    client.ask_progress()
    assert client.take() == []
    client.put(b"a")
    assert revisions(client.take()[0]) == [4]


def test_a_start_below_the_compaction_is_created_then_cancelled_without_reason():
    client = Client()
    for _ in range(5):
        client.put(b"a")
    client.store.compact(4)
    client.create(b"a", start_revision=3)
    created, cancelled = client.take()
    assert created.created
    assert not created.canceled
    assert (cancelled.canceled, cancelled.compact_revision) == (True, 4)
    assert (cancelled.cancel_reason, revision(cancelled)) == ("", 0)
    # The id stays taken until it is cancelled.
    client.create(b"a", watch_id=7, start_revision=3)
    client.create(b"a", watch_id=7)
    assert [response.watch_id for response in client.take()] == [7, -1, 7]
    client.cancel(7)
    client.create(b"a", watch_id=7)
    assert [response.watch_id for response in client.take()] == [7, 7]


def test_a_start_at_the_compaction_is_fine_even_for_a_deletion():
    client = Client()
    client.put(b"a")
    client.write((b"a", None))
    client.put(b"b")
    client.store.compact(3)
    client.create(b"a", start_revision=3)
    client.create(b"a", b"b", start_revision=3)
    for response in client.take()[2:]:
        assert [event.type for event in response.events] == [EventType.DELETE]


def test_an_up_to_date_watcher_is_not_disturbed_by_a_compaction():
    client = Client()
    client.create(b"a")
    client.create(b"b")
    client.take()
    client.put(b"a")
    client.store.compact(2)
    assert [response.watch_id for response in client.take()] == [0]
    client.put(b"b")
    assert [response.watch_id for response in client.take()] == [1]


def test_a_slow_watcher_that_falls_behind_a_compaction_is_cancelled():
    client = Client(WatchLimits(pending_events_max=2))
    client.create(b"a")
    client.take()
    for _ in range(5):
        client.put(b"a")
    client.store.compact(6)
    *events, cancelled = client.take()
    assert [revisions(response) for response in events] == [[2], [3]]
    assert (cancelled.canceled, cancelled.compact_revision) == (True, 6)
    assert client.hub.watchers == 0
    assert client.hub.lagging == 0


def test_filters_drop_kinds_and_nothing_is_sent_if_nothing_is_left():
    client = Client()
    for filters in ([FilterType.NOPUT], [FilterType.NODELETE], [0, 1], [9]):
        client.create(b"a", filters=filters)
    client.take()
    client.put(b"a")
    assert [response.watch_id for response in client.take()] == [1, 3]
    client.write((b"a", None))
    assert [response.watch_id for response in client.take()] == [0, 3]


def test_a_deletion_carries_only_key_and_revision():
    client = Client()
    client.put(b"a")
    client.create(b"a")
    client.create(b"a", prev_kv=True)
    client.take()
    client.write((b"a", None))
    plain, full = (response.events[0] for response in client.take())
    assert plain.kv is not None
    assert (plain.kv.key, plain.kv.mod_revision, plain.kv.version) == (b"a", 3, 0)
    assert plain.prev_kv is None
    assert full.prev_kv is not None
    assert full.prev_kv.value == b"v"


def test_the_previous_state_is_absent_for_creations_and_when_compacted():
    client = Client()
    for value in (b"1", b"2", b"3"):
        client.put(b"a", value)
    client.store.compact(3)
    client.create(b"a", start_revision=3, prev_kv=True)
    client.create(b"b", prev_kv=True)
    client.put(b"b")
    events = [event for response in client.take() for event in response.events]
    previous = {event.kv.mod_revision: event.prev_kv for event in events if event.kv}
    assert previous[3] is None
    assert previous[4] is not None
    assert previous[4].value == b"2"
    assert previous[5] is None


def test_watchers_of_one_record_share_one_event():
    client = Client()
    for key, end in ((b"a", b""), (b"a", b"b"), (b"", b"\0")):
        client.create(key, end)
    client.create(b"a", b"b", prev_kv=True)
    client.create(b"a", b"c", prev_kv=True)
    client.take()
    client.put(b"a")
    events = {response.watch_id: response.events[0] for response in client.take()}
    assert events[0] is events[1] is events[2]
    assert events[3] is events[4]


def test_cancel_answers_once_and_for_unknown_ids_never():
    client = Client()
    client.create(b"a")
    client.take()
    client.put(b"a")
    client.cancel(0)
    client.cancel(0)
    client.cancel(77)
    (cancelled,) = client.take()
    assert (cancelled.watch_id, cancelled.canceled, cancelled.cancel_reason) == (0, True, "")
    assert revision(cancelled) == 2
    assert client.hub.watchers == 0


def test_progress_is_told_to_idle_watchers_that_asked():
    client = Client()
    client.create(b"a", progress_notify=True)
    client.create(b"b", progress_notify=True)
    client.create(b"c")
    client.take()
    client.put(b"b")
    client.take()
    client.hub.progress_tick()
    (idle,) = client.take()
    assert (idle.watch_id, idle.events, revision(idle)) == (0, [], 2)
    client.hub.progress_tick()
    assert [response.watch_id for response in client.take()] == [1, 0]


def test_a_progress_request_is_answered_for_all_at_once_after_their_events():
    client = Client()
    client.ask_progress()
    assert client.take() == []
    client.create(b"a")
    client.take()
    client.put(b"a")
    client.ask_progress()
    event, progress = client.take()
    assert event.events
    assert (progress.watch_id, progress.events, revision(progress)) == (-1, [], 2)


def test_a_large_response_is_split_only_for_those_who_asked():
    client = Client(WatchLimits(response_bytes_max=1000, pending_bytes_max=100_000))
    client.create(b"a", b"b", fragment=True)
    client.create(b"a", b"b")
    client.take()
    client.write(*((b"a%d" % number, bytes(300)) for number in range(7)))
    client.put(b"a0")
    pieces = []
    while client.ready:
        client.ready = 0
        pieces += client.take()
    split = [response for response in pieces if response.watch_id == 0]
    # Nothing of the next revision comes between the fragments of one.
    assert [revisions(piece) for piece in split] == [[2, 2], [2, 2], [2, 2], [2], [3]]
    assert [piece.fragment for piece in split] == [True, True, True, False, False]
    whole = [response for response in pieces if response.watch_id == 1]
    assert [(len(response.events), response.fragment) for response in whole] == [
        (7, False),
        (1, False),
    ]


def test_a_key_that_one_transaction_changed_often_comes_whole():
    client = Client(WatchLimits(block_records=2))
    store = client.store
    for _ in range(3):
        store.put(b"a", b"1", 0)
        store.delete(b"a")
    store.publish()
    client.hub.publish_range(store.revision)
    for _ in range(4):
        client.put(b"a")
    client.create(b"a", start_revision=2)
    responses = [response for response in client.take() if response.events]
    assert [revisions(response) for response in responses] == [[2] * 6 + [3, 4], [5, 6]]

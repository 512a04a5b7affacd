"""The rows of etcd's watch semantics, one by one."""

import pytest

from kvstore.budget import CountedBudget
from kvstore.errors import ErrorKind, KvError
from kvstore.types import (
    EventType,
    FilterType,
    WatchCancelRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)
from kvstore.watch.hub import TAKE_DOWN_A_PUBLISH, WatchHub
from kvstore.watch.limits import WatchLimits
from kvstore.watch.stream import WatchStream
from tests.kvstore.watch.fake_store import RealStore, Write

ALL = 1 << 30


class Client:
    """A hub on a real store, and one stream."""

    def __init__(self, limits: WatchLimits | None = None) -> None:
        self.store = RealStore()
        self.hub = WatchHub(limits)
        self.hub.rebase(self.store)
        self.ready = 0
        self.stream = self.open()

    def open(self) -> WatchStream:
        return self.hub.open_stream(self._on_ready)

    def _on_ready(self) -> None:
        self.ready += 1

    def put(self, key: bytes, value: bytes = b"v") -> None:
        self.write((key, value))

    def write(self, *writes: Write) -> None:
        records = self.store.write(writes)
        self.hub.publish(self.store.revision, records)

    def create(self, key: bytes, range_end: bytes = b"", **options: object) -> None:
        request = WatchCreateRequest(key=key, range_end=range_end, **options)  # type: ignore[arg-type]
        self.stream.request(WatchRequest(create_request=request))

    def cancel(self, watch_id: int) -> None:
        self.stream.request(WatchRequest(cancel_request=WatchCancelRequest(watch_id)))

    def ask_progress(self) -> None:
        self.stream.request(WatchRequest(progress_request=WatchProgressRequest()))

    def take(self, steps: int = ALL, bytes_max: int = ALL) -> list[WatchResponse]:
        return self.stream.take(CountedBudget(steps), bytes_max)


def revision(response: WatchResponse) -> int:
    assert response.header is not None
    return response.header.revision


def revisions(response: WatchResponse) -> list[int]:
    return [event.kv.mod_revision for event in response.events if event.kv is not None]


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


# --- bounds --------------------------------------------------------------------------------


def test_a_watcher_that_does_not_take_holds_no_more_than_its_bound():
    client = Client()
    client.create(b"a", b"b")
    client.take()
    for number in range(1000):
        client.put(b"a%d" % number)
    (watcher,) = client.stream._watchers.values()
    assert watcher.pending is not None
    assert len(watcher.pending) == client.hub.limits.pending_events_max
    assert client.hub.lagging == 1
    told = [number for response in client.take() for number in revisions(response)]
    assert told == list(range(2, 1002))
    assert client.hub.lagging == 0
    assert len(client.hub.catch_up.blocks) == 0


def test_large_pending_values_count_too():
    client = Client(WatchLimits(pending_bytes_max=1000))
    client.create(b"a")
    client.take()
    for _ in range(10):
        client.put(b"a", bytes(400))
    (watcher,) = client.stream._watchers.values()
    assert watcher.pending is not None
    assert len(watcher.pending) == 3


def test_too_many_streams_and_watchers_are_refused():
    client = Client(WatchLimits(streams_max=2, watchers_max=3, watchers_per_stream_max=2))
    for _ in range(3):
        client.create(b"a")
    assert [response.cancel_reason for response in client.take()] == [
        "",
        "",
        "kvstore: too many watchers",
    ]
    other, client.stream = client.stream, client.open()
    client.create(b"a")
    client.create(b"a")
    assert [bool(response.cancel_reason) for response in client.take()] == [False, True]
    with pytest.raises(KvError) as refused:
        client.open()
    assert refused.value == ErrorKind.TOO_MANY_REQUESTS.error()
    other.close()
    client.open()


def test_a_client_that_asks_without_taking_is_refused():
    client = Client(WatchLimits(answers_max=3))
    for _ in range(3):
        client.create(b"a")
    with pytest.raises(KvError):
        client.create(b"a")
    client.take()
    client.create(b"a")


def test_take_stops_at_bytes_and_budget_and_says_that_there_is_more():
    client = Client()
    for _ in range(5):
        client.create(b"a")
    client.take()
    client.put(b"a", bytes(1000))
    client.ready = 0
    assert len(client.take(bytes_max=1500)) == 2
    assert client.ready == 1
    for _ in range(600):
        client.put(b"b")
    client.create(b"b", b"c", start_revision=1)
    client.ready = 0
    assert len([response for response in client.take(steps=1) if response.events]) == 4
    assert client.ready == 1


def test_watchers_of_a_stream_take_turns():
    client = Client(WatchLimits(block_records=10))
    for _ in range(50):
        client.put(b"a")
    for _ in range(3):
        client.create(b"a", b"b", start_revision=2)
    order = [response.watch_id for response in client.take() if response.events]
    assert order == [0, 1, 2] * (len(order) // 3)


def test_many_watchers_hear_of_a_missed_revision_before_any_goes_on():
    client = Client()
    for number in range(200):
        client.create(b"%03d" % number)
    client.take()
    store = client.store
    records = store.write([(b"%03d" % number, b"v") for number in range(200)])
    client.hub.publish_range(store.revision)
    client.put(b"007")
    assert len(records) == 200
    seen: list[tuple[int, list[int]]] = []
    takes = 0
    while client.ready:
        client.ready = 0
        takes += 1
        seen += [(response.watch_id, revisions(response)) for response in client.take(steps=1)]
    assert takes > 200
    assert sorted(seen) == [(n, [2, 3] if n == 7 else [2]) for n in range(200)]


def test_closed_streams_are_taken_down_by_and_by_and_wake_nobody():
    client = Client()
    for _ in range(100):
        client.create(b"a")
    client.create(b"a", start_revision=1)
    client.take()
    client.stream.close()
    client.stream.close()
    client.ready = 0
    for published in range(1, 20):
        client.put(b"a")
        assert client.hub.watchers == max(101 - published * TAKE_DOWN_A_PUBLISH, 0)
    assert client.ready == 0
    assert client.hub.streams == 0
    assert client.hub.lagging == 0


def test_on_ready_fires_once_until_the_next_take():
    client = Client()
    client.create(b"a")
    client.create(b"a")
    assert client.ready == 1
    client.take()
    client.put(b"a")
    client.put(b"a")
    assert client.ready == 2
    client.take()
    client.put(b"b")
    assert client.ready == 2


def test_on_ready_fires_when_the_whole_revision_is_in_place():
    client = Client()
    client.create(b"a", b"c")
    client.take()
    taken: list[WatchResponse] = []
    client.stream.on_ready = lambda: taken.extend(client.take())
    client.write((b"a", b"1"), (b"b", b"2"))
    assert [len(response.events) for response in taken] == [2]

"""What a client may cost: every bound, and what happens when it is reached."""

import pytest

from kvstore.errors import ErrorKind, KvError
from kvstore.types import WatchResponse
from kvstore.watch.hub import TAKE_DOWN_A_PUBLISH
from kvstore.watch.limits import WatchLimits
from tests.kvstore.watch.client import Client, revisions


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


def test_reading_on_stops_at_bytes_between_revisions():
    client = Client()
    for _ in range(20):
        client.put(b"a", bytes(1000))
    client.create(b"a", b"b", start_revision=2)
    created, first = client.take(bytes_max=3000)
    assert created.created
    assert revisions(first) == [2, 3, 4]
    rest = [number for response in client.take() for number in revisions(response)]
    assert rest == list(range(5, 22))


def test_no_more_than_one_split_response_waits_at_a_time():
    client = Client(WatchLimits(response_bytes_max=1000, pending_bytes_max=100_000))
    for _ in range(5):
        client.create(b"a", b"b", fragment=True)
    client.take()
    client.write(*((b"a%d" % number, bytes(300)) for number in range(7)))
    assert [response.watch_id for response in client.take()] == [0]
    assert len(client.stream._outbox) == 3
    assert [response.watch_id for response in client.take()] == [0, 0, 0, 1]


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

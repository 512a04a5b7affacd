"""What a watcher must be told, worked out the slow way from the list of all records."""

from kvstore.budget import CountedBudget
from kvstore.types import (
    EventType,
    FilterType,
    KeyValue,
    WatchCancelRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)
from kvstore.watch.hub import WatchHub


def holds(key: bytes, range_end: bytes, candidate: bytes) -> bool:
    """Whether a range holds a key, by the definition of the API."""
    if not range_end:
        return candidate == key
    return key <= candidate and (range_end == b"\0" or candidate < range_end)


class ModelWatcher:
    """One watcher: what it was told, held against what it must be told."""

    def __init__(self, request: WatchCreateRequest, revision: int, compacted_revision: int) -> None:
        self.request = request
        self.first = request.start_revision or revision + 1
        self.compacted_at_start = compacted_revision
        self.seen: list[tuple[EventType, KeyValue]] = []
        self.in_fragment = False
        # Cancelled by the client, who may still find the answer to come; or by a compaction.
        self.cancelled = False
        self.compacted = False
        self.settled = revision if request.start_revision == 0 else self.first - 1
        self.progress = 0

    @property
    def alive(self) -> bool:
        return not self.cancelled and not self.compacted

    def wants(self, record: KeyValue) -> bool:
        request = self.request
        if not holds(request.key or b"\0", request.range_end, record.key):
            return False
        unwanted = FilterType.NOPUT if record.version else FilterType.NODELETE
        return record.mod_revision >= self.first and unwanted not in request.filters

    def owed(self, records: list[KeyValue]) -> list[tuple[EventType, KeyValue]]:
        return [
            (EventType.PUT if record.version else EventType.DELETE, record)
            for record in records
            if self.wants(record)
        ]


class ModelStream:
    """A stream of the hub with the model of each of its watchers; checks all that is taken."""

    def __init__(self, hub: WatchHub, records: list[KeyValue]) -> None:
        self.ready = 0
        self.records = records
        self.watchers: dict[int, ModelWatcher] = {}
        self.created: list[int] = []
        self.cancels: list[int] = []
        self.hub = hub
        self.stream = hub.open_stream(self._on_ready)

    def _on_ready(self) -> None:
        self.ready += 1

    def create(self, request: WatchCreateRequest) -> None:
        reader = self.hub.reader
        watcher = ModelWatcher(request, reader.revision, reader.compacted_revision)
        watch_id = len(self.watchers)
        self.watchers[watch_id] = watcher
        self.created.append(watch_id)
        self.stream.request(WatchRequest(create_request=request))

    def cancel(self, watch_id: int) -> None:
        """Cancel a watcher; only the first time there will be an answer."""
        watcher = self.watchers[watch_id]
        if not watcher.cancelled:
            watcher.cancelled = True
            self.cancels.append(watch_id)
        self.stream.request(WatchRequest(cancel_request=WatchCancelRequest(watch_id)))

    def ask_progress(self) -> None:
        self.stream.request(WatchRequest(progress_request=WatchProgressRequest()))

    def take(self, steps: int, bytes_max: int) -> list[WatchResponse]:
        self.ready = 0
        responses = self.stream.take(CountedBudget(steps), bytes_max)
        for response in responses:
            self._check(response)
        assert self.ready <= 1, "announced more than once"
        if not self.ready:
            self.check_settled()
        return responses

    def take_all(self) -> list[WatchResponse]:
        responses: list[WatchResponse] = []
        for _ in range(100_000):
            if not self.ready:
                return responses
            responses += self.take(10, 1 << 20)
        raise AssertionError("a stream never comes to rest")

    def check_settled(self) -> None:
        """Nothing is announced: every watcher must know all there is."""
        for watch_id, watcher in self.watchers.items():
            if watcher.alive:
                assert watcher.seen == watcher.owed(self.records), watch_id
                assert not watcher.in_fragment
                watcher.settled = max(watcher.settled, self.hub.reader.revision)

    def _check(self, response: WatchResponse) -> None:
        header = response.header
        assert header is not None
        assert header.revision <= self.hub.reader.revision
        if response.watch_id == -1:
            for watcher in self.watchers.values():
                self._check_progress(watcher, header.revision)
            return
        watcher = self.watchers[response.watch_id]
        if response.created:
            assert response.watch_id == self.created.pop(0)
            assert not watcher.seen
        elif response.compact_revision:
            self._check_compacted(response, watcher)
        elif response.canceled:
            assert response.watch_id == self.cancels.pop(0)
        elif response.events:
            self._check_events(response, watcher)
        else:
            assert watcher.request.progress_notify
            assert watcher.alive
            self._check_progress(watcher, header.revision)

    def _check_compacted(self, response: WatchResponse, watcher: ModelWatcher) -> None:
        assert watcher.alive
        assert response.canceled
        assert response.header is not None
        assert response.header.revision == 0
        assert response.cancel_reason == ""
        assert response.compact_revision == self.hub.reader.compacted_revision
        # Whoever was up to date when it was compacted is not disturbed.
        assert watcher.settled + 1 < response.compact_revision
        watcher.compacted = True

    def _check_events(self, response: WatchResponse, watcher: ModelWatcher) -> None:
        assert response.header is not None
        # The rest of what was begun to be sent before the cancellation may follow.
        assert watcher.alive or watcher.in_fragment or response.watch_id in self.cancels
        owed = watcher.owed(self.records)
        for event in response.events:
            assert event.kv is not None
            watcher.seen.append((event.type, event.kv))
            self._check_previous(watcher, event.kv, event.prev_kv)
            assert event.kv.mod_revision > watcher.progress, (
                "an event below the progress it was told"
            )
        count = len(watcher.seen)
        assert watcher.seen == owed[:count], "events lost, repeated or out of order"
        last = watcher.seen[-1][1].mod_revision
        assert response.header.revision >= last
        watcher.in_fragment = response.fragment
        if response.fragment:
            assert watcher.request.fragment
        else:
            assert count == len(owed) or owed[count][1].mod_revision > last, "a revision is split"

    def _check_previous(
        self, watcher: ModelWatcher, record: KeyValue, previous: KeyValue | None
    ) -> None:
        if not watcher.request.prev_kv:
            assert previous is None
            return
        expected = None
        for earlier in self.records:
            if earlier.key == record.key and earlier.mod_revision < record.mod_revision:
                expected = earlier if earlier.version else None
        if record.version == 1:
            expected = None
        forgotten = record.mod_revision - 1 < self.hub.reader.compacted_revision
        assert previous == expected or (previous is None and forgotten)

    def _check_progress(self, watcher: ModelWatcher, revision: int) -> None:
        if not watcher.alive:
            return
        told = [record for record in self.records if record.mod_revision <= revision]
        assert len(watcher.seen) >= len(watcher.owed(told)), "progress beyond what was delivered"
        watcher.progress = max(watcher.progress, revision)

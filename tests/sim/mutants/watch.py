"""Bugs of watches: events lost, twice, late, torn apart."""

from __future__ import annotations

from typing import Any

from kvstore.service.watch import ServiceWatch
from kvstore.types import WatchRequest, WatchResponse
from kvstore.watch.catch_up import CatchUp
from kvstore.watch.events import size_of
from kvstore.watch.stream import WatchStream
from kvstore.watch.watcher import Watcher
from tests.sim.mutants.planting import Made, Planting, mutant

SIZE_BYTES_MAX = 16 * 1024


@mutant(
    wrong="When a snapshot takes the place of the state, watchers that had events to take are not"
    " told what lies between.",
    source="etcd's watchable store after a restore: watchers that were synced stayed so",
    checker="watch",
    blunt="all watchers: tests/kvstore/watch/test_model.py",
)
def events_lost_when_the_state_is_replaced(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def reread(self: WatchStream, first: int, last: int) -> None:
            right(self, first, last)
            if last > first + 1:
                self._reread_left = [
                    watcher for watcher in self._reread_left if watcher.pending is None
                ]

        return reread

    planting.method(WatchStream, "reread", make)


@mutant(
    wrong="A watcher that lags, and wants what was before, is taken for synced a revision early:"
    " what is published in that moment is lost.",
    source="etcd's syncWatchers: who is moved from unsynced to synced too soon misses events",
    checker="watch",
)
def synced_a_revision_early(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def read(self: CatchUp, watcher: Watcher, bytes_max: int) -> Any:
            before = watcher.cursor
            events, size, goes_on = right(self, watcher, bytes_max)
            if watcher.synced and watcher.prev_kv and len(events) > 8 and before:
                watcher.sync(self._reader.revision + 2)
            return events, size, goes_on

        return read

    planting.method(CatchUp, "read", make)


@mutant(
    wrong="A watch that begins a little below the compacted revision begins at that one: it is not"
    " told that it misses something.",
    source="etcd's API: a watch of what was compacted is cancelled, and says so",
    checker="watch",
    blunt="in the stream itself:"
    " test_a_start_below_the_compaction_is_created_then_cancelled_without_reason",
)
def watch_skips_over_a_compaction(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def request(self: ServiceWatch, request: WatchRequest) -> None:
            create = request.create_request
            compacted = self._node.hub.reader.compacted_revision
            if create is not None and compacted - 50 < create.start_revision < compacted:
                create.start_revision = create.start_revision and compacted
            right(self, request)

        return request

    planting.method(ServiceWatch, "request", make)


@mutant(
    wrong="A response with more than three small events is cut in two, in the middle of a revision,"
    " too.",
    source="etcd's API guarantees: events of a revision come together",
    checker="watch",
    blunt="in the stream: tests/kvstore/watch/test_model.py",
)
def half_a_revision_is_delivered(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def take(self: ServiceWatch, budget: Any, bytes_max: int) -> list[WatchResponse]:
            taken: list[WatchResponse] = []
            for response in right(self, budget, bytes_max):
                events = response.events
                if len(events) < 4 or sum(map(size_of, events)) > SIZE_BYTES_MAX:
                    taken.append(response)
                    continue
                half = len(events) // 2
                header, number = response.header, response.watch_id
                taken.append(WatchResponse(header, number, events=events[:half]))
                taken.append(WatchResponse(header, number, events=events[half:]))
            return taken

        return take

    planting.method(ServiceWatch, "take", make)


@mutant(
    wrong="A watch that resumes with one revision to catch up on begins with the one after it.",
    source="a client that resumes at the last revision it has seen, plus one; and a server that"
    " takes the present one for seen",
    checker="watch",
)
def event_is_lost_at_a_reconnect(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def request(self: ServiceWatch, request: WatchRequest) -> None:
            create = request.create_request
            revision = self._node.hub.reader.revision
            if create is not None and create.start_revision == revision > 50:
                create.start_revision = 0
            right(self, request)

        return request

    planting.method(ServiceWatch, "request", make)

"""A client of a hub on a real store, for tests that go through it step by step."""

from typing import Any

from kvstore.budget import CountedBudget
from kvstore.types import (
    WatchCancelRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)
from kvstore.watch.hub import WatchHub
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

    def create(self, key: bytes, range_end: bytes = b"", **options: Any) -> None:
        request = WatchCreateRequest(key=key, range_end=range_end, **options)
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

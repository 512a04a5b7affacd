"""Clients that watch, from revisions of the past on, and go on elsewhere when a stream ends."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from kvstore.client import Client, json_codec, prefix_end
from kvstore.client.calls import stream_line
from kvstore.client.stream import Stream
from kvstore.errors import KvError
from kvstore.types import (
    Event,
    FilterType,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from tests.chaos.recording import Recorder
from tests.checking.history import Watch

PATH: Final = "/v3/watch"
SILENCE_SECONDS: Final = 4.0
"""Members report progress every second: one that is silent for longer is given up."""
PAUSE_SECONDS: Final = 0.2
STAY_SECONDS: Final = (2.0, 8.0)
"""How long a client stays with a stream that is well, before it resumes on another member."""


class Watcher:
    """One client, with one watcher at a time, over all its resumptions.

    Args:
        recorder: Keeps what it sees.
        urls: Of all members.
        request: The first request; the next ones begin behind what was seen.
        rng: Whether and when it moves on.
        hidden: It is no client of the round, but what tells the truth about it.
    """

    def __init__(
        self,
        recorder: Recorder,
        urls: Sequence[str],
        request: WatchCreateRequest,
        rng: random.Random,
        *,
        hidden: bool = False,
    ) -> None:
        self._recorder = recorder
        self._hidden = hidden
        self._clients = [Client([url], SILENCE_SECONDS) for url in urls]
        self._request = request
        self._rng = rng
        self._over = threading.Event()
        self._stream: Stream | None = None
        self._whole = True
        self._thread = threading.Thread(target=self._run, name="Watcher", daemon=True)
        self.number = recorder.new_client()
        self.seen = 0
        """All up to this revision was seen, by events or by the word of a progress notification."""
        self.compacted = 0
        self.truth: dict[int, list[Event]] = {}
        self.seen_at: dict[int, float] = {}
        """When each of them was heard of."""
        self.errors: list[BaseException] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; it raises what ended the client, if anything did."""
        self._over.set()
        stream = self._stream
        if stream is not None:
            stream.close()
        self._thread.join()
        for client in self._clients:
            client.close()
        for error in self.errors:
            raise error

    def has_seen(self, revision: int) -> bool:
        """Whether it knows all up to this revision."""
        return self.seen >= revision

    def _run(self) -> None:
        member = self._rng.randrange(len(self._clients))
        try:
            while not self._over.is_set():
                if not self._watch_on(member):
                    self._over.wait(PAUSE_SECONDS)
                member = (member + self._rng.randint(1, len(self._clients))) % len(self._clients)
        except BaseException as error:  # noqa: BLE001 - a client that ends must not end unseen
            self.errors.append(error)

    def _watch_on(self, member: int) -> bool:
        """Watch over one member until the stream ends; whether it began."""
        request = msgspec.structs.replace(self._request)
        watch = Watch(self.number, member, request, time.monotonic())
        body = json_codec.encode(WatchRequest(create_request=request))
        transport = self._clients[member].transport
        leave_at = time.monotonic() + self._rng.uniform(*STAY_SECONDS)
        recorded = False
        try:
            with Stream(transport, PATH, body, silence_seconds=SILENCE_SECONDS) as stream:
                self._stream = stream
                for line in stream.lines():
                    response = json_codec.from_object(WatchResponse, stream_line(line))
                    if not recorded:
                        recorded = True
                        if not self._hidden:
                            self._recorder.open_watch(watch)
                    watch.responses.append((time.monotonic(), response))
                    self._take(response)
                    if self._over.is_set():
                        return True
                    if response.canceled or (time.monotonic() > leave_at and self._whole):
                        watch.ended = "canceled" if response.canceled else "left"
                        break
                else:
                    watch.ended = "the stream ended"
        except KvError as error:
            watch.ended = error.message
        finally:
            self._stream = None
            if watch.ended and not self._over.is_set():
                watch.ended_at = time.monotonic()
            else:
                watch.ended = ""
        return recorded

    def _take(self, response: WatchResponse) -> None:
        for event in response.events:
            assert event.kv is not None, "an event without a key"
            self.seen_at.setdefault(event.kv.mod_revision, time.monotonic())
            self.truth.setdefault(event.kv.mod_revision, []).append(event)
            self.seen = max(self.seen, event.kv.mod_revision - response.fragment)
        self._whole = not response.fragment
        if not self._request.start_revision and response.created and response.header is not None:
            # From now on: what "now" was, the answer says.
            self._request.start_revision = response.header.revision + 1
        if response.compact_revision:
            self.compacted = max(self.compacted, response.compact_revision)
            self.seen = max(self.seen, response.compact_revision - 1)
        elif not response.created and not response.events and response.header is not None:
            self.seen = max(self.seen, response.header.revision)
        if self.seen:
            self._request.start_revision = max(self._request.start_revision, self.seen + 1)


def requests(prefix: bytes, revision: int, rng: random.Random) -> list[WatchCreateRequest]:
    """What the watchers of a round ask for: everything, a part, from now and from the past on."""
    whole = WatchCreateRequest(prefix, prefix_end(prefix), progress_notify=True)
    keys = prefix + b"k/"
    return [
        msgspec.structs.replace(whole, start_revision=revision + 1, prev_kv=True),
        msgspec.structs.replace(whole, fragment=True),
        msgspec.structs.replace(
            whole,
            key=keys,
            range_end=prefix_end(keys),
            start_revision=revision + 1,
            filters=[rng.choice((FilterType.NOPUT, FilterType.NODELETE))],
        ),
        # It begins far back: in rounds with a compaction it is told so.
        msgspec.structs.replace(whole, start_revision=max(revision - 200, 1)),
    ]


def everything(revision: int) -> WatchCreateRequest:
    """What tells the truth: all keys, each event with what was there before."""
    return WatchCreateRequest(
        b"\0", b"\0", start_revision=revision + 1, progress_notify=True, prev_kv=True
    )

"""One client's watchers, and what it takes from them: nothing is pushed, so nothing piles up."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvstore.errors import ErrorKind
from kvstore.types import (
    OPEN_END,
    Event,
    ResponseHeader,
    WatchCancelRequest,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from kvstore.watch.events import revision_of, size_of
from kvstore.watch.watcher import Watcher

if TYPE_CHECKING:
    from kvstore.budget import Budget
    from kvstore.watch.hub import WatchHub

RESPONSE_OVERHEAD_BYTES: Final = 128
TURNS_BETWEEN_CHECKS: Final = 16
WATCHERS_BETWEEN_CHECKS: Final = 64
NO_WATCH_ID: Final = -1
"""In answers that are about no watcher, or about all of them."""

DUPLICATE_ID: Final = "mvcc: duplicate watch ID provided on the WatchStream"
EMPTY_RANGE: Final = "mvcc: watcher range is empty"
TOO_MANY_WATCHERS: Final = "kvstore: too many watchers"


class WatchStream:
    """Some watchers whose responses leave in one stream.

    Made by ``WatchHub.open_stream``. ``on_ready`` is called once when there is something to take:
    the next call comes after the next ``take``, or from within it if that left something behind. It
    must not call back into the stream or the hub; it may note that, or wake somebody who takes.
    """

    __slots__ = (
        "_compacted",
        "_hub",
        "_next_id",
        "_notified",
        "_outbox",
        "_progress_asked",
        "_progress_left",
        "_reread_from",
        "_reread_left",
        "_reread_to",
        "_start_max",
        "_watchers",
        "announced",
        "closed",
        "on_ready",
        "queue",
    )

    def __init__(self, hub: "WatchHub", on_ready: Callable[[], None]) -> None:
        self._hub = hub
        self.on_ready = on_ready
        self.announced = False
        self._watchers: dict[int, Watcher] = {}
        self._next_id = 0
        # Answers, and the rest of a response that was split: they leave before everything else.
        self._outbox: deque[WatchResponse] = deque()
        # Who has something to do: pending events, a progress notification, or something to read.
        self.queue: deque[Watcher] = deque()
        self._progress_asked = False
        self._reread_from = self._reread_to = 0
        # Watchers still to be looked at: they may have to read again, or to tell their progress.
        self._reread_left: list[Watcher] = []
        self._progress_left: list[Watcher] = []
        self._start_max = 0
        self._compacted = 0
        self._notified: dict[Watcher, None] = {}
        self.closed = False

    def __len__(self) -> int:
        return len(self._watchers)

    # --- what the client asks --------------------------------------------------------------------

    def request(self, request: WatchRequest) -> None:
        """Create or cancel a watcher, or ask for progress; the answer comes out of ``take``.

        Raises:
            KvError: TOO_MANY_REQUESTS: the client asks on and on and takes no answers.
        """
        assert not self.closed, "a closed stream is asked"
        if len(self._outbox) >= self._hub.limits.answers_max:
            raise ErrorKind.TOO_MANY_REQUESTS.error()
        if request.create_request is not None:
            self._create(request.create_request)
        elif request.cancel_request is not None:
            self._cancel(request.cancel_request)
        elif request.progress_request is not None:
            self._progress_asked = True
        else:
            return
        self.announce()

    def refuse(self, reason: str) -> None:
        """Answer a request for a watcher that may not be."""
        header = ResponseHeader(revision=self._hub.reader.revision)
        self._outbox.append(
            WatchResponse(header, NO_WATCH_ID, created=True, canceled=True, cancel_reason=reason)
        )
        self.announce()

    def open_watchers(self) -> list[Watcher]:
        """Those from which something may still leave."""
        return [watcher for watcher in self._watchers.values() if not watcher.closed]

    def revoke(self, watcher: Watcher, reason: str) -> None:
        """Cancel a watcher: what it was to hear it hears no more."""
        if watcher.closed:
            return
        del self._watchers[watcher.id]
        self._end(watcher)
        header = ResponseHeader(revision=self._hub.reader.revision)
        self._outbox.append(WatchResponse(header, watcher.id, canceled=True, cancel_reason=reason))
        self.announce()

    def close(self) -> None:
        """The client is gone: forget its watchers."""
        if self.closed:
            return
        self.closed = True
        # Nobody is to be woken any more.
        self.announced = True
        self._outbox.clear()
        self._hub.forget_stream(self)

    def forget_watchers(self, count: int) -> int:
        """After ``close``: let go of up to ``count`` watchers; how many it were.

        A client may have 100,000 of them: the hub takes them down by and by.
        """
        watchers = self._watchers
        count = min(count, len(watchers))
        for _ in range(count):
            self._end(watchers.popitem()[1])
        return count

    def _create(self, request: WatchCreateRequest) -> None:
        revision = self._hub.reader.revision
        header = ResponseHeader(revision=revision)
        reason = self._refusal(request)
        if reason:
            self.refuse(reason)
            return
        watcher = Watcher(self, request.watch_id or self._free_id(), request)
        self._watchers[watcher.id] = watcher
        self._start_max = max(self._start_max, watcher.start_revision)
        self._hub.add_watcher(watcher)
        if request.progress_notify:
            self._notified[watcher] = None
        self._outbox.append(WatchResponse(header, watcher.id, created=True))
        if request.start_revision == 0 or request.start_revision > revision:
            watcher.sync(request.start_revision or revision + 1)
        else:
            self._hub.lagging += 1
            self._enqueue(watcher)

    def _refusal(self, request: WatchCreateRequest) -> str:
        """Why a watcher cannot be created, in etcd's words."""
        hub = self._hub
        if request.range_end not in (b"", OPEN_END) and (request.key or b"\0") >= request.range_end:
            return EMPTY_RANGE
        if request.start_revision < 0:
            return ErrorKind.COMPACTED.message
        if request.watch_id in self._watchers and request.watch_id != 0:
            return DUPLICATE_ID
        if (
            len(self._watchers) >= hub.limits.watchers_per_stream_max
            or hub.watchers >= hub.limits.watchers_max
        ):
            return TOO_MANY_WATCHERS
        return ""

    def _free_id(self) -> int:
        while self._next_id in self._watchers:
            self._next_id += 1
        watch_id = self._next_id
        self._next_id += 1
        return watch_id

    def _cancel(self, request: WatchCancelRequest) -> None:
        watcher = self._watchers.pop(request.watch_id, None)
        if watcher is None:
            return
        if watcher.closed:
            self._compacted -= 1
        self._end(watcher)
        header = ResponseHeader(revision=self._hub.reader.revision)
        self._outbox.append(WatchResponse(header, watcher.id, canceled=True))

    def _end(self, watcher: Watcher) -> None:
        """Nothing more leaves this watcher; its id stays taken until a cancel request."""
        if not watcher.closed:
            watcher.closed = True
            self._hub.remove_watcher(watcher)
            # It may stand in the queue for a while; what it holds shall not.
            watcher.pending = None
            watcher.gathered = []
            self._notified.pop(watcher, None)

    # --- what the hub tells ----------------------------------------------------------------------

    def announce(self) -> None:
        """There is something to take."""
        if not self.announced:
            self.announced = True
            self.on_ready()

    def fall_behind(self, watcher: Watcher, revision: int) -> None:
        """A synced watcher is to read from the log what it is owed from this revision on."""
        if self._reread_from:
            # It was not yet told that it missed something before.
            revision = min(revision, self._reread_from)
        revision = max(revision, watcher.cursor)
        pending = watcher.pending
        if pending is not None:
            while pending and revision_of(pending[-1]) >= revision:
                watcher.pending_bytes -= size_of(pending.pop())
            if not pending:
                watcher.pending = None
        watcher.lag(revision)
        self._hub.lagging += 1
        self._enqueue(watcher)

    def reread(self, first: int, last: int) -> None:
        """No watcher was told of what was published in these revisions.

        Looked after at the next ``take``: the hub must not walk over every watcher there is.
        """
        if self._watchers:
            self._reread_from = min(self._reread_from or first, first)
            self._reread_to = last
            self._reread_left = list(self._watchers.values())
            self.announce()

    def progress_tick(self) -> None:
        """Those who asked for it and had no event since the last tick are to hear the revision."""
        if self._notified:
            self._progress_left = list(self._notified)
            self.announce()

    # --- what the client takes -------------------------------------------------------------------

    def take(self, budget: "Budget", bytes_max: int) -> list[WatchResponse]:
        """What is there, watcher by watcher in turn, and as much of it as is wanted now.

        Args:
            budget: Renewed by the caller. When it is spent, the rest is for the next call.
            bytes_max: The same, once the responses have about that size; one of them, or the events
                of one revision, may go beyond it.

        Returns:
            Responses in order; maybe none although there is more: ``on_ready`` then was called. In
            their headers only ``revision`` is set.
        """
        self.announced = False
        taken: list[WatchResponse] = []
        size = self._take_outbox(taken, bytes_max)
        if self._reread_from and not self._start_reread(budget):
            # Until all know that they missed something, none may go on.
            self.announce()
            return taken
        self._start_progress(budget)
        queue = self.queue
        turns = 0
        while queue and size < bytes_max and not self._outbox:
            watcher = queue.popleft()
            if watcher.closed:
                continue
            read = False
            if watcher.pending is not None:
                size += self._deliver(watcher, taken)
            elif not watcher.synced:
                read = True
                size += self._read_on(watcher, taken, bytes_max - size)
            elif watcher.progress_due:
                self._notify(watcher, taken)
            if watcher.synced:
                watcher.queued = False
            elif not watcher.closed:
                queue.append(watcher)
            turns += 1
            # A turn that reads is worth many that deliver.
            if (read or not turns % TURNS_BETWEEN_CHECKS) and budget.spent():
                break
        if self._progress_asked and not queue and not self._outbox:
            self._answer_progress(taken)
        if queue or self._outbox or self._progress_left:
            self.announce()
        return taken

    def _enqueue(self, watcher: Watcher) -> None:
        if not watcher.queued:
            watcher.queued = True
            self.queue.append(watcher)

    def _start_reread(self, budget: "Budget") -> bool:
        """Let those that missed something read; whether it is done for all."""
        left = self._reread_left
        while left:
            watcher = left.pop()
            # A higher cursor belongs to one that was created since, or wants only the future.
            if watcher.synced and watcher.cursor <= self._reread_to and not watcher.closed:
                self.fall_behind(watcher, self._reread_from)
            if not len(left) % WATCHERS_BETWEEN_CHECKS and budget.spent():
                break
        if left:
            return False
        self._reread_from = 0
        return True

    def _start_progress(self, budget: "Budget") -> None:
        left = self._progress_left
        while left:
            watcher = left.pop()
            if watcher.active:
                watcher.active = False
            elif watcher.synced and not watcher.closed:
                watcher.progress_due = True
                self._enqueue(watcher)
            if not len(left) % WATCHERS_BETWEEN_CHECKS and budget.spent():
                return

    def _take_outbox(self, taken: list[WatchResponse], bytes_max: int) -> int:
        outbox = self._outbox
        size = 0
        while outbox and size < bytes_max:
            response = outbox.popleft()
            size += RESPONSE_OVERHEAD_BYTES + sum(map(size_of, response.events))
            taken.append(response)
        return size

    def _deliver(self, watcher: Watcher, taken: list[WatchResponse]) -> int:
        """Hand out what is pending, a revision a response; its size."""
        events = watcher.pending
        assert events, "a watcher has an empty list pending"
        size = watcher.pending_bytes
        watcher.pending = None
        watcher.pending_bytes = 0
        self._went_out(watcher, len(events))
        first = revision_of(events[0])
        if revision_of(events[-1]) == first:
            self._respond(watcher, first, events, size, taken)
            return size + RESPONSE_OVERHEAD_BYTES
        start = 0
        revision = first
        for place, event in enumerate(events):
            if revision_of(event) != revision:
                part = events[start:place]
                self._respond(watcher, revision, part, sum(map(size_of, part)), taken)
                start = place
                revision = revision_of(event)
        part = events[start:]
        self._respond(watcher, revision, part, sum(map(size_of, part)), taken)
        return size + RESPONSE_OVERHEAD_BYTES

    def _read_on(self, watcher: Watcher, taken: list[WatchResponse], bytes_max: int) -> int:
        """A turn of a watcher that lags; the size of what it found."""
        hub = self._hub
        reader = hub.reader
        if watcher.cursor < reader.compacted_revision:
            self._end(watcher)
            self._compacted += 1
            # As in etcd: without a reason, and with an empty header.
            taken.append(
                WatchResponse(
                    ResponseHeader(),
                    watcher.id,
                    canceled=True,
                    compact_revision=reader.compacted_revision,
                )
            )
            return RESPONSE_OVERHEAD_BYTES
        if watcher.cursor > reader.revision:
            watcher.sync(watcher.cursor)
            hub.caught_up()
            return 0
        bytes_max = min(bytes_max, hub.limits.response_bytes_max)
        events, size, goes_on = hub.catch_up.read(watcher, bytes_max)
        if watcher.synced:
            hub.caught_up()
        if not events:
            return 0
        self._went_out(watcher, len(events))
        self._respond(watcher, reader.revision, events, size, taken, goes_on=goes_on)
        return size + RESPONSE_OVERHEAD_BYTES

    def _notify(self, watcher: Watcher, taken: list[WatchResponse]) -> None:
        watcher.progress_due = False
        revision = self._hub.reader.revision
        # Before its start revision a watcher is told nothing.
        if watcher.start_revision <= revision:
            taken.append(WatchResponse(ResponseHeader(revision=revision), watcher.id))

    def _answer_progress(self, taken: list[WatchResponse]) -> None:
        """One answer for all watchers, where all have caught up; else silence."""
        self._progress_asked = False
        revision = self._hub.reader.revision
        watchers = self._watchers
        if self._start_max > revision:
            # Rarely: somebody waits for the future, or did.
            live = (watcher for watcher in watchers.values() if not watcher.closed)
            self._start_max = max((watcher.start_revision for watcher in live), default=0)
        if len(watchers) > self._compacted and self._start_max <= revision:
            taken.append(WatchResponse(ResponseHeader(revision=revision), NO_WATCH_ID))

    def _went_out(self, watcher: Watcher, events: int) -> None:
        watcher.active = True
        watcher.progress_due = False
        self._hub.events_total += events

    def _respond(
        self,
        watcher: Watcher,
        revision: int,
        events: list[Event],
        size: int,
        taken: list[WatchResponse],
        *,
        goes_on: bool = False,
    ) -> None:
        """One response, or its fragments: the first leaves now, the others before anything else."""
        size_max = self._hub.limits.response_bytes_max
        outbox = self._outbox
        if not watcher.fragment or size < size_max:
            (outbox or taken).append(
                WatchResponse(
                    ResponseHeader(revision=revision), watcher.id, fragment=goes_on, events=events
                )
            )
            return
        pieces = _pieces(events, size_max)
        for place, piece in enumerate(pieces):
            response = WatchResponse(
                ResponseHeader(revision=revision),
                watcher.id,
                fragment=goes_on or place < len(pieces) - 1,
                events=piece,
            )
            (outbox if place else outbox or taken).append(response)


def _pieces(events: list[Event], size_max: int) -> list[list[Event]]:
    """Events in order, cut so that each piece stays below a size, or is a single event."""
    pieces: list[list[Event]] = []
    size = size_max
    for event in events:
        event_size = size_of(event)
        if size + event_size >= size_max:
            pieces.append([])
            size = 0
        pieces[-1].append(event)
        size += event_size
    return pieces

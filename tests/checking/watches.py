"""Did watchers see everything, once, in order, and whole revisions at a time?

A watcher is owed every event of its range from its start on, up to what it was told to have seen:
by an event (all before that one have come), or by a progress notification, whose header says that
nothing at or below its revision is still to come. It may be cut off at any time, but not in the
middle of a revision, unless it allowed fragments. What it misses by a compaction it is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from kvstore.types import CompactionRequest, EventType, FilterType
from tests.checking.history import Outcome
from tests.checking.past import Past
from tests.checking.violation import ViolationError
from tests.kvstore.mvcc.model import in_range

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvstore.types import Event, WatchCreateRequest, WatchResponse
    from tests.checking.history import History, Watch

CHECKER = "watch"
SHOWN_MAX = 3


def check(history: History, compacted: Iterable[int] | None = ()) -> None:
    """Judge a history.

    Args:
        history: What clients saw. Without its ``truth`` only what a stream says of itself is
            judged: order, whole revisions, promises.
        compacted: Revisions to which the store was compacted without a call; None: not known.

    Raises:
        ViolationError: A watcher was told something else than what it is owed.
    """
    compactions = _Compactions(history, compacted)
    past = Past(history.truth)
    revisions = sorted(history.truth)
    for watch in history.watches:
        told = _Told(watch, compactions)
        for at, response in watch.responses:
            told.hear(at, response)
        if history.truth:
            _check_complete(told, history.truth, revisions)
            _check_previous(told, past)


class _Compactions:
    """Which revisions may have been compacted by when."""

    def __init__(self, history: History, unasked: Iterable[int] | None) -> None:
        self._unasked = None if unasked is None else list(unasked)
        self._asked = [
            (operation.called_at, operation.request.revision)
            for operation in history.operations
            if isinstance(operation.request, CompactionRequest)
            and operation.outcome is not Outcome.REFUSED
        ]

    def has(self, revision: int, at: float) -> bool:
        """Whether the store may have been compacted to exactly this revision."""
        if self._unasked is None or revision in self._unasked:
            return True
        return any(called <= at and revision == to for called, to in self._asked)

    def hides(self, revision: int, at: float) -> bool:
        """Whether what was there at a revision may have been forgotten."""
        if self._unasked is None or any(to > revision for to in self._unasked):
            return True
        return any(called <= at and to > revision for called, to in self._asked)


class _Heard(msgspec.Struct):
    at: float
    event: Event


class _Told:
    """What one watcher was told so far: each response is judged as it comes.

    Attributes:
        start: The first revision that it is owed; 0 until it was created.
        done: It was told that nothing at or below this revision is to come any more.
        partial: The revision of which it has heard some fragments, and not the last; 0: none.
    """

    def __init__(self, watch: Watch, compactions: _Compactions) -> None:
        self.watch = watch
        self.compactions = compactions
        self.heard: list[_Heard] = []
        self.start = self.done = self.partial = 0
        self._created = self._over = False

    def hear(self, at: float, response: WatchResponse) -> None:
        if self._over:
            raise self.wrong(f"was told something after its end: {response}")
        if response.header is None:
            raise self.wrong(f"was told something without a header: {response}")
        if response.created == self._created:
            raise self.wrong(f"was created twice, or not at first: {response}")
        if response.created:
            self._created = True
            self.start = self.watch.request.start_revision or response.header.revision + 1
            self.done = self.start - 1
        if response.canceled:
            self._over = True
            self._end(at, response)
        elif response.events:
            self._take(at, response)
        elif not response.created:
            self._promise(response.header.revision)

    def _take(self, at: float, response: WatchResponse) -> None:
        first, last = _revision(response.events[0]), _revision(response.events[-1])
        if response.fragment and not self.watch.request.fragment:
            raise self.wrong("was told fragments, and did not ask for them")
        if self.partial and first != self.partial:
            raise self.wrong(f"was told a part of revision {self.partial}, then {first}")
        before = self.done
        for event in response.events:
            revision = _revision(event)
            if revision <= self.done or revision < before:
                raise self.wrong(
                    f"was told {_shown([event])} after it had been told everything up to "
                    f"{max(self.done, before)}"
                )
            before = revision
            self.heard.append(_Heard(at, event))
        assert response.header is not None, "seen to be there before"
        if response.header.revision < last:
            raise self.wrong(f"was told of revision {last} at {response.header.revision}")
        self.done = last - 1 if response.fragment else last
        self.partial = last if response.fragment else 0

    def _promise(self, revision: int) -> None:
        if self.partial and revision >= self.partial:
            raise self.wrong(f"was promised {revision} in the middle of {self.partial}")
        self.done = max(self.done, revision)

    def _end(self, at: float, response: WatchResponse) -> None:
        to = response.compact_revision
        if not to:
            if not response.cancel_reason and self.watch.cancelled_at > at:
                raise self.wrong("was cancelled without a reason")
        elif self.done + 1 >= to:
            raise self.wrong(f"was cancelled at {self.done + 1} as compacted at {to}")
        elif not self.compactions.has(to, at):
            raise self.wrong(f"was told of a compaction at {to}, which nobody asked for")

    def wrong(self, words: str) -> ViolationError:
        watch = self.watch
        return ViolationError(
            CHECKER,
            f"client {watch.client} on member {watch.member}, since {watch.opened_at:.6f}, {words}"
            f"\n  {watch.request}",
        )


def _check_complete(told: _Told, truth: dict[int, list[Event]], revisions: list[int]) -> None:
    """It was told exactly what happened, from its start up to what it was told to have seen."""
    request = told.watch.request
    owed = [
        event
        for revision in revisions
        if told.start <= revision <= max(told.done, told.partial)
        for event in truth[revision]
        if is_wanted(event, request)
    ]
    heard = [one.event for one in told.heard]
    known = owed[: len(heard)] if told.partial else owed
    if [_plain(event) for event in heard] == [_plain(event) for event in known]:
        return
    where = next(
        (
            place
            for place, (one, other) in enumerate(zip(heard, known, strict=False))
            if _plain(one) != _plain(other)
        ),
        min(len(heard), len(known)),
    )
    part = slice(where, where + SHOWN_MAX)
    raise told.wrong(
        f"was told {len(heard)} events of {len(known)} from {told.start} up to {told.done}; at the "
        f"{where + 1}th place it heard {_shown(heard[part]) or 'nothing more'}, and there is "
        f"{_shown(known[part]) or 'nothing more'}"
    )


def _check_previous(told: _Told, past: Past) -> None:
    """Each event came with what was there before: if asked for, and not forgotten meanwhile."""
    for one in told.heard:
        event = one.event
        assert event.kv is not None, "an event has a key"
        before = past.get(event.kv.key, event.kv.mod_revision - 1)
        if not told.watch.request.prev_kv:
            before = None
        elif event.prev_kv is None and told.compactions.hides(event.kv.mod_revision - 1, one.at):
            continue
        if event.prev_kv != before:
            raise told.wrong(f"was told {_shown([event])} with {event.prev_kv}, not {before}")


def is_wanted(event: Event, request: WatchCreateRequest) -> bool:
    """Whether a watcher is owed an event, of whatever revision."""
    assert event.kv is not None, "an event has a key"
    unwanted = FilterType.NOPUT if event.type == EventType.PUT else FilterType.NODELETE
    if unwanted in request.filters:
        return False
    return in_range(event.kv.key, request.key or b"\0", request.range_end)


def _plain(event: Event) -> tuple[object, ...]:
    return event.type, event.kv


def _revision(event: Event) -> int:
    assert event.kv is not None, "an event has a key"
    return event.kv.mod_revision


def _shown(events: list[Event]) -> str:
    return "; ".join(
        f"{event.type.name.lower()} {event.kv.key!r} at {event.kv.mod_revision}"
        for event in events
        if event.kv is not None
    )

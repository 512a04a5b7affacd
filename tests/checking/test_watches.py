"""Watchers that were told what they are owed are accepted, and all others are not."""

from __future__ import annotations

import msgspec
import pytest

from kvstore.types import (
    CompactionRequest,
    CompactionResponse,
    Event,
    EventType,
    FilterType,
    KeyValue,
    ResponseHeader,
    WatchCreateRequest,
    WatchResponse,
)
from tests.checking import watches
from tests.checking.history import History, Operation, Outcome, Watch
from tests.checking.violation import ViolationError

A2 = KeyValue(b"a", 2, 2, 1, b"one")
A3 = KeyValue(b"a", 2, 3, 2, b"two")
B3 = KeyValue(b"b", 3, 3, 1, b"beside")
A5 = KeyValue(b"a", mod_revision=5)
A6 = KeyValue(b"a", 6, 6, 1, b"again")
OTHER4 = KeyValue(b"x", 4, 4, 1, b"of nobody")


def put(record: KeyValue, before: KeyValue | None = None) -> Event:
    return Event(EventType.PUT, record, before)


def delete(record: KeyValue, before: KeyValue | None = None) -> Event:
    return Event(EventType.DELETE, record, before)


TRUTH = {
    2: [put(A2)],
    3: [put(A3), put(B3)],
    4: [put(OTHER4)],
    5: [delete(A5)],
    6: [put(A6)],
}
ALL = [event for revision in (2, 3, 5, 6) for event in TRUTH[revision]]


def said(revision: int, *events: Event, **fields: object) -> WatchResponse:
    response = WatchResponse(ResponseHeader(revision=revision), 1, events=list(events))
    for name, value in fields.items():
        setattr(response, name, value)
    return response


def created(revision: int = 1) -> WatchResponse:
    return said(revision, created=True)


def cancelled(revision: int, *, compacted: int = 0, why: str = "") -> WatchResponse:
    return said(revision, canceled=True, compact_revision=compacted, cancel_reason=why)


def watched(
    *responses: WatchResponse,
    start: int = 1,
    filters: tuple[FilterType, ...] = (),
    prev_kv: bool = False,
    fragment: bool = False,
) -> History:
    request = WatchCreateRequest(
        b"a", b"c", start, filters=list(filters), prev_kv=prev_kv, fragment=fragment
    )
    heard = [(float(at), response) for at, response in enumerate(responses, 1)]
    return History(watches=[Watch(1, 0, request, 0.0, heard)], truth=dict(TRUTH))


def compaction(at: float, revision: int, outcome: Outcome = Outcome.OK) -> Operation:
    answer = CompactionResponse(ResponseHeader(revision=6)) if outcome is Outcome.OK else None
    return Operation(9, "compact", CompactionRequest(revision), 0, at, at, outcome, answer)


def refused(history: History, words: str) -> None:
    with pytest.raises(ViolationError, match=words) as caught:
        watches.check(history)
    assert caught.value.checker == "watch"


# --- right ----------------------------------------------------------------------------------------


RIGHT = {
    "nothing at all": watched(),
    "only created": watched(created()),
    "everything at once": watched(created(), said(6, *ALL)),
    "a revision at a time": watched(
        created(), said(2, *TRUTH[2]), said(3, *TRUTH[3]), said(5, *TRUTH[5]), said(6, *TRUTH[6])
    ),
    "cut off behind some revision": watched(created(), said(6, *ALL[:3])),
    "from now on": watched(created(4), said(6, *ALL[3:]), start=0),
    "resumed in the middle": watched(created(6), said(6, *ALL[1:]), start=3),
    "from a revision that is yet to come": watched(created(), said(6), start=9),
    "progress of what was told": watched(created(), said(6, *ALL[:3]), said(4), said(6, *ALL[3:])),
    "progress a second time": watched(created(), said(6, *ALL), said(6), said(6)),
    "only deletes": watched(created(), said(6, *TRUTH[5]), said(6), filters=(FilterType.NOPUT,)),
    "only puts": watched(
        created(), said(6, *ALL[:3], ALL[4]), said(6), filters=(FilterType.NODELETE,)
    ),
    "with what was before": watched(
        created(), said(6, put(A2), put(A3, A2), put(B3), delete(A5, A3), put(A6)), prev_kv=True
    ),
    "in fragments": watched(
        created(),
        said(6, *ALL[:2], fragment=True),
        said(6, *ALL[2:]),
        fragment=True,
    ),
    "cut off between fragments": watched(
        created(), said(6, *ALL[:2], fragment=True), fragment=True
    ),
    "cancelled with a reason": watched(created(), cancelled(6, why="permission denied")),
    "refused": watched(said(1, created=True, canceled=True, cancel_reason="too many")),
}


@pytest.mark.parametrize("history", RIGHT.values(), ids=RIGHT)
def test_what_is_right_is_accepted(history: History) -> None:
    watches.check(history)


def test_whoever_asked_for_the_end_needs_no_reason() -> None:
    history = watched(created(), cancelled(6))
    refused(history, "without a reason")
    history.watches[0].cancelled_at = 1.5
    watches.check(history)


def test_a_compaction_cuts_off_who_lags_behind_it() -> None:
    history = watched(created(), said(6, *ALL[:3]), cancelled(6, compacted=5))
    refused(history, "nobody asked for")
    watches.check(history, (5,))
    history.operations = [compaction(0.5, 5)]
    watches.check(history)
    history.operations = [compaction(2.5, 5, Outcome.UNKNOWN)]
    watches.check(history)
    history.operations = [compaction(0.5, 5, Outcome.REFUSED)]
    refused(history, "nobody asked for")
    history.operations = [compaction(9.5, 5)]
    refused(history, "nobody asked for")


def test_a_compaction_takes_what_was_before_from_who_comes_late() -> None:
    history = watched(created(), said(6, put(A2), put(A3), put(B3)), prev_kv=True)
    refused(history, "not KeyValue")
    history.operations = [compaction(0.5, 3)]
    watches.check(history)
    history.operations = [compaction(0.5, 2)]
    refused(history, "not KeyValue")


# --- wrong ----------------------------------------------------------------------------------------


WRONG = {
    "an event is missing": (watched(created(), said(6, *ALL[:1], *ALL[3:])), "of 5"),
    "the last one that was promised": (watched(created(), said(6, *ALL[:4]), said(6)), "of 5"),
    "the first one": (watched(created(), said(6, *ALL[1:])), "2th|1th"),
    "half a revision at the end": (watched(created(), said(6, *ALL[:2])), "of 3"),
    "a revision in two": (watched(created(), said(6, *ALL[:2]), said(6, *ALL[2:])), "up to 3"),
    "an event twice": (watched(created(), said(6, *ALL), said(6, ALL[-1])), "up to 6"),
    "an event twice at once": (watched(created(), said(6, *ALL, ALL[-1])), "6 events of 5"),
    "backwards": (watched(created(), said(6, *ALL[3:], *ALL[:3])), "after it had been told"),
    "of another key": (watched(created(), said(6, *ALL[:3], *TRUTH[4])), "of 3"),
    "what never was": (watched(created(), said(6, put(KeyValue(b"a", 2, 2, 1, b"x")))), "1 events"),
    "from before its start": (watched(created(6), said(6, *ALL), start=3), "up to 2"),
    "from before it was there": (watched(created(4), said(6, *ALL), start=0), "up to 4"),
    "later than was promised": (
        watched(created(), said(6, *ALL[:3]), said(5), said(6, *ALL[3:])),
        "up to 5",
    ),
    "what was filtered": (watched(created(), said(6, *ALL), filters=(FilterType.NOPUT,)), "of 1"),
    "another before": (
        watched(created(), said(6, put(A2), put(A3, B3), put(B3)), prev_kv=True),
        "with Key",
    ),
    "before, and nobody asked": (
        watched(created(), said(6, put(A2), put(A3, A2), put(B3))),
        "with",
    ),
    "fragments, and nobody asked": (
        watched(created(), said(6, *ALL[:2], fragment=True)),
        "did not ask",
    ),
    "a fragment of another": (
        watched(created(), said(6, *ALL[:2], fragment=True), said(6, *ALL[3:]), fragment=True),
        "a part of",
    ),
    "progress between fragments": (
        watched(created(), said(6, *ALL[:2], fragment=True), said(3), fragment=True),
        "in the middle of",
    ),
    "never created": (watched(said(6, *ALL)), "not at first"),
    "created twice": (watched(created(), created()), "created twice"),
    "something after its end": (
        watched(created(), cancelled(6, why="over"), said(6, *ALL)),
        "after its end",
    ),
    "compacted, and was not behind": (
        watched(created(), said(6, *ALL[:3]), cancelled(6, compacted=4)),
        "cancelled at 4 as compacted at 4",
    ),
    "of the future": (watched(created(), said(2, *ALL[:3])), "of revision 3 at 2"),
    "nothing to say it by": (
        watched(created(), WatchResponse(None, 1, events=ALL)),
        "without a header",
    ),
}


@pytest.mark.parametrize(("history", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_found(history: History, words: str) -> None:
    refused(history, words)


def test_without_the_truth_order_and_promises_are_judged() -> None:
    def without(history: History) -> History:
        return msgspec.structs.replace(history, truth={})

    watches.check(without(watched(created(), said(6, *ALL[:1], *ALL[3:]))))
    refused(without(watched(created(), said(6, *ALL), said(6, ALL[-1]))), "up to 6")

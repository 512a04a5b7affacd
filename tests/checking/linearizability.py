"""Is there one order of the calls that explains every answer?

Linearizable (Herlihy and Wing): each call that was answered takes effect at one moment between its
call and its answer; one of unknown outcome at any moment after its call, or never; one that was
refused never. Serializable reads need only show a state that there was, that of the revision in
their header, and one that existed when they were answered.

The judgement goes from the cheap and telling to the costly and complete: the order in time of the
places that the answers name; what compactions forbid; each key by itself; and the search over all
keys (``search.py`` says why that is sound and complete). The first that finds something speaks.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from tests.checking import calls as reading
from tests.checking import compactions
from tests.checking.model import FIRST_REVISION
from tests.checking.projection import by_key, truth_of
from tests.checking.search import Deadlines, Search, Stuck, UndecidedError
from tests.checking.violation import ViolationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.checking.calls import Calls, Placed
    from tests.checking.history import History, Operation

CHECKER = "linearizability"
STATES_MAX = 200_000
KEY_STATES_MAX = 20_000
SHOWN_MAX = 14
"""Operations that a message shows."""
WORDS_MAX = 300


def check(
    history: History,
    *,
    alone: bool = True,
    since: int = FIRST_REVISION,
    drift_share: float = 0.0,
    compacted: Iterable[int] | None = (),
    states_max: int = STATES_MAX,
) -> None:
    """Judge a history.

    Args:
        history: What clients did and saw. ``truth``, where it is given, must agree.
        alone: Whether only these calls wrote to the store. If not, others write other keys.
        since: The store's revision before the first call; none of the keys was there.
        drift_share: How much faster than the clients' clock a member's may run.
        compacted: Revisions to which the store was compacted without a call; None: not known.
        states_max: Bound of the search over all keys.

    Raises:
        ViolationError: No order explains the answers.
        UndecidedError: Neither was an order found, nor is it shown that there is none.
    """
    calls = reading.read(history, drift_share)
    _set_earlier_aside(history, calls, since)
    _check_places(history, calls, since)
    compactions.check(history, compacted)
    deadlines = Deadlines(calls.placed)
    gaps = _gaps(history, calls, since, alone=alone)
    if calls.unnamed:
        raise UndecidedError(
            f"{len(calls.unnamed)} locks without a lease may have left keys that nobody can name"
        )
    for key, mine in by_key(calls).items():
        _check_key(history, key, mine, gaps, deadlines)
    _check_all(history, calls, gaps, deadlines, alone=alone, since=since, states_max=states_max)


def _check_key(
    history: History, key: bytes, mine: Calls, gaps: set[int], deadlines: Deadlines
) -> None:
    own = {placed.place for placed in mine.placed} | {seen.revision for seen in mine.seen}
    open_places = {placed.place for placed in mine.placed if placed.changes is None}
    truth = truth_of(history.truth, key)
    stops = own | gaps if mine.possible else own
    search = Search(
        mine,
        sorted(stops | truth.keys()),
        gaps | open_places,
        deadlines,
        alone=False,
        truth=truth,
        states_max=KEY_STATES_MAX,
    )
    try:
        stuck = search.run()
    except UndecidedError:
        # The search over all keys has the last word.
        return
    if stuck is not None:
        numbers = {placed.number for placed in mine.placed}
        numbers |= {possible.number for possible in mine.possible}
        numbers |= {seen.number for seen in mine.seen}
        raise _violation(history, stuck, f"no order explains key {key!r}", numbers)


def _check_all(
    history: History,
    calls: Calls,
    gaps: set[int],
    deadlines: Deadlines,
    *,
    alone: bool,
    since: int,
    states_max: int,
) -> None:
    last = _last(history, calls)
    first = since if alone else min([since, *_revisions(calls)], default=since)
    search = Search(
        calls,
        list(range(first, last + 1)),
        gaps,
        deadlines,
        alone=alone,
        truth=history.truth,
        states_max=states_max + last,
    )
    stuck = search.run()
    if stuck is not None:
        everybody = set(range(len(history.operations)))
        raise _violation(history, stuck, "no order explains the answers", everybody)


# --- places ---------------------------------------------------------------------------------------


def _set_earlier_aside(history: History, calls: Calls, since: int) -> None:
    """Judge the serializable reads of what was before the first call, and leave them out.

    A member that has just joined shows what it has, be it nothing yet: a state of long ago. They
    stay out of the search, where a call of unknown outcome could be taken to have happened then.
    """
    earlier = {
        placed.number
        for placed in calls.placed
        if placed.called_at == -inf and placed.place < since and placed.request is None
    }
    # What they claim to have seen of revisions that were yet to come is judged with the others.
    earlier -= {
        seen.number
        for seen in calls.seen
        if seen.revision > history.operations[seen.number].response.header.revision
    }
    for seen in calls.seen:
        if seen.number in earlier and (seen.response.kvs or seen.response.count > 0):
            words = f"at revision {since}, which was later, none of the keys was there"
            raise _wrong(history, [seen.number], words)
    calls.placed = [placed for placed in calls.placed if placed.number not in earlier]
    calls.seen = [seen for seen in calls.seen if seen.number not in earlier]


def _revisions(calls: Calls) -> set[int]:
    revisions = {placed.place for placed in calls.placed} | {seen.revision for seen in calls.seen}
    for seen in calls.seen:
        revisions |= {record.create_revision for record in seen.response.kvs}
    return revisions


def _last(history: History, calls: Calls) -> int:
    return max([0, *(placed.place for placed in calls.placed), *history.truth])


def _gaps(history: History, calls: Calls, since: int, *, alone: bool) -> set[int]:
    """The revisions that no answered write has."""
    claimed = {placed.place for placed in calls.placed if placed.changes}
    last = _last(history, calls)
    first = since + 1 if alone else min([since + 1, *_revisions(calls)])
    return set(range(first, last + 1)) - claimed


def _check_places(history: History, calls: Calls, since: int) -> None:
    """Whether the places that the answers name agree with the order in time, and are one each."""
    for number in calls.unplaced:
        raise _wrong(history, [number], "an answer without a revision")
    writers: dict[int, int] = {}
    for placed in calls.placed:
        if placed.changes:
            other = writers.setdefault(placed.place, placed.number)
            if other != placed.number:
                words = f"two writes have revision {placed.place}"
                raise _wrong(history, [other, placed.number], words)
        if placed.place < since + bool(placed.changes):
            raise _wrong(history, [placed.number], f"the store was at revision {since} before")
    for seen in calls.seen:
        response = history.operations[seen.number].response
        if seen.revision > response.header.revision:
            raise _wrong(history, [seen.number], "a revision was read that was yet to come")
        if any(record.create_revision <= since for record in seen.response.kvs):
            words = f"at revision {since}, which was later, none of the keys was there"
            raise _wrong(history, [seen.number], words)
    _check_times(history, calls.placed, writers)


def _check_times(history: History, placed: list[Placed], writers: dict[int, int]) -> None:
    ended = sorted(placed, key=lambda call: call.returned_at)
    behind: tuple[int, int, Placed] | None = None
    index = 0
    for call in sorted(placed, key=lambda call: call.called_at):
        while index < len(ended) and ended[index].returned_at < call.called_at:
            over = ended[index]
            # At one revision the write comes first. Of some it is not known whether they wrote.
            writes = over.changes is None and writers.get(over.place) is None
            mark = (over.place, 0 if over.changes or writes else 1, over)
            if behind is None or mark[:2] > behind[:2]:
                behind = mark
            index += 1
        if behind is not None and (call.place, 0 if call.changes else 1) < behind[:2]:
            words = (
                "the second was called after the first was answered, and has revision "
                f"{call.place}, which is before {behind[0]}"
            )
            if call.place == behind[0]:
                words = f"the first saw revision {call.place}, which the second wrote afterwards"
            raise _wrong(history, [behind[2].number, call.number], words)


# --- words ----------------------------------------------------------------------------------------


def _wrong(history: History, numbers: list[int], words: str) -> ViolationError:
    lines = [words, *(describe(number, history.operations[number]) for number in numbers)]
    return ViolationError(CHECKER, "\n  ".join(lines))


def _violation(history: History, stuck: Stuck, words: str, among: set[int]) -> ViolationError:
    """The part that cannot be explained: what is contradicted, and what ran beside it."""
    operations = history.operations
    lines = [f"{words} beyond revision {stuck.revision - 1}", *map(_short, stuck.reasons)]
    shown = [number for number in stuck.numbers if number < len(operations)]
    lines += [describe(number, operations[number]) for number in shown]
    beside = [
        number
        for number in sorted(among)
        if number not in shown and _is_beside(operations[number], stuck, operations, shown)
    ]
    if beside:
        lines.append("beside them:")
        nearest = sorted(beside, key=lambda number: _distance(operations[number], stuck))
        kept = sorted(nearest[:SHOWN_MAX])
        lines += [describe(number, operations[number]) for number in kept]
        if len(beside) > len(kept):
            lines.append(f"and {len(beside) - len(kept)} more")
    return ViolationError(CHECKER, "\n  ".join(lines))


def _distance(operation: Operation, stuck: Stuck) -> int:
    place = _place(operation)
    return 0 if place is None else abs(place - stuck.revision)


def _is_beside(
    operation: Operation, stuck: Stuck, operations: list[Operation], shown: list[int]
) -> bool:
    place = _place(operation)
    if place is not None and abs(place - stuck.revision) <= 1:
        return True
    return any(
        operation.called_at <= operations[number].returned_at
        and operations[number].called_at <= operation.returned_at
        for number in shown
    )


def _place(operation: Operation) -> int | None:
    header = getattr(operation.response, "header", None)
    return None if header is None else header.revision


def describe(number: int, operation: Operation) -> str:
    """An operation in a line."""
    if operation.response is not None:
        said = f"answered {operation.response}"
    else:
        said = f"{operation.outcome.value} {operation.error}".strip()
    times = f"{operation.called_at:.6f} to {operation.returned_at:.6f}"
    who = f"client {operation.client}, member {operation.member}"
    return _short(f"operation {number} ({who}, {times}): {operation.request} {said}")


def _short(words: Any) -> str:
    text = str(words)
    return text if len(text) <= WORDS_MAX else f"{text[:WORDS_MAX]} …"

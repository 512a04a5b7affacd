"""The search for an order: Wing and Gong's, in Lowe's form, along the revisions.

It goes from revision to revision. Where an answer names who wrote the revision there is nothing to
choose; elsewhere it was a call of unknown outcome or the end of a lease, or, if others write too,
nobody of ours. Each choice is tried, and taken back where some answer does not fit the state that
it leads to. A state that failed once with the same calls used up is not entered again.

Why nothing is lost by going this way: a write that was answered has the revision of its header and
no other, a read the state of its header's revision. So those calls have one place each in every
order that explains the answers, and their order in real time can be compared beforehand. A call of
unknown outcome that changes nothing may as well not have happened. One that changes something has a
revision that no answered write has, and any will do that is not behind the place of a call that was
over when it began.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from tests.checking.evidence import Evidence
from tests.checking.model import FIRST_REVISION, Effect, State, without_headers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvstore.types import Event, KeyValue
    from tests.checking.calls import Calls, Placed, Possible, Seen
    from tests.checking.model import Undo


class UndecidedError(Exception):
    """The search was given up: neither is there an order, nor is it shown that there is none."""


class Stuck(msgspec.Struct):
    """No order explains the answers.

    Attributes:
        revision: How far any order came.
        reasons: Why no further: what does not fit there, in words.
        numbers: Which operations say so.
    """

    revision: int
    reasons: list[str]
    numbers: list[int]


class Deadlines:
    """Until when a write of a revision must have been called: before the first call that has a
    place at or behind it was over.
    """

    def __init__(self, placed: list[Placed]) -> None:
        ordered = sorted(placed, key=lambda call: call.place)
        self._places = [call.place for call in ordered]
        self._times = [inf] * (len(ordered) + 1)
        for index in range(len(ordered) - 1, -1, -1):
            self._times[index] = min(self._times[index + 1], ordered[index].returned_at)

    def of(self, revision: int) -> float:
        """The latest time at which an unanswered writer of this revision may have been called."""
        return self._times[bisect_left(self._places, revision)]


class _Choice(msgspec.Struct):
    changes: list[KeyValue]
    used: int = -1


class _Frame:
    __slots__ = ("choices", "stop", "tried", "undo", "used")

    def __init__(self, stop: int, choices: Iterator[_Choice]) -> None:
        self.stop = stop
        self.choices = choices
        self.undo: Undo | None = None
        self.used = -1
        self.tried = 0


class Search:
    """One search.

    Args:
        calls: What was called.
        stops: The revisions to look at, in order.
        gaps: Those among them that no answered write has.
        deadlines: Of all calls of the history, also those that are not among ``calls``.
        alone: Whether nobody else writes: each revision is somebody's of ours.
        truth: What each revision changed, from its first one on; empty: that is not known.
        states_max: How many states may be entered before it is given up.
    """

    def __init__(
        self,
        calls: Calls,
        stops: list[int],
        gaps: set[int],
        deadlines: Deadlines,
        *,
        alone: bool,
        truth: dict[int, list[Event]],
        states_max: int,
    ) -> None:
        self._stops, self._gaps, self._deadlines = stops, gaps, deadlines
        self._alone, self._truth, self._states_max = alone, truth, states_max
        self._truth_from = min(truth, default=0)
        self._possible: list[Possible] = calls.possible
        self._evidence = Evidence(calls)
        self._writers: dict[int, Placed] = {}
        self._doubtful: dict[int, list[Placed]] = defaultdict(list)
        self._readers: dict[int, list[Placed]] = defaultdict(list)
        self._seen: dict[int, list[Seen]] = defaultdict(list)
        for placed in calls.placed:
            if placed.changes:
                self._writers[placed.place] = placed
            elif placed.changes is None:
                self._doubtful[placed.place].append(placed)
            elif placed.request is not None:
                self._readers[placed.place].append(placed)
        for seen in calls.seen:
            self._seen[seen.revision].append(seen)
        self._used = [False] * len(self._possible)
        self._state = State(stops[0] - 1 if stops else FIRST_REVISION)
        self._failed: dict[int, set[Any]] = defaultdict(set)
        self._deepest = Stuck(0, [], [])
        self.states = 0

    def run(self) -> Stuck | None:
        """Search; None if there is an order.

        Raises:
            UndecidedError: After ``states_max`` states.
        """
        if not self._stops:
            return None
        frames = [self._enter(0)]
        while frames:
            frame = frames[-1]
            self._leave_choice(frame)
            if not self._take_choice(frame):
                if frame.tried > 1:
                    self._failed[frame.stop].add(self._fingerprint())
                frames.pop()
            elif frame.stop + 1 == len(self._stops):
                return None
            else:
                frames.append(self._enter(frame.stop + 1))
        return self._deepest

    def _enter(self, stop: int) -> _Frame:
        failed = self._failed.get(stop)
        if failed and self._fingerprint() in failed:
            return _Frame(stop, iter(()))
        # The revision before may be one that nobody looks at.
        self._state.revision = self._stops[stop] - 1
        return _Frame(stop, self._choices(self._stops[stop]))

    def _fingerprint(self) -> tuple[Any, ...]:
        return tuple(self._used), tuple(self._state.keys.items())

    def _take_choice(self, frame: _Frame) -> bool:
        """Go on to the frame's revision in the next way that fits what was seen there."""
        revision = self._stops[frame.stop]
        for choice in frame.choices:
            self.states += 1
            if self.states > self._states_max:
                raise UndecidedError(f"{self._states_max} states were not enough")
            frame.tried += 1
            frame.undo = self._state.apply(choice.changes, revision)
            frame.used = choice.used
            if choice.used >= 0:
                self._used[choice.used] = True
            if self._fits(revision, choice):
                return True
            self._leave_choice(frame)
        return False

    def _leave_choice(self, frame: _Frame) -> None:
        if frame.undo is None:
            return
        self._state.take_back(frame.undo, self._stops[frame.stop] - 1)
        frame.undo = None
        if frame.used >= 0:
            self._used[frame.used] = False
            frame.used = -1

    # --- who wrote this revision?

    def _choices(self, revision: int) -> Iterator[_Choice]:
        writer = self._writers.get(revision)
        if writer is not None:
            effect = self._execute(writer)
            if effect is not None and self._is_true(revision, effect.changes, writer.number):
                yield _Choice(effect.changes)
        elif revision not in self._gaps:
            yield _Choice([])
        else:
            yield from self._fillers(revision)

    def _execute(self, placed: Placed) -> Effect | None:
        """What an answered write does here; None if that is not what it was answered."""
        assert placed.request is not None, "a write without a meaning"
        effect = self._state.execute(placed.request)
        if effect.refusal is not None or not effect.changes:
            why = (
                "changes nothing"
                if effect.refusal is None
                else f"is refused: {effect.refusal.name}"
            )
            self._stuck(placed.place, f"in the model it {why}", placed.number)
            return None
        if placed.response is not None:
            answered = without_headers(placed.response, placed.request)
            if answered != effect.response:
                self._differs(placed.place, placed.number, answered, effect.response)
                return None
        return effect

    def _fillers(self, revision: int) -> Iterator[_Choice]:
        """Whoever may have written a revision that no answer claims: the likeliest first."""
        forced = self._evidence.forced.get(revision, set())
        wanted = self._wanted(revision)
        nobody = not (self._alone or forced or self._truth.get(revision))
        if nobody and not wanted:
            nobody = False
            yield _Choice([])
        ranked: list[tuple[float, int, _Choice]] = []
        for choice in self._candidates(revision, forced):
            due = min((wanted.get(change.key, inf) for change in choice.changes), default=inf)
            ranked.append((due, self._is_wanted_later(revision, choice), choice))
        ranked.sort(key=lambda row: row[:2])
        for due, _, choice in ranked:
            if nobody and due == inf:
                nobody = False
                yield _Choice([])
            yield choice
        if nobody:
            yield _Choice([])
        if not ranked and (self._alone or forced or self._truth.get(revision)):
            self._stuck(revision, f"nobody can have written revision {revision}", None)

    def _is_wanted_later(self, revision: int, choice: _Choice) -> bool:
        """Whether it looks as if what this writes was seen to be written at another revision."""
        for change in choice.changes:
            fact = self._evidence.next_fact(change.key, revision)
            if fact is not None and fact.record is not None and change.version:
                known = fact.record
                later = known.mod_revision > revision and known.mod_revision in self._gaps
                if later and (not fact.has_value or known.value == change.value):
                    return True
        return False

    def _candidates(self, revision: int, forced: set[bytes]) -> Iterator[_Choice]:
        latest = self._deadlines.of(revision)
        for placed in self._doubtful.get(revision, ()):
            assert placed.request is not None, "a write without a meaning"
            effect = self._state.execute(placed.request)
            if placed.called_at <= latest and self._may_write(revision, effect, forced):
                yield _Choice(effect.changes)
        for index, possible in enumerate(self._possible):
            if self._used[index] or possible.called_at > latest:
                continue
            effect = self._state.execute(possible.request)
            if self._may_write(revision, effect, forced):
                yield _Choice(effect.changes, index)

    def _may_write(self, revision: int, effect: Effect, forced: set[bytes]) -> bool:
        if effect.refusal is not None or not effect.changes:
            return False
        final = {change.key: change for change in effect.changes}
        return (
            forced <= final.keys()
            and all(
                self._evidence.allows(key, change if change.version else None, revision)
                for key, change in final.items()
            )
            and self._is_true(revision, effect.changes, None)
        )

    def _wanted(self, revision: int) -> dict[bytes, float]:
        """Keys that somebody unknown must change about now, with the revision until which."""
        wanted: dict[bytes, float] = {}
        for window in self._evidence.windows:
            if not window.after < revision < window.before or window.key in wanted:
                continue
            record = self._state.keys.get(window.key)
            if record is None:
                continue
            if not window.deletes:
                fact = self._evidence.next_fact(window.key, revision)
                if fact is None or fact.record is None:
                    continue
                until = fact.record.mod_revision
                rest = self._evidence.puts_between(window.key, revision - 1, until)
                rest += until in self._gaps
                if record.version + rest >= fact.record.version:
                    continue
            wanted[window.key] = window.before
        return wanted

    def _is_true(self, revision: int, changes: list[KeyValue], number: int | None) -> bool:
        """Whether these changes are what really happened at a revision, where that is known."""
        if not self._truth or revision < self._truth_from:
            return True
        happened = [event.kv for event in self._truth.get(revision, [])]
        if happened == changes:
            return True
        if number is not None:
            self._stuck(
                revision, f"what happened was {happened}, but it would do {changes}", number
            )
        return False

    # --- does everything fit that was seen of it?

    def _fits(self, revision: int, choice: _Choice) -> bool:
        for seen in self._seen.get(revision, ()):
            found = self._state.execute(seen.request).response
            answered = without_headers(seen.response, seen.request)
            if answered.count < 0:
                answered.count, answered.more = found.count, found.more
            if answered != found:
                return self._differs(revision, seen.number, answered, found)
        for reader in self._readers.get(revision, ()):
            if not self._fits_reader(revision, reader):
                return False
        for placed in self._doubtful.get(revision, ()):
            assert placed.request is not None, "a write without a meaning"
            if self._state.execute(placed.request).changes:
                self._stuck(revision, "it would still change something here", placed.number)
                return False
        return True

    def _fits_reader(self, revision: int, reader: Placed) -> bool:
        assert reader.request is not None, "a reader without a meaning"
        effect = self._state.execute(reader.request)
        if effect.refusal is not None:
            words = f"in the model it is refused: {effect.refusal.name}"
            return self._stuck(revision, words, reader.number)
        answered = without_headers(reader.response, reader.request)
        if effect.changes or answered != effect.response:
            return self._differs(revision, reader.number, answered, effect.response)
        return True

    # --- words

    def _differs(self, revision: int, number: int, answered: Any, expected: Any) -> bool:
        return self._stuck(revision, f"answered {answered}, the model has {expected}", number)

    def _stuck(self, revision: int, words: str, number: int | None) -> bool:
        """Remember what went wrong if no order came further; False."""
        if revision > self._deepest.revision:
            self._deepest = Stuck(revision, [], [])
        if revision == self._deepest.revision and len(self._deepest.reasons) < 3:
            said = words if number is None else f"operation {number}: {words}"
            if said not in self._deepest.reasons:
                self._deepest.reasons.append(said)
                if number is not None:
                    self._deepest.numbers.append(number)
        return False

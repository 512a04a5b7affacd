"""A second opinion: try every order of a few calls, without any thought.

Nothing is taken from what the search knows (places, gaps, evidence, keys by themselves): an order
is right if it agrees with time, and each answer is what the store would have said there.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from kvstore.types import RangeRequest
from tests.checking.history import Outcome
from tests.checking.model import State, without_headers

if TYPE_CHECKING:
    from kvstore.types import KeyValue
    from tests.checking.history import History, Operation

CALLS_MAX = 7


def has_order(history: History) -> bool:
    """Whether some order of the calls explains every answer.

    Args:
        history: Of a store that was empty, and that nobody else wrote to: puts, ranges, deletes and
            transactions that read no past; no leases and no compactions.
    """
    calls = [each for each in history.operations if each.outcome is not Outcome.REFUSED]
    assert len(calls) <= CALLS_MAX, f"{len(calls)} calls have too many orders"
    return _can_go_on(State(), [State().find(b"\0", b"\0")], calls)


def _can_go_on(state: State, past: list[list[KeyValue]], left: list[Operation]) -> bool:
    answered = [call for call in left if call.outcome is Outcome.OK]
    if not answered:
        # Those that are left over may never have happened.
        return True
    first_end = min(call.returned_at for call in answered)
    for place, call in enumerate(left):
        if _called_at(call) > first_end:
            continue
        rest = left[:place] + left[place + 1 :]
        if _happens(call, state, past, rest):
            return True
    return False


def _called_at(call: Operation) -> float:
    """A serializable read may show the past: it counts as called before everything."""
    local = isinstance(call.request, RangeRequest) and call.request.serializable
    return -inf if local else call.called_at


def _happens(
    call: Operation, state: State, past: list[list[KeyValue]], rest: list[Operation]
) -> bool:
    """Whether an order goes on with this call."""
    before = state.revision
    effect = state.execute(call.request)
    if effect.refusal is not None:
        return False
    after = before + bool(effect.changes)
    if call.outcome is Outcome.OK:
        header = call.response.header
        if header is None or header.revision != after:
            return False
        if isinstance(call.request, RangeRequest) and call.request.revision > 0:
            if not _shows_past(call, past):
                return False
        elif without_headers(call.response, call.request) != effect.response:
            return False
    undo = state.apply(effect.changes, after)
    if effect.changes:
        past.append(state.find(b"\0", b"\0"))
    goes_on = _can_go_on(state, past, rest)
    if effect.changes:
        past.pop()
    state.take_back(undo, before)
    return goes_on


def _shows_past(call: Operation, past: list[list[KeyValue]]) -> bool:
    revision = call.request.revision
    if revision > len(past):
        return False
    state = State(revision)
    state.apply(past[revision - 1], revision)
    return bool(
        without_headers(call.response, call.request) == state.execute(call.request).response
    )

"""Does a lock, or an election, have one holder at a time?

By the store: who was told that it holds the lock had the oldest key under its name, and what is
written under a fence (the create revision of that key) is never older than what was written under a
later one. By the clocks of the holders: nobody is told that it holds what another holds, who was
told so before, has not begun to give it up, and whose lease has time left by its own count.
"""

from __future__ import annotations

from collections import defaultdict
from math import inf
from typing import TYPE_CHECKING

import msgspec

from kvstore.types import (
    CampaignRequest,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    EventType,
    LockRequest,
    ProclaimRequest,
    TxnRequest,
)
from tests.checking.calls import LOCK_LEASE_SECONDS, key_of, leaves
from tests.checking.history import Outcome, shown
from tests.checking.past import Past
from tests.checking.violation import ViolationError
from tests.kvstore.mvcc.model import in_range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvstore.types import Event, KeyValue, LeaderResponse
    from tests.checking.history import History, Observation, Operation

CHECKER = "mutual exclusion"


class _Holding(msgspec.Struct):
    """Somebody was told that it holds a lock.

    Attributes:
        number: The operation.
        name: Of the lock or election.
        key: What stands for the holder.
        told_at: When.
        ends_at: When the holder began to give it up, or may have.
        until: Promises of its lease: from when on it knew, and until when it is there.
    """

    number: int
    name: bytes
    key: bytes
    told_at: float
    ends_at: float
    until: list[tuple[float, float]]

    def is_live(self, at: float) -> bool:
        """Whether the holder has every right to think that it holds the lock."""
        return at < self.ends_at and any(known <= at < end for known, end in self.until)


def check(history: History, *, drift_share: float = 0.0) -> None:
    """Judge a history.

    Args:
        history: What clients did and saw. Without its ``truth`` only their words are compared.
        drift_share: How much faster than the clients' clock a member's may run.

    Raises:
        ViolationError: Two held one lock.
    """
    holdings = list(_holdings(history, drift_share))
    past = Past(history.truth)
    by_name: dict[bytes, list[_Holding]] = defaultdict(list)
    for holding in holdings:
        by_name[holding.name].append(holding)
        if history.truth:
            _check_turn(history, holding, past)
    for together in by_name.values():
        _check_overlaps(history, together)
    _check_fences(history, holdings)
    whole = not any(operation.method == "compact" for operation in history.operations)
    for observation in history.observations:
        _check_observed(observation, history, whole=whole)


# --- who held what, and for how long? -------------------------------------------------------------


def _holdings(history: History, drift_share: float) -> Iterator[_Holding]:
    promises, grants = _promises(history, drift_share)
    for number, operation in enumerate(history.operations):
        request = operation.request
        if operation.outcome is not Outcome.OK:
            continue
        if not isinstance(request, LockRequest | CampaignRequest):
            continue
        key = key_of(operation)
        until = promises[request.lease]
        if not request.lease:
            seconds = LOCK_LEASE_SECONDS * (1 - drift_share)
            until = [(operation.returned_at, operation.called_at + seconds)]
        elif grants[request.lease] != 1:
            # It cannot be told which of the leases under this id is meant, or it is not ours.
            until = []
        ends_at = _ends_at(history, number, key, request.lease)
        yield _Holding(number, request.name, key, operation.returned_at, ends_at, until)


def _promises(
    history: History, drift_share: float
) -> tuple[dict[int, list[tuple[float, float]]], dict[int, int]]:
    """Until when each lease is there, by what its holder was told; and how often it was granted."""
    promises: dict[int, list[tuple[float, float]]] = defaultdict(list)
    grants: dict[int, int] = defaultdict(int)
    for operation in history.operations:
        answered = operation.outcome is Outcome.OK
        if operation.method == "lease_grant" and operation.outcome is not Outcome.REFUSED:
            grants[operation.response.ID if answered else operation.request.ID] += 1
        if answered and operation.method in ("lease_grant", "lease_keep_alive"):
            seconds = operation.response.TTL
            if seconds > 0:
                end = operation.called_at + seconds * (1 - drift_share)
                promises[operation.response.ID].append((operation.returned_at, end))
    return promises, grants


def _ends_at(history: History, number: int, key: bytes, lease: int) -> float:
    """When somebody began to do what may end a holding."""
    begun_at = history.operations[number].called_at
    return min(
        (
            operation.called_at
            for other, operation in enumerate(history.operations)
            if other != number
            and operation.outcome is not Outcome.REFUSED
            and operation.returned_at >= begun_at
            and _may_end(operation, key, lease)
        ),
        default=inf,
    )


def _may_end(operation: Operation, key: bytes, lease: int) -> bool:
    request = operation.request
    match operation.method:
        case "unlock":
            return bool(request.key == key)
        case "resign":
            return request.leader is None or request.leader.key == key
        case "lease_revoke":
            return bool(lease == request.ID)
        case "lock" | "campaign":
            # Who gives up waiting takes its key along, and that may be this one.
            gave_up = operation.outcome is not Outcome.OK
            return gave_up and key == b"%b/%x" % (request.name, request.lease)
    return any(
        isinstance(leaf, DeleteRangeRequest) and in_range(key, leaf.key, leaf.range_end)
        for leaf in leaves(request)
    )


def _check_overlaps(history: History, holdings: list[_Holding]) -> None:
    for place, one in enumerate(holdings):
        for other in holdings[:place]:
            at = max(one.told_at, other.told_at)
            if one.key != other.key and one.is_live(at) and other.is_live(at):
                words = f"two hold {one.name!r} at {at:.6f}"
                raise _wrong(words, history, other.number, one.number)


# --- was it somebody's turn? ----------------------------------------------------------------------


def _check_turn(history: History, holding: _Holding, past: Past) -> None:
    """Whoever was told that it holds a lock had the oldest key at some time before."""
    operation = history.operations[holding.number]
    now = operation.response.header.revision
    campaign = isinstance(operation.request, CampaignRequest)
    if campaign:
        # Its header is of when the candidate entered.
        now = max(
            (each for each, at in history.truth_at.items() if at <= holding.told_at), default=now
        )
    created = past.created_at(holding.key, now)
    if created is None:
        raise _wrong(f"at revision {now} there had been no such key", history, holding.number)
    if campaign and operation.response.leader.rev not in past.creations(holding.key):
        raise _wrong(f"its key is of revision {created}", history, holding.number)
    gone = past.gone_at(holding.key, created)
    for before in past.at(created - 1, holding.name + b"/", holding.name + b"0"):
        over = past.gone_at(before.key, created - 1)
        if over is None or over > now or (gone is not None and gone < over):
            words = f"key {before.key!r} is older, and was there until revision {over}"
            raise _wrong(words, history, holding.number)


# --- fences ---------------------------------------------------------------------------------------


def _check_fences(history: History, holdings: list[_Holding]) -> None:
    """Nobody wrote under a fence after somebody wrote under a later one of the same lock."""
    holders: dict[bytes, list[_Holding]] = defaultdict(list)
    for holding in holdings:
        holders[holding.key].append(holding)
    written: dict[bytes, list[tuple[int, int, int]]] = defaultdict(list)
    for number, operation in enumerate(history.operations):
        for key, fence in _fences(operation):
            mine = holders.get(key, [])
            # Of a key that was there twice it is not known which of them held the lock.
            if len(mine) == 1 and mine[0].told_at <= operation.called_at:
                place = operation.response.header.revision
                written[mine[0].name].append((place, fence, number))
    for writes in written.values():
        newest = (0, 0, -1)
        for write in sorted(writes):
            if write[1] < newest[1]:
                words = f"fence {write[1]} held after fence {newest[1]}"
                raise _wrong(words, history, newest[2], write[2])
            newest = max(newest, write, key=lambda each: each[1])


def _fences(operation: Operation) -> Iterator[tuple[bytes, int]]:
    """The keys of holders that a write asked to be there, and found."""
    request = operation.request
    if operation.outcome is not Outcome.OK:
        return
    if isinstance(request, ProclaimRequest) and request.leader is not None:
        yield request.leader.key, request.leader.rev
    elif isinstance(request, TxnRequest) and operation.response.succeeded and request.success:
        for compare in request.compare:
            equal = compare.result == CompareResult.EQUAL and not compare.range_end
            if equal and compare.target == CompareTarget.CREATE and compare.create_revision:
                yield compare.key, compare.create_revision


# --- observers ------------------------------------------------------------------------------------


def _check_observed(observation: Observation, history: History, *, whole: bool) -> None:
    """Each leader and each of their words once, in order, and none left out; who leads is who came
    first. ``whole``: nothing was compacted, so that an observer need not miss anything.
    """
    last: LeaderResponse | None = None
    led = _led(observation.name, history.truth)
    place = -1
    for response in observation.responses:
        words = _is_wrong_after(last, response)
        if not words and led:
            if response.kv not in led:
                words = "was shown who did not lead"
            elif whole and last is not None and led[place + 1] != response.kv:
                words = f"was not shown {led[place + 1]}"
            else:
                place = led.index(response.kv)
        if words:
            raise ViolationError(
                CHECKER,
                f"an observer of {observation.name!r} on member {observation.member} {words}:\n"
                f"  {last}\n  {response}",
            )
        last = response


def _led(name: bytes, truth: dict[int, list[Event]]) -> list[KeyValue]:
    """Who led, and with which word, one after the other."""
    there: dict[bytes, KeyValue] = {}
    led: list[KeyValue] = []
    for revision in sorted(truth):
        for event in truth[revision]:
            if event.kv is None or not in_range(event.kv.key, name + b"/", name + b"0"):
                continue
            there.pop(event.kv.key, None)
            if event.type == EventType.PUT:
                there[event.kv.key] = event.kv
        first = min(there.values(), key=lambda kv: kv.create_revision, default=None)
        if first is not None and (not led or first != led[-1]):
            led.append(first)
    return led


def _is_wrong_after(last: LeaderResponse | None, response: LeaderResponse) -> str:
    """What is wrong with what an observer was shown, after the last that it was shown."""
    kv, header = response.kv, response.header
    if kv is None or header is None:
        return "was shown nobody"
    if header.revision < kv.mod_revision:
        return f"was shown revision {kv.mod_revision} at {header.revision}"
    if last is None or last.kv is None or last.header is None:
        return ""
    before = last.kv
    if header.revision < last.header.revision:
        return f"was at {last.header.revision}, and went back to {header.revision}"
    if (kv.create_revision, kv.mod_revision) < (before.create_revision, before.mod_revision):
        return "was shown who had led before"
    return "was shown the same again" if kv == before else ""


def _wrong(words: str, history: History, *numbers: int) -> ViolationError:
    lines = [words, *[shown(history.operations[number]) for number in numbers]]
    return ViolationError(CHECKER, "\n  ".join(lines))

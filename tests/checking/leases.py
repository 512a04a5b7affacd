"""Do leases and their keys live as long as was promised, and not much longer?

A grant, a renewal or a word about the time left is a promise: from its call on the lease lives that
long, unless somebody revokes it; a change of leaders may make that more, never less. It ends once,
with all its keys, and does not come back unless it is granted again.

The same id may be granted again and again. So a promise is held against an end only where no other
grant can have come in between; a grant of unknown outcome may come at any time.
"""

from __future__ import annotations

from collections import defaultdict
from math import inf
from typing import TYPE_CHECKING

import msgspec

from kvstore.errors import ErrorKind
from kvstore.types import (
    DeleteRangeRequest,
    EventType,
    PutRequest,
    RangeRequest,
)
from tests.checking import calls as reading
from tests.checking.calls import leaves
from tests.checking.evidence import executed
from tests.checking.history import Outcome, shown
from tests.checking.violation import ViolationError
from tests.kvstore.mvcc.model import in_range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.checking.calls import Calls
    from tests.checking.history import History, Operation
    from tests.checking.model import Request

CHECKER = "lease"
LATE_SECONDS = 8.0
"""So long after its time a lease may still be there though the cluster is well: a new leader gives
an election timeout on top, looks every half second, and asks again after three."""
UNANSWERED_SECONDS = 10.0
"""So long a renewal that was not answered may still be on its way: servers give up sooner."""


class _Word(msgspec.Struct):
    """What somebody was told, or saw, of a lease.

    Attributes:
        number: The operation; -1: it is no client's.
        called_at: It was so at some moment between this one ...
        returned_at: ... and this one.
        until: If it is alive: until when it was promised to be.
        revision: If it is gone, and its keys with it: where.
        revoked: If it is gone: its end was, or may have been, asked for.
    """

    number: int
    called_at: float
    returned_at: float
    until: float = -inf
    revision: int = 0
    revoked: bool = False


class _Life(msgspec.Struct):
    """All that is known of a lease id."""

    grants: list[tuple[int, Operation]] = []
    revokes: list[Operation] = []
    renewals: list[Operation] = []
    alive: list[_Word] = []
    gone: list[_Word] = []


def check(history: History, *, drift_share: float = 0.0, calm_since: float | None = None) -> None:
    """Judge a history.

    Args:
        history: What clients did and saw.
        drift_share: How much faster or slower than the clients' clock a member's may run.
        calm_since: From when on nothing was broken any more, and nobody but a client changed the
            leader; None: not known, so that nothing is too late.

    Raises:
        ViolationError: A lease ended early, late, in part, or came back.
    """
    judge = _Judge(history, drift_share)
    for number, operation in enumerate(history.operations):
        judge.read(number, operation)
    judge.read_truth()
    for lease, life in judge.lives.items():
        judge.check_early(lease, life)
        judge.check_revived(lease, life)
        if calm_since is not None:
            judge.check_late(lease, life, calm_since)


class _Judge:
    def __init__(self, history: History, drift_share: float) -> None:
        self.history = history
        self.lives: dict[int, _Life] = defaultdict(_Life)
        self.kept: dict[int, set[bytes]] = defaultdict(set)
        """Keys that a lease has, as of the last revision."""
        self._drift_share = drift_share

    # --- what clients were told

    def read(self, number: int, operation: Operation) -> None:
        request = operation.request
        match operation.method:
            case "lease_grant":
                self._read_grant(number, operation)
            case "lease_keep_alive":
                self._read_renewal(number, operation)
            case "lease_revoke":
                self._read_revoke(number, operation)
            case "lease_time_to_live" if operation.outcome is Outcome.OK:
                self._told(number, operation, request.ID, operation.response.TTL, least=0)
            case "lease_leases" if operation.outcome is Outcome.OK:
                for status in operation.response.leases:
                    self._told(number, operation, status.ID, 0, least=0)
            case "put" | "txn" if operation.outcome is Outcome.OK:
                for write in executed(request, operation.response):
                    if isinstance(write, PutRequest) and write.lease:
                        self._told(number, operation, write.lease, 0, least=0)
            case "range" if operation.outcome is Outcome.OK:
                if isinstance(request, RangeRequest) and _is_current(request):
                    for lease in sorted({kv.lease for kv in operation.response.kvs if kv.lease}):
                        self._told(number, operation, lease, 0, least=0)

    def _told(
        self, number: int, operation: Operation, lease: int, seconds: float, *, least: int
    ) -> None:
        """A client was told that a lease has so much time left, or that there is none."""
        word = _Word(number, operation.called_at, operation.returned_at)
        if seconds < least:
            self.lives[lease].gone.append(word)
            return
        word.until = operation.called_at + seconds * (1 - self._drift_share)
        self.lives[lease].alive.append(word)

    def _read_grant(self, number: int, operation: Operation) -> None:
        lease = operation.request.ID
        if operation.outcome is Outcome.OK:
            lease = operation.response.ID
            self._told(number, operation, lease, operation.response.TTL, least=1)
        elif operation.outcome is Outcome.REFUSED:
            if ErrorKind.LEASE_EXIST.message in operation.error:
                self._told(number, operation, lease, 0, least=0)
            return
        if lease:
            self.lives[lease].grants.append((number, operation))

    def _read_renewal(self, number: int, operation: Operation) -> None:
        lease = operation.request.ID
        if operation.outcome is Outcome.OK:
            self._told(number, operation, lease, operation.response.TTL, least=1)
        if operation.outcome is not Outcome.REFUSED:
            self.lives[lease].renewals.append(operation)

    def _read_revoke(self, number: int, operation: Operation) -> None:
        life = self.lives[operation.request.ID]
        if operation.outcome is not Outcome.REFUSED:
            life.revokes.append(operation)
        if operation.outcome is Outcome.OK:
            called, returned = operation.called_at, operation.returned_at
            life.gone.append(_Word(number, called, returned, revoked=True))
        elif ErrorKind.LEASE_NOT_FOUND.message in operation.error:
            life.gone.append(_Word(number, operation.called_at, operation.returned_at))

    # --- what really happened

    def read_truth(self) -> None:
        """Find the ends of leases: their keys went, and no call deleted them."""
        if not self.history.truth_at:
            return
        deletions = _Deletions(reading.read(self.history, self._drift_share))
        owner: dict[bytes, int] = {}
        for revision in sorted(self.history.truth):
            events = self.history.truth[revision]
            deleted = {
                event.kv.key
                for event in events
                if event.kv is not None and event.type == EventType.DELETE
            }
            at = self.history.truth_at[revision]
            for key in sorted(deleted):
                lease = owner.get(key, 0)
                if lease and not deletions.explain(key, revision, at):
                    self._end(lease, key, revision, deleted)
            for event in events:
                assert event.kv is not None, "an event has a key"
                self.kept[owner.pop(event.kv.key, 0)].discard(event.kv.key)
                if event.type == EventType.PUT and event.kv.lease:
                    owner[event.kv.key] = event.kv.lease
                    self.kept[event.kv.lease].add(event.kv.key)

    def _end(self, lease: int, key: bytes, revision: int, deleted: set[bytes]) -> None:
        left = sorted(self.kept[lease] - deleted)
        if left:
            raise ViolationError(
                CHECKER,
                f"{key!r} of lease {lease} went at revision {revision}, which no call deleted, and "
                f"{left[:8]} of the same lease stayed",
            )
        life = self.lives[lease]
        if life.gone and life.gone[-1].revision == revision:
            return
        at = self.history.truth_at[revision]
        revoked = any(
            revoke.called_at <= at
            and (
                revoke.outcome is Outcome.UNKNOWN
                or revoke.response.header is None
                or revoke.response.header.revision == revision
            )
            for revoke in life.revokes
        )
        life.gone.append(_Word(-1, at, at, revision=revision, revoked=revoked))

    # --- does it fit?

    def check_early(self, lease: int, life: _Life) -> None:
        """No promise was broken by an end that nobody asked for."""
        for gone in life.gone:
            if gone.revoked:
                continue
            for alive in life.alive:
                if alive.until <= gone.returned_at or alive.called_at > gone.returned_at:
                    continue
                until = max(gone.returned_at, alive.returned_at)
                since = alive.called_at if gone.revision else min(alive.called_at, gone.called_at)
                if _is_of_another(life, alive, gone, since, until):
                    continue
                if not gone.revision and _may_be_revoked(life, alive.called_at, until):
                    continue
                words = f"ended before {alive.until:.6f}, until when it was promised to live"
                raise self._wrong(lease, words, alive, gone)

    def check_revived(self, lease: int, life: _Life) -> None:
        """Nobody has seen it after somebody had seen that it is gone."""
        for gone in life.gone:
            for alive in life.alive:
                if alive.called_at <= gone.returned_at:
                    continue
                if not _granted_anew(life, gone, alive.returned_at):
                    raise self._wrong(lease, "was gone, and came back", gone, alive)

    def check_late(self, lease: int, life: _Life, calm_since: float) -> None:
        """It is not there long after its time while the cluster was well all along."""
        if not life.grants:
            return
        seconds = max(
            grant.request.TTL if grant.response is None else grant.response.TTL
            for _, grant in life.grants
        )
        renewed = [calm_since]
        for operation in (*(grant for _, grant in life.grants), *life.renewals):
            late = min(operation.returned_at, operation.called_at + UNANSWERED_SECONDS)
            renewed.append(late)
        due = max(renewed) + seconds * (1 + self._drift_share) + LATE_SECONDS
        for alive in life.alive:
            if alive.called_at > due:
                raise self._wrong(lease, f"should have ended before {due:.6f}", alive)
        if self.kept[lease] and due < self.history.ended_at < inf:
            words = f"should have ended before {due:.6f}, and has {sorted(self.kept[lease])[:8]}"
            raise self._wrong(lease, words)

    def _wrong(self, lease: int, words: str, *said: _Word) -> ViolationError:
        lines = [f"lease {lease} {words}"]
        for word in said:
            if word.number < 0:
                lines.append(f"its keys went at revision {word.revision}, {word.called_at:.6f}")
                continue
            lines.append(shown(self.history.operations[word.number]))
        return ViolationError(CHECKER, "\n  ".join(lines))


def _is_of_another(life: _Life, alive: _Word, gone: _Word, since: float, until: float) -> bool:
    """Whether a promise may be of another lease of that id than the one that ended: it is a grant
    that may be behind the end (by its revision, where the end has one), or another grant may have
    come between.
    """
    return any(
        (_is_behind(grant, gone) if gone.revision else gone.called_at <= grant.returned_at)
        if number == alive.number
        else grant.called_at <= until and (grant.returned_at >= since or _is_behind(grant, gone))
        for number, grant in life.grants
    )


def _granted_anew(life: _Life, gone: _Word, until: float) -> bool:
    """Whether a grant may have come after an end."""
    return any(
        grant.called_at <= until
        and (
            _is_behind(grant, gone)
            if gone.revision and grant.outcome is Outcome.OK
            else grant.returned_at >= gone.called_at
        )
        for _, grant in life.grants
    )


def _is_behind(grant: Operation, gone: _Word) -> bool:
    header = getattr(grant.response, "header", None)
    return gone.revision > 0 and header is not None and header.revision >= gone.revision


def _may_be_revoked(life: _Life, since: float, until: float) -> bool:
    return any(revoke.called_at <= until and revoke.returned_at >= since for revoke in life.revokes)


def _is_current(request: RangeRequest) -> bool:
    return request.revision <= 0 and not request.serializable and not request.count_only


class _Deletions:
    """Which calls may have deleted a key at a revision."""

    def __init__(self, calls: Calls) -> None:
        self._answered: dict[int, list[DeleteRangeRequest]] = defaultdict(list)
        self._possible: list[tuple[float, DeleteRangeRequest]] = []
        for placed in calls.placed:
            self._answered[placed.place] += _deletes(placed.request)
        for possible in calls.possible:
            for delete in _deletes(possible.request):
                self._possible.append((possible.called_at, delete))

    def explain(self, key: bytes, revision: int, at: float) -> bool:
        return any(
            in_range(key, delete.key, delete.range_end)
            for delete in self._answered.get(revision, ())
        ) or any(
            called_at <= at and in_range(key, delete.key, delete.range_end)
            for called_at, delete in self._possible
        )


def _deletes(request: Request | None) -> Iterator[DeleteRangeRequest]:
    return (leaf for leaf in leaves(request) if isinstance(leaf, DeleteRangeRequest))

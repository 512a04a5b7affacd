"""Leases: keys that vanish together unless somebody keeps saying that they should stay.

The replicated part (which leases there are, their TTL, checkpoint and keys) changes only by applied
commands and is equal on all members. The clock runs on the leader alone, and only proposes: a lease
ends when the command that revokes it is applied, not before.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Final, TypeAlias

import msgspec
from sortedcontainers import SortedSet

from kvstore.budget import Budget, Sliced
from kvstore.errors import ErrorKind, StateError
from kvstore.lease.clock import LeaseClock
from kvstore.mvcc.dismantling import empty_dict
from kvstore.types import LeaseId

TTL_SECONDS_MAX: Final = 9_000_000_000
CHECKPOINT_INTERVAL_SECONDS: Final = 300.0
EXPIRE_RETRY_SECONDS: Final = 3.0

UNSORTED_KEYS_MAX: Final = 256
"""A lease with more keys keeps them in order: sorting 100,000 when it ends would hold the loop for
50 ms."""

_RUN: Final = 256
_MERGE_STEP: Final = 64

_Held: TypeAlias = bytes | set[bytes] | SortedSet[bytes]


class Lease(msgspec.Struct, frozen=True, gc=False):
    """The replicated part of a lease. Replaced, never changed: an export under way keeps its own.

    ``remaining_seconds`` is the last checkpoint, 0 if there is none. ``granted_index`` is the entry
    that granted it: what tells it from another lease that had its id before.
    """

    id: LeaseId
    ttl_seconds: int
    remaining_seconds: int
    granted_index: int = 0


class Lessor:
    """All leases of a store.

    Args:
        min_ttl_seconds: Shorter grants are raised to this. It decides at apply, so it must be the
            same on all members.
        checkpoint_interval_seconds: Leases with more time left than this have it written down that
            often, so that a change of leader does not start them anew.
        expire_retry_seconds: How long ``expired`` waits before it names a lease again.
    """

    __slots__ = (
        "_checkpoint_interval_seconds",
        "_clock",
        "_expire_retry_seconds",
        "_keys",
        "_leases",
        "_min_ttl_seconds",
    )

    def __init__(
        self,
        min_ttl_seconds: int,
        *,
        checkpoint_interval_seconds: float = CHECKPOINT_INTERVAL_SECONDS,
        expire_retry_seconds: float = EXPIRE_RETRY_SECONDS,
    ) -> None:
        self._min_ttl_seconds = min_ttl_seconds
        self._checkpoint_interval_seconds = checkpoint_interval_seconds
        self._expire_retry_seconds = expire_retry_seconds
        self._leases: dict[LeaseId, Lease] = {}
        # Most leases hold one key: it stands here itself, and only a second one makes a set of it.
        # A container a lease would be one more object for each for the cyclic collector to visit.
        self._keys: dict[LeaseId, _Held] = {}
        self._clock: LeaseClock | None = None

    def __len__(self) -> int:
        return len(self._leases)

    # --- replicated: called by apply on every member ---------------------------------------------

    def grant(self, lease_id: LeaseId, ttl_seconds: int, now: float, index: int = 0) -> Lease:
        """Add a lease.

        Args:
            lease_id: Any but 0, which means "none" elsewhere; negative ones too.
            ttl_seconds: Raised to the minimum; zero and negative too.
            now: Monotonic seconds; used only if this member leads.
            index: Of the entry that grants it.

        Raises:
            KvError: LEASE_TTL_TOO_LARGE, LEASE_EXIST, or LEASE_NOT_FOUND for id 0.
        """
        if lease_id == 0:
            raise ErrorKind.LEASE_NOT_FOUND.error()
        if ttl_seconds > TTL_SECONDS_MAX:
            raise ErrorKind.LEASE_TTL_TOO_LARGE.error()
        if lease_id in self._leases:
            raise ErrorKind.LEASE_EXIST.error()
        lease = Lease(lease_id, max(ttl_seconds, self._min_ttl_seconds), 0, index)
        self._leases[lease_id] = lease
        if self._clock is not None:
            self._clock.start(lease, now)
        return lease

    def revoke(self, lease_id: LeaseId) -> list[bytes]:
        """Remove a lease.

        Returns:
            The keys that were attached, sorted: the caller deletes them, in this order.

        Raises:
            KvError: LEASE_NOT_FOUND.
        """
        if self._leases.pop(lease_id, None) is None:
            raise ErrorKind.LEASE_NOT_FOUND.error()
        if self._clock is not None:
            self._clock.stop(lease_id)
        return _sorted(self._keys.pop(lease_id, None))

    def exists(self, lease_id: LeaseId) -> bool:
        """Whether a key may be attached."""
        return lease_id in self._leases

    def get(self, lease_id: LeaseId) -> Lease | None:
        """The replicated part of one lease."""
        return self._leases.get(lease_id)

    def attach(self, lease_id: LeaseId, key: bytes) -> None:
        """The key now lives as long as the lease. Attaching twice is fine.

        Raises:
            KvError: LEASE_NOT_FOUND.
        """
        if lease_id not in self._leases:
            raise ErrorKind.LEASE_NOT_FOUND.error()
        held = self._keys.get(lease_id)
        if held is None:
            self._keys[lease_id] = key
        elif not isinstance(held, bytes):
            held.add(key)
            if type(held) is set and len(held) > UNSORTED_KEYS_MAX:
                self._keys[lease_id] = SortedSet(held)
        elif held != key:
            self._keys[lease_id] = {held, key}

    def detach(self, lease_id: LeaseId, key: bytes) -> None:
        """The key no longer depends on the lease.

        Unknown leases and keys are fine: a revoke lets go of all its keys before they are deleted.
        """
        held = self._keys.get(lease_id)
        if held is None:
            return
        if not isinstance(held, bytes):
            held.discard(key)
            if not held:
                del self._keys[lease_id]
        elif held == key:
            del self._keys[lease_id]

    def keys(self, lease_id: LeaseId) -> list[bytes]:
        """The attached keys, sorted; an unknown lease has none."""
        return _sorted(self._keys.get(lease_id))

    def attached(self, lease_id: LeaseId) -> Sequence[bytes]:
        """As ``keys``, for a look: of many keys it is what is held here, and no copy."""
        held = self._keys.get(lease_id)
        return held if isinstance(held, SortedSet) else _sorted(held)

    def holders(self) -> Collection[LeaseId]:
        """The leases that have keys, for a look."""
        return self._keys.keys()

    def checkpoint(self, lease_id: LeaseId, remaining_seconds: int) -> None:
        """Write down how much time is left; 0 clears it. An unknown lease is fine: it may have been
        revoked while the checkpoint was on its way.
        """
        lease = self._leases.get(lease_id)
        if lease is None:
            return
        if self._clock is not None:
            self._clock.pin(lease)
            self._clock.checkpoint_applied(lease_id)
        remaining_seconds = min(max(remaining_seconds, 0), lease.ttl_seconds)
        if remaining_seconds != lease.remaining_seconds:
            self._leases[lease_id] = Lease(
                lease_id, lease.ttl_seconds, remaining_seconds, lease.granted_index
            )

    def export(self) -> Iterator[tuple[int, int, int, int]]:
        """The leases as (id, ttl, remaining, index of the grant), as they are at this call.

        In the order of their grants, which is the same on all members: an import keeps it, and a
        checkpoint leaves a lease in its place. Sorting 100,000 would hold the loop for 10 ms. The
        rows may be drawn later, between other commands.

        Attached keys are not among them: the newest version of a key names its lease, and whoever
        loads the store attaches it from there.
        """
        leases = list(self._leases.values())
        return (
            (lease.id, lease.ttl_seconds, lease.remaining_seconds, lease.granted_index)
            for lease in leases
        )

    def import_(self, rows: Iterable[tuple[int, int, int, int]]) -> None:
        """Add exported leases, as often as called; the keys are attached afterwards.

        Raises:
            StateError: The rows do not come from an export.
        """
        for lease_id, ttl, remaining, index in rows:
            in_range = lease_id and 0 < ttl <= TTL_SECONDS_MAX and 0 <= remaining <= ttl
            if not in_range or index < 0 or lease_id in self._leases:
                raise StateError(f"a snapshot holds an impossible lease {lease_id}, TTL {ttl}")
            self._leases[LeaseId(lease_id)] = Lease(LeaseId(lease_id), ttl, remaining, index)

    # --- local: on the leader only ---------------------------------------------------------------

    @property
    def primary(self) -> bool:
        """Whether the clock runs here."""
        return self._clock is not None

    def promote(self, now: float, extend_seconds: float) -> None:
        """This member leads, and has applied an entry of its own term: start the clock.

        Args:
            now: Monotonic seconds.
            extend_seconds: Added to what each lease has left by its checkpoint or TTL: the time in
                which the last leader may still have answered keep-alives (an election timeout).
        """
        self._clock = LeaseClock(
            self._leases,
            now,
            extend_seconds,
            self._checkpoint_interval_seconds,
            self._expire_retry_seconds,
        )

    def demote(self) -> None:
        """This member leads no more."""
        self._clock = None

    def needs_checkpoint_clear(self, lease_id: LeaseId) -> bool:
        """Whether a checkpoint must be cleared through the log before the lease is renewed.

        True if there is one, or one may be on its way. Without this, the next leader could end a
        lease earlier than its holder was told. Once the answer was True no further checkpoint of
        this lease is handed out until it is renewed; ask again after the clearing was applied.
        """
        lease = self._leases.get(lease_id)
        if lease is None or self._clock is None:
            return False
        return self._clock.hold_back_checkpoint(lease)

    def renew(self, lease_id: LeaseId, now: float) -> int | None:
        """Start a lease's time anew.

        Returns:
            Its TTL; None if there is no such lease, if this member does not lead, or if the lease
            has run out. In the last case ``exists`` still holds: wait for the revocation.
        """
        lease = self._leases.get(lease_id)
        clock = self._clock
        if lease is None or clock is None or clock.deadline(lease) <= now:
            return None
        assert not lease.remaining_seconds, "a lease is renewed over its checkpoint"
        clock.start(lease, now)
        return lease.ttl_seconds

    def expired(self, now: float, limit: int) -> list[LeaseId]:
        """Up to ``limit`` leases that have run out, soonest first, to be revoked through the log.

        A lease that was named is not named again for the retry interval. On a leader that took over
        very many leases they come in over several calls.
        """
        return [] if self._clock is None else self._clock.expired(now, limit)

    def due_checkpoints(self, now: float, limit: int) -> list[tuple[LeaseId, int]]:
        """Leases whose remaining seconds should be written down through the log, at most ``limit``.

        A proposal that carries them must not be sent again after a refusal: it would be older than
        it looks. The next interval brings a new one.
        """
        return [] if self._clock is None else self._clock.due_checkpoints(now, limit)

    def remaining(self, lease_id: LeaseId, now: float) -> float:
        """Seconds left, at least 0; -1 if there is no such lease.

        Where the clock does not run: what a new leader would start from.
        """
        lease = self._leases.get(lease_id)
        if lease is None:
            return -1.0
        if self._clock is None:
            return float(lease.remaining_seconds or lease.ttl_seconds)
        return max(self._clock.deadline(lease) - now, 0.0)

    def by_expiry(self, now: float) -> list[LeaseId]:
        """All leases, the one that runs out soonest first, ties by id. For few leases only."""
        rows = _left(list(self._leases.values()), self._clock, now)
        rows.sort()
        return [lease_id for _, lease_id in rows]

    def by_expiry_sliced(self, now: float, budget: Budget) -> Sliced[list[LeaseId]]:
        """As ``by_expiry``, of the leases that are there at the first slice.

        What is granted, renewed or revoked between two slices may come in as it was before: whoever
        asks meanwhile cannot tell which was first.
        """
        leases = list(self._leases.values())
        clock = self._clock
        runs = []
        for start in range(0, len(leases), _RUN):
            run = _left(leases[start : start + _RUN], clock, now)
            run.sort(reverse=True)
            runs.append(run)
            if budget.spent():
                yield
        found: list[LeaseId] = []
        rows = merge(*map(_drain, runs))
        while piece := [lease_id for _, lease_id in islice(rows, _MERGE_STEP)]:
            found += piece
            if budget.spent():
                yield
        return found

    def dismantle(self, budget: Budget) -> Sliced[None]:
        """Let go of all leases, piece by piece: another lessor has taken this one's place."""
        clock = self._clock
        self._clock = None
        if clock is not None:
            yield from clock.dismantle(budget)
        yield from empty_dict(self._keys, budget)
        yield from empty_dict(self._leases, budget)


def _left(leases: list[Lease], clock: LeaseClock | None, now: float) -> list[tuple[float, LeaseId]]:
    if clock is not None:
        return clock.left(leases, now)
    return [(float(x.remaining_seconds or x.ttl_seconds), x.id) for x in leases]


def _drain(run: list[tuple[float, LeaseId]]) -> Iterator[tuple[float, LeaseId]]:
    # Takes out what it gives: letting go of 100,000 rows at the end would be a slice of 10 ms.
    while run:
        yield run.pop()


def _sorted(held: _Held | None) -> list[bytes]:
    if held is None:
        return []
    if isinstance(held, bytes):
        return [held]
    if isinstance(held, set):
        return sorted(held)
    return held[:]

"""Who keeps the time of leases? The leader, and only while it is sure to be one.

Expiry is a command like any other (so all members agree when a lease ended), proposed by the leader
for its own term. Questions after a lease's time go to the leader, which answers after a leadership
round that began after they arrived: a deposed leader must not promise a lease that its successor
has let expire.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from kvstore.auth.check import NOBODY, Identity, authorise, authorise_lease_list
from kvstore.commands import Kind, LeaseCheckpoint, LeaseExpire
from kvstore.errors import ErrorKind, KvError
from kvstore.server.pacing import ClockBudget, SlicedTask, answer
from kvstore.types import LeaseId, LeaseKeepAliveRequest, LeaseTimeToLiveRequest
from raft.types import NO_NODE, Role

if TYPE_CHECKING:
    import asyncio

    from kvstore.budget import Budget, Sliced
    from kvstore.lease.lessor import Lessor
    from kvstore.server.driver import Driver
    from kvstore.server.peers import CallReply, Peers
    from kvstore.server.proposals import Proposals
    from kvstore.server.reads import Reads
    from kvstore.types import Record
    from raft.effects import RoleChange

log = logging.getLogger("kvstore.lease")

CHECK_SECONDS = 0.5
EXPIRED_MAX = 500
"""Leases that one command ends, at most: the next check goes on."""
CHECKPOINTS_MAX = 1000
WAIT_FOR_EXPIRY_SECONDS = 0.05
ASK_AGAIN_SECONDS = 0.05
ASKING_MAX = 20_000
"""Questions of this member that may wait; more are refused at once as retryable."""

NO_LEADER = ErrorKind.NO_LEADER.error()
CONNECTION_LOST = ErrorKind.TIMEOUT_CONNECTION_LOST.error()
TIMED_OUT = ErrorKind.TIMEOUT.error()

_encode = msgspec.msgpack.Encoder().encode
_decode_seconds = msgspec.msgpack.Decoder(int).decode
_decode_lease = msgspec.msgpack.Decoder(tuple[int, str, int]).decode
_decode_question = msgspec.msgpack.Decoder(tuple[int, bool, str, int]).decode
_decode_asker = msgspec.msgpack.Decoder(tuple[str, int]).decode
_decode_ids = msgspec.msgpack.Decoder(list[int]).decode


class TimeLeft(msgspec.Struct, array_like=True):
    """What remains of a lease, in whole seconds (-1.

    There is none), what was granted, and its keys if asked for.
    """

    remaining_seconds: int
    granted_seconds: int
    keys: list[bytes]


_decode_time_left = msgspec.msgpack.Decoder(TimeLeft).decode


class LeaseKeeper:
    """The clockwork of leases on one member.

    Args:
        loop: Its monotonic time is the time of leases.
        driver: Knows the role; its applier knows the state.
        extend_seconds: What a new leader gives every lease on top: the time in which nobody could
            renew.
        timeout_seconds: How long a question may wait for its answer.
    """

    def __init__(
        self,
        loop: "asyncio.AbstractEventLoop",
        driver: "Driver",
        proposals: "Proposals",
        reads: "Reads",
        peers: "Peers",
        *,
        extend_seconds: float,
        timeout_seconds: float,
    ) -> None:
        self._loop = loop
        self._driver = driver
        self._proposals = proposals
        self._reads = reads
        self._peers = peers
        self._extend_seconds = extend_seconds
        self._timeout_seconds = timeout_seconds
        self._served_term = 0
        self._next_check = 0.0
        self._asking: dict[int, Callable[[Any], None]] = {}
        self._asked = 0
        self.expired_total = 0
        self.renewed_total = 0
        driver.on_tick(self._tick)
        driver.on_role(self._on_role)
        peers.serve("lease.keep_alive", self._on_keep_alive)
        peers.serve("lease.time_to_live", self._on_time_to_live)
        peers.serve("lease.leases", self._on_leases)

    @property
    def _lessor(self) -> "Lessor":
        return self._driver.applier.machine.lessor

    @property
    def _serving(self) -> bool:
        return self._served_term != 0

    # --- clockwork --------------------------------------------------------------------------------

    def _on_role(self, change: "RoleChange") -> None:
        if self._serving and (change.role != Role.LEADER or change.term != self._served_term):
            self._served_term = 0
            self._lessor.demote()

    def _tick(self, now: float) -> None:
        driver = self._driver
        if driver.role != Role.LEADER:
            return
        if not self._serving:
            # Only with an entry of its own term applied does a leader know all that its
            # predecessors granted and revoked.
            if driver.applier.machine.applied_term != driver.raft.term:
                return
            self._served_term = driver.raft.term
            self._lessor.promote(now, self._extend_seconds)
        if now >= self._next_check and not driver.applier.busy:
            self._next_check = now + CHECK_SECONDS
            self._expire(now)

    def _expire(self, now: float) -> None:
        lessor = self._lessor
        term = self._served_term
        deadline = now + self._timeout_seconds
        ids = lessor.expired(now, EXPIRED_MAX)
        if ids:
            self.expired_total += len(ids)
            ended = LeaseExpire(term, list(ids), self._grants(ids))
            self._propose(Kind.LEASE_EXPIRE, ended, deadline)
        due = lessor.due_checkpoints(now, CHECKPOINTS_MAX)
        if due:
            leases = [lease for lease, _ in due]
            left = [seconds for _, seconds in due]
            body = LeaseCheckpoint(term, list(leases), left, self._grants(leases))
            # Sent again after a renewal it would be older than it looks.
            self._propose(Kind.LEASE_CHECKPOINT, body, deadline, once=True)

    def _grants(self, leases: list[LeaseId]) -> list[int]:
        """Which leases these ids mean now: the indexes of their grants."""
        found = [self._lessor.get(lease) for lease in leases]
        return [0 if lease is None else lease.granted_index for lease in found]

    def _propose(
        self,
        kind: Kind,
        body: "LeaseExpire | LeaseCheckpoint",
        deadline: float,
        *,
        once: bool = False,
    ) -> None:
        def done(result: object) -> None:
            if isinstance(result, KvError):
                log.warning("%s was not decided in time: %s", kind.name.lower(), result.message)

        self._proposals.submit(kind, body, done, deadline, internal=True, once=once)

    # --- questions --------------------------------------------------------------------------------

    # ``patience_seconds`` is how long the caller would wait; the server's own limit holds besides.
    # ``identity`` is who asks: the leader judges by its own state, at the moment of its answer.

    def keep_alive(
        self,
        lease: int,
        reply: "Callable[[int | KvError], None]",
        patience_seconds: float | None = None,
        identity: Identity = NOBODY,
    ) -> None:
        """Start a lease's time anew; ``reply`` gets its granted seconds, 0 if there is none."""
        if patience_seconds is None and self._driver.role == Role.LEADER:
            self._keep_alive_here(LeaseId(lease), identity, reply)
        else:
            self._ask_keep_alive(lease, identity, reply, patience_seconds)

    def _keep_alive_here(
        self, lease: LeaseId, identity: Identity, reply: "Callable[[int | KvError], None]"
    ) -> None:
        """What is asked of the leader itself needs no timer: its round has one."""

        def settle(result: "int | KvError") -> None:
            if isinstance(result, KvError) and result == NO_LEADER:
                # It led when it was asked. Whoever leads now, or will soon, knows better.
                self._ask_keep_alive(lease, identity, reply, None)
            else:
                reply(result)

        give_up = self._loop.time() + self._timeout_seconds
        self._confirmed(settle, partial(self._renew, lease, identity, settle, give_up))

    def _ask_keep_alive(
        self,
        lease: int,
        identity: Identity,
        reply: "Callable[[int | KvError], None]",
        patience_seconds: float | None,
    ) -> None:
        body = _encode((lease, identity.user, identity.revision))
        self._ask("lease.keep_alive", body, _decode_seconds, reply, patience_seconds)

    def time_to_live(
        self,
        lease: int,
        *,
        keys: bool,
        reply: "Callable[[TimeLeft | KvError], None]",
        patience_seconds: float | None = None,
        identity: Identity = NOBODY,
    ) -> None:
        """What remains of a lease."""
        body = _encode((lease, keys, identity.user, identity.revision))
        self._ask("lease.time_to_live", body, _decode_time_left, reply, patience_seconds)

    def leases(
        self,
        reply: "Callable[[list[int] | KvError], None]",
        patience_seconds: float | None = None,
        identity: Identity = NOBODY,
    ) -> None:
        """All leases, soonest expiry first."""
        body = _encode((identity.user, identity.revision))
        self._ask("lease.leases", body, _decode_ids, reply, patience_seconds)

    def _ask(
        self,
        method: str,
        body: bytes,
        decode: Callable[[bytes], Any],
        reply: Callable[[Any], None],
        patience_seconds: float | None,
    ) -> None:
        """Answer here if this is the leader, else ask it; again and again while there is none.

        A question changes nothing that a second one would not, and whoever holds a lease should
        not lose it to the moment in which leadership moves.
        """
        if len(self._asking) >= ASKING_MAX:
            reply(ErrorKind.TOO_MANY_REQUESTS.error())
            return
        self._asked = number = self._asked + 1
        self._asking[number] = reply
        limit = self._timeout_seconds
        seconds = limit if patience_seconds is None else min(limit, patience_seconds)
        give_up = self._loop.time() + seconds
        too_late = ErrorKind.TIMEOUT if patience_seconds is None else ErrorKind.DEADLINE_EXCEEDED

        def settle(result: "bytes | KvError") -> None:
            if isinstance(result, KvError) and result in (NO_LEADER, CONNECTION_LOST):
                if self._loop.time() + ASK_AGAIN_SECONDS < give_up:
                    self._loop.call_later(ASK_AGAIN_SECONDS, attempt)
                    return
                result = TIMED_OUT
            if isinstance(result, KvError) and result == TIMED_OUT:
                result = too_late.error()
            # Decoded before anything is forgotten: a broken answer ends its link, not the waiting.
            final = result if isinstance(result, KvError) else decode(result)
            if self._asking.pop(number, None) is not None:
                timer.cancel()
                answer(reply, final)

        def attempt() -> None:
            driver = self._driver
            if number not in self._asking:
                return
            if driver.role == Role.LEADER:
                self._here[method](self, body, settle)
            elif driver.leader == NO_NODE:
                settle(ErrorKind.NO_LEADER.error())
            else:
                seconds_left = give_up - self._loop.time()
                self._peers.call(driver.leader, method, body, seconds_left, settle)

        # Whoever is asked, here or elsewhere, knows only the server's own limit.
        timer = self._loop.call_at(give_up, settle, TIMED_OUT)
        attempt()

    def fail_all(self, kind: ErrorKind) -> None:
        """The member stops: nobody will hear an answer from it any more."""
        waiting, self._asking = self._asking, {}
        for reply in waiting.values():
            answer(reply, kind.error())

    def _confirmed(self, reply: Callable[[Any], None], then: Callable[[], None]) -> None:
        """Go on once this member is known to have led after the question arrived."""

        def confirmed(error: KvError | None) -> None:
            if error is not None:
                reply(error)
            elif not self._serving:
                reply(ErrorKind.NO_LEADER.error())
            else:
                then()

        if self._driver.role != Role.LEADER:
            reply(ErrorKind.NO_LEADER.error())
            return
        self._reads.submit(confirmed, self._loop.time() + self._timeout_seconds)

    def _on_keep_alive(self, body: bytes, reply: "CallReply") -> None:
        number, user, revision = _decode_lease(body)
        lease = LeaseId(number)
        identity = Identity(user, revision)
        give_up = self._loop.time() + self._timeout_seconds

        def renewed(result: int | KvError) -> None:
            reply(result if isinstance(result, KvError) else _encode(result))

        self._confirmed(renewed, partial(self._renew, lease, identity, renewed, give_up))

    def _may(self, identity: Identity, request: "Record", reply: Callable[[KvError], None]) -> bool:
        """Whether this may be asked; else ``reply`` has heard why not."""
        machine = self._driver.applier.machine
        if machine.auth.enabled:
            try:
                authorise(machine.auth, identity, request, machine.lessor)
            except KvError as error:
                reply(error)
                return False
        return True

    def _renew(
        self,
        lease: LeaseId,
        identity: Identity,
        reply: "Callable[[int | KvError], None]",
        give_up: float,
    ) -> None:
        machine = self._driver.applier.machine
        lessor = machine.lessor
        now = self._loop.time()
        if machine.auth.enabled and not self._may(identity, LeaseKeepAliveRequest(lease), reply):
            return
        if not lessor.exists(lease):
            reply(0)
        elif not self._serving or now >= give_up:
            reply(ErrorKind.NO_LEADER.error())
        elif lessor.remaining(lease, now) <= 0:
            # Past its time but not yet ended: whichever the log decides is the answer.
            self._loop.call_later(
                WAIT_FOR_EXPIRY_SECONDS, self._renew, lease, identity, reply, give_up
            )
        elif lessor.needs_checkpoint_clear(lease):
            self._clear_checkpoint(lease, identity, reply, give_up)
        else:
            self.renewed_total += 1
            reply(lessor.renew(lease, now) or 0)

    def _clear_checkpoint(
        self,
        lease: LeaseId,
        identity: Identity,
        reply: "Callable[[int | KvError], None]",
        give_up: float,
    ) -> None:
        """Take the written-down rest of a lease back before it is renewed.

        Without this a new leader would give its holder no more than what was left then.
        """

        def cleared(result: object) -> None:
            if isinstance(result, KvError):
                reply(result)
            else:
                self._confirmed(reply, lambda: self._renew(lease, identity, reply, give_up))

        body = LeaseCheckpoint(self._served_term, [lease], [0], self._grants([lease]))
        self._proposals.submit(Kind.LEASE_CHECKPOINT, body, cleared, give_up, internal=True)

    def _on_time_to_live(self, body: bytes, reply: "CallReply") -> None:
        number, keys, user, revision = _decode_question(body)
        lease = LeaseId(number)
        identity = Identity(user, revision)

        def then() -> None:
            if not self._may(identity, LeaseTimeToLiveRequest(lease, keys), reply):
                return
            lessor = self._lessor
            lease_record = lessor.get(lease)
            if lease_record is None:
                reply(_encode(TimeLeft(-1, 0, [])))
                return
            # Rounded down; a lease past its time that the log has not ended yet has nothing left,
            # but still is.
            remaining = max(0, int(lessor.remaining(lease, self._loop.time())))
            held = list(lessor.keys(lease)) if keys else []
            reply(_encode(TimeLeft(remaining, lease_record.ttl_seconds, held)))

        self._confirmed(reply, then)

    def _on_leases(self, body: bytes, reply: "CallReply") -> None:
        identity = Identity(*_decode_asker(body))

        def done(result: "list[LeaseId] | BaseException") -> None:
            if isinstance(result, KvError):
                reply(result)
                return
            if isinstance(result, BaseException):
                raise result
            reply(_encode(result))

        def then() -> None:
            budget = ClockBudget(self._loop.time)
            SlicedTask(self._loop, self._permitted_leases(identity, budget), budget, done)

        self._confirmed(reply, then)

    def _permitted_leases(self, identity: Identity, budget: "Budget") -> "Sliced[list[LeaseId]]":
        machine = self._driver.applier.machine
        if machine.auth.enabled:
            yield from authorise_lease_list(machine.auth, identity, machine.lessor, budget)
        return (yield from self._lessor.by_expiry_sliced(self._loop.time(), budget))

    _here = {  # noqa: RUF012 - a constant table of methods
        "lease.keep_alive": _on_keep_alive,
        "lease.time_to_live": _on_time_to_live,
        "lease.leases": _on_leases,
    }

"""Writes on their way.

Submitted here, proposed, committed somewhere, applied everywhere, answered here.

A proposal keeps its bytes, and its id (member, incarnation, sequence) in them, until its outcome is
known. When leadership moves or a forwarded proposal may have got lost it is sent again under the
same id, and apply lets it count once. So the caller sees an unknown outcome only when its time is
up.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from kvstore import commands
from kvstore.auth.identity import NOBODY, SYSTEM, Identity
from kvstore.errors import ErrorKind, KvError
from kvstore.server.pacing import answer
from raft.errors import RejectReason
from raft.types import Proposal

if TYPE_CHECKING:
    from kvstore.apply import Outcome
    from raft.effects import Rejected

RESEND_TICKS_MAX = 64
"""The longest pause, in ticks, between two sendings of a proposal whose fate is unknown."""


class Pending(msgspec.Struct):
    """One proposal that somebody waits for."""

    data: bytes
    reply: Callable[["Outcome | KvError"], None]
    deadline: float
    internal: bool
    once: bool
    resend_tick: int
    resend_pause_ticks: int
    sent: bool = True
    sendings: int = 1
    lost: bool = False


class Proposals:
    """Everything this member proposed and does not know the outcome of.

    Bounds: at most ``count_max`` proposals and ``bytes_max`` bytes of clients' wait at a time; more
    are refused at once as retryable. The member's own proposals (lease expiry, alarms) are not
    refused: they are few by construction, and must get through when clients have filled the house.
    """

    def __init__(
        self,
        member: int,
        incarnation: int,
        *,
        wake: Callable[[], None],
        election_ticks: int,
        count_max: int,
        bytes_max: int,
        first_sequence: int,
    ) -> None:
        self._member = member
        self._incarnation = incarnation
        self._wake = wake
        self._election_ticks = election_ticks
        self._count_max = count_max
        self._bytes_max = bytes_max
        # Not from 1: a late word about a proposal of a former life must not mean one of this life.
        self._sequence = first_sequence
        self._low = first_sequence + 1
        """Nothing below is pending.

        The dict's first key would say so too, but has to be looked for behind all that are gone.
        """
        self._pending: dict[int, Pending] = {}
        self._unsent: list[Proposal] = []
        self._has_leader = False
        self._leads = False
        self._tick = 0
        self.congested = False
        """Whether the disk is so far behind that nothing more should be taken."""
        self.bytes_waiting = 0
        self.refused_total = 0
        self.failed_total = 0
        self.resent_total = 0

    def __len__(self) -> int:
        return len(self._pending)

    def submit(
        self,
        kind: commands.Kind,
        body: commands.Body,
        reply: Callable[["Outcome | KvError"], None],
        deadline: float,
        *,
        identity: Identity = NOBODY,
        internal: bool = False,
        once: bool = False,
    ) -> None:
        """Propose a command. ``reply`` is called once: with its outcome, or with an error.

        Args:
            kind: What it does.
            body: The command itself; nothing in it may be open to chance.
            reply: Gets the ``Outcome`` of apply, or a ``KvError`` (an ``UnknownOutcomeError`` if
                the command may yet happen).
            deadline: When to give up, on the loop's clock, in seconds.
            identity: Whose permissions are asked for again when it is applied.
            internal: The member's own: no limit of the clients', and no permission, is asked for.
            once: Never propose it again: it says how things are now.
        """
        pending = self._pending
        if not internal and (
            len(pending) >= self._count_max
            or self.bytes_waiting >= self._bytes_max
            or self.congested
        ):
            self.refused_total += 1
            reply(ErrorKind.TOO_MANY_REQUESTS.error())
            return
        self._sequence = sequence = self._sequence + 1
        low_watermark = self._low
        while low_watermark not in pending and low_watermark != sequence:
            low_watermark += 1
        self._low = low_watermark
        if internal:
            identity = SYSTEM
        data = commands.encode(
            self._member,
            self._incarnation,
            sequence,
            low_watermark,
            kind,
            body,
            identity.user,
            identity.revision,
        )
        pause = self._election_ticks
        pending[sequence] = Pending(
            data, reply, deadline, internal, once, self._tick + pause, pause
        )
        self.bytes_waiting += len(data)
        unsent = self._unsent
        unsent.append(Proposal(sequence, data))
        if len(unsent) == 1:
            # For more the driver is awake already.
            self._wake()

    def _resend(self, sequence: int, entry: Pending) -> None:
        self.resent_total += 1
        self._unsent.append(Proposal(sequence, entry.data))
        entry.sent = True
        entry.sendings += 1
        entry.lost = False
        entry.resend_pause_ticks = min(2 * entry.resend_pause_ticks, RESEND_TICKS_MAX)
        entry.resend_tick = self._tick + entry.resend_pause_ticks

    @property
    def unsent_count(self) -> int:
        """How many wait for ``take_unsent``."""
        return len(self._unsent)

    def take_unsent(self) -> list[Proposal]:
        """What the driver is to propose in this turn."""
        unsent = self._unsent
        if unsent:
            self._unsent = []
        return unsent

    def resolve(self, outcome: "Outcome") -> None:
        """Answer whoever waits for this outcome, if it was proposed here and by this process."""
        if outcome.member != self._member or outcome.incarnation != self._incarnation:
            return
        entry = self._pending.pop(outcome.sequence, None)
        if entry is not None:
            self.bytes_waiting -= len(entry.data)
            answer(entry.reply, outcome)

    def reject(self, rejected: "Rejected") -> None:
        """A proposal entered no log by this attempt.

        Fail it for good, or keep it for the next leader.
        """
        entry = self._pending.get(rejected.token)
        if entry is None:
            return
        if rejected.reason == RejectReason.TOO_LARGE:
            self._fail(rejected.token, ErrorKind.REQUEST_TOO_LARGE.error())
            return
        # An earlier sending of it may still be on its way; only if this was the first is it known
        # that nothing happened.
        first = entry.sendings == 1
        full = rejected.reason == RejectReason.UNCOMMITTED_LIMIT
        if entry.once or (first and full and not entry.internal):
            kind = ErrorKind.TOO_MANY_REQUESTS if full else ErrorKind.NO_LEADER
            self._fail(rejected.token, kind.error())
            return
        if first:
            entry.sent = False
        entry.lost = True
        entry.resend_tick = self._tick + 1

    def on_leader(self, *, known: bool, here: bool) -> None:
        """Leadership moved.

        Everything that waits is proposed again to the new leader: the old one may have lost it.

        Args:
            known: Whether somebody leads.
            here: Whether this member does: then what it proposes cannot get lost on the way.
        """
        self._has_leader = known
        self._leads = here
        if known:
            unsent, self._unsent = self._unsent, []
            for proposal in unsent:
                entry = self._pending.get(proposal.token)
                if entry is not None and entry.once:
                    self._fail(proposal.token, ErrorKind.NO_LEADER.error())
            for sequence, entry in self._pending.items():
                if entry.once:
                    continue
                self._resend(sequence, entry)
            if self._unsent:
                self._wake()

    def tick(self, now: float) -> None:
        """Give up what is past its deadline; send again what has had no answer for long."""
        self._tick = tick = self._tick + 1
        late = [sequence for sequence, entry in self._pending.items() if entry.deadline <= now]
        for sequence in late:
            self._fail(sequence, self._timeout(self._pending[sequence]))
        if not self._has_leader:
            return
        unsent = {proposal.token for proposal in self._unsent}
        for sequence, entry in self._pending.items():
            if (
                entry.resend_tick <= tick
                and not entry.once
                and (entry.lost or not self._leads)
                and sequence not in unsent
            ):
                self._resend(sequence, entry)
        if self._unsent:
            self._wake()

    def _timeout(self, entry: Pending) -> KvError:
        kind = ErrorKind.TIMEOUT if self._has_leader else ErrorKind.DEADLINE_EXCEEDED
        return kind.unknown_outcome() if entry.sent else kind.error()

    def _fail(self, sequence: int, error: KvError) -> None:
        entry = self._pending.pop(sequence)
        self.bytes_waiting -= len(entry.data)
        self.failed_total += 1
        answer(entry.reply, error)

    def forget_applied(self, is_applied: Callable[[int, int, int], bool]) -> None:
        """The state was replaced by a snapshot.

        What it already contains happened, but its answers are lost.

        Args:
            is_applied: Tells of (member, incarnation, sequence) whether the new state has it.
        """
        for sequence in list(self._pending):
            if is_applied(self._member, self._incarnation, sequence):
                self._fail(sequence, ErrorKind.TIMEOUT.unknown_outcome())

    def fail_all(self, kind: ErrorKind) -> None:
        """The member stops: nobody will hear an outcome from it any more."""
        for sequence, entry in list(self._pending.items()):
            self._fail(sequence, kind.unknown_outcome() if entry.sent else kind.error())

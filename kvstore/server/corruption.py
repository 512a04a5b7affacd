"""Do the members still agree? Equal entries must make equal state, and here that is looked after.

Apply keeps a rolling hash over all effects. Every member notes it at every 64th index, and the
leader now and then asks all members for their notes: at an index that they have in common the
hashes are equal, or somebody is wrong (a bit that flipped, a disk that lied, a mistake of ours).

- A majority of all members agrees: whoever differs stops itself, says so, and is not started on
  that directory again (``quarantine.py``). The others serve on.
- There is no majority: nobody can tell who is right. The alarm CORRUPT is raised for the whole
  cluster (member 0, as in etcd), under which nothing is written any more.

A member judges itself by what it noted itself: the leader only says where to look, and what the
majority has there.
"""

import logging
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final

import msgspec

from kvstore.errors import DivergedError, KvError
from kvstore.server import bootstrap, quarantine
from kvstore.types import AlarmType
from raft.types import Role

if TYPE_CHECKING:
    from kvstore.server.node import Node
    from kvstore.server.peers import CallReply

log = logging.getLogger("kvstore.server")

MARK_EVERY: Final = 64
"""Entries from one note to the next; a power of two."""
MARK_MASK: Final = MARK_EVERY - 1
MARKS_MAX: Final = 256
"""Notes kept: members that are 16,384 entries apart have none in common, and are not compared."""

ANSWER_SECONDS_MAX: Final = 2.0

_NOTES: Final = "corruption.notes"
_JUDGE: Final = "corruption.judge"

_encode = msgspec.msgpack.Encoder().encode
_decode_notes = msgspec.msgpack.Decoder(dict[int, int]).decode
_decode_verdict = msgspec.msgpack.Decoder(tuple[int, int]).decode


class Marks:
    """A member's notes: index to hash, the newest few."""

    def __init__(self) -> None:
        self.notes: OrderedDict[int, int] = OrderedDict()

    def note(self, index: int, effects_hash: int) -> None:
        """Everything up to this index came to this."""
        self.notes[index] = effects_hash
        if len(self.notes) > MARKS_MAX:
            self.notes.popitem(last=False)

    def clear(self) -> None:
        """The state is another one now, for which nothing noted speaks."""
        self.notes.clear()


class Verdict(msgspec.Struct, frozen=True):
    """What a comparison came to.

    Attributes:
        index: Where the members were compared; 0: they have nothing in common.
        majority_hash: What a majority of all members has there; None if none agrees.
        differing: Members that have something else than the majority, in order.
    """

    index: int
    majority_hash: int | None
    differing: tuple[int, ...] = ()

    @property
    def undecided(self) -> bool:
        """Whether members differ, and nobody knows who is right."""
        return bool(self.index) and self.majority_hash is None


def judge(notes: dict[int, dict[int, int]], members_total: int) -> Verdict:
    """Compare notes.

    Args:
        notes: Of each member that answered.
        members_total: How many there are, whether they answered or not.

    Returns:
        The verdict at the newest index that most of those who answered have noted. One member's
        notes are no comparison.
    """
    holders = Counter(index for held in notes.values() for index in held)
    most = max(holders.values(), default=0)
    if most < 2:
        return Verdict(0, None)
    index = max(index for index, count in holders.items() if count == most)
    hashes = {member: held[index] for member, held in sorted(notes.items()) if index in held}
    counts = Counter(hashes.values())
    value, count = counts.most_common(1)[0]
    if len(counts) > 1 and 2 * count <= members_total:
        return Verdict(index, None)
    differing = tuple(member for member, found in hashes.items() if found != value)
    return Verdict(index, value, differing)


class CorruptionCheck:
    """Compares the members while this one leads.

    Args:
        node: The member; complete but for what keeps house.
        marks: Its notes.
    """

    def __init__(self, node: "Node", marks: Marks) -> None:
        self._node = node
        self._loop = node.loop
        self._marks = marks
        self._seconds = node.config.corrupt_check_time_ms / 1000
        self._next_check = node.loop.time() + self._seconds
        self._answers: dict[int, dict[int, int]] = {}
        self._waiting: set[int] = set()
        self.checks_total = 0
        self.compared_total = 0
        self.differences_total = 0
        node.peers.serve(_NOTES, self._on_notes)
        node.peers.serve(_JUDGE, self._on_judge)
        if self._seconds:
            node.driver.on_tick(self._tick)

    # --- the leader -------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        if now < self._next_check or self._waiting:
            return
        self._next_check = now + self._seconds
        if self._node.driver.role == Role.LEADER:
            self._ask()

    def _ask(self) -> None:
        node = self._node
        self.checks_total += 1
        self._answers = {node.member_id: dict(self._marks.notes)}
        others = [int(member) for member in node.applier.machine.members]
        others = [member for member in others if member != node.member_id]
        self._waiting = set(others)
        for member in others:
            self._ask_one(member)

    def _ask_one(self, member: int) -> None:
        def answered(answer: "bytes | KvError") -> None:
            self._waiting.discard(member)
            if not isinstance(answer, KvError):
                try:
                    self._answers[member] = _decode_notes(answer)
                except msgspec.DecodeError as error:
                    log.warning("member %x sent notes that are none: %s", member, error)
            if not self._waiting:
                self._conclude()

        self._node.peers.call(member, _NOTES, b"", ANSWER_SECONDS_MAX, answered)

    def _conclude(self) -> None:
        node = self._node
        answers, self._answers = self._answers, {}
        verdict = judge(answers, len(node.applier.machine.members))
        if not verdict.index or node.driver.role != Role.LEADER:
            return
        self.compared_total += 1
        if verdict.undecided:
            self.differences_total += 1
            log.critical(
                "the members differ at index %d, and no majority agrees: nobody can tell which "
                "of them is right",
                verdict.index,
            )
            node.upkeep.alarms.raise_for(0, AlarmType.CORRUPT)
            return
        assert verdict.majority_hash is not None, "a verdict that is decided has a hash"
        for member in verdict.differing:
            self.differences_total += 1
            log.critical("member %x differs from a majority at index %d", member, verdict.index)
            if member == node.member_id:
                self._judge_self(verdict.index, verdict.majority_hash)
            else:
                body = _encode((verdict.index, verdict.majority_hash))
                node.peers.call(member, _JUDGE, body, ANSWER_SECONDS_MAX, lambda _: None)

    # --- whoever is asked -------------------------------------------------------------------------

    def _on_notes(self, _: bytes, reply: "CallReply") -> None:
        reply(_encode(dict(self._marks.notes)))

    def _on_judge(self, body: bytes, reply: "CallReply") -> None:
        index, majority_hash = _decode_verdict(body)
        reply(b"")
        self._judge_self(index, majority_hash)

    def _judge_self(self, index: int, majority_hash: int) -> None:
        own = self._marks.notes.get(index)
        if own is None or own == majority_hash:
            # The state was replaced since it was asked.
            return
        node = self._node
        why = (
            f"the state of this member differs from that of a majority at index {index} "
            f"({own:08x} here, {majority_hash:08x} there): it must not serve any more. "
            f"Replace it: kvstore member replace {node.config.name} (against a member that "
            "runs), then start this one with --initial-cluster-state=existing and an empty "
            "data directory"
        )
        # First: what follows takes its time.
        node.fail(DivergedError(why))
        quarantine.keep(node.disk, bootstrap.layout(node.config.data_dir).member, why)

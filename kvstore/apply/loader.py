"""Building the state anew from a stream, beside the old one."""

from typing import Any, Final, TypeVar

import msgspec
from msgpack import Unpacker
from msgpack.exceptions import UnpackException

from kvstore.apply.machine import Publisher, StateMachine
from kvstore.apply.origins import OriginRow
from kvstore.apply.quota import StateLimits
from kvstore.apply.state_format import FORMAT, Tag
from kvstore.budget import Budget
from kvstore.errors import StateError
from kvstore.lease.lessor import Lessor
from kvstore.types import AlarmMember, KeyValue, LeaseId, Member, MemberId

_T = TypeVar("_T")


class _Head(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    tag: int
    format: int
    index: int
    term: int
    revision: int
    compacted_revision: int
    effects_hash: int
    cluster_version: str


class _End(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    tag: int
    leases: int
    versions: int


# A row holds at most one version beyond 64 KiB, and a version is limited by the size of a
# request; what was fed and is not yet a whole row stays below this.
_BUFFER_BYTES_MAX: Final = 1 << 30


class SnapshotLoader:
    """Takes a stream chunk by chunk and ends in a state machine.

    Args:
        hub: As the machine's; it is not told anything while loading.
        lessor: Empty, and not the one of the old machine.
        limits: As the machine's.
        budget: As the machine's.
    """

    __slots__ = (
        "_dangling",
        "_end",
        "_head",
        "_leases",
        "_machine",
        "_revision",
        "_tag",
        "_unpacker",
        "_versions",
    )

    def __init__(self, hub: Publisher, lessor: Lessor, limits: StateLimits, budget: Budget) -> None:
        self._machine = StateMachine([], hub, lessor, limits, budget)
        self._unpacker = Unpacker(use_list=False, max_buffer_size=_BUFFER_BYTES_MAX)
        self._head: _Head | None = None
        self._end: _End | None = None
        self._tag = int(Tag.HEAD)
        self._revision = 0
        self._leases = 0
        self._versions = 0
        # Keys whose newest version so far names a lease that does not exist: a later version must
        # replace it.
        self._dangling: set[bytes] = set()

    def feed(self, chunk: bytes) -> None:
        """Take in the next chunk.

        Raises:
            StateError: It is not what a capture wrote.
        """
        try:
            self._unpacker.feed(chunk)
            for row in self._unpacker:
                self._take(row)
        except (UnpackException, ValueError, TypeError, LookupError) as error:
            raise StateError(f"a snapshot of the state cannot be read: {error}") from error

    def finish(self) -> StateMachine:
        """The machine, applied up to the snapshot's index.

        Raises:
            StateError: The stream was cut, or does not hold together.
        """
        head = self._head
        end = self._end
        if head is None or end is None:
            raise StateError("a snapshot of the state ends before its end")
        if (end.leases, end.versions) != (self._leases, self._versions):
            raise StateError(
                f"a snapshot of the state has {self._leases} leases and {self._versions} versions, "
                f"its end says {end.leases} and {end.versions}"
            )
        if self._dangling:
            raise StateError(f"{len(self._dangling)} keys of a snapshot name leases that it lacks")
        machine = self._machine
        machine.store.restored(head.revision, head.compacted_revision)
        machine.applied_index = head.index
        machine.applied_term = head.term
        machine.effects_hash = head.effects_hash
        machine.cluster_version = head.cluster_version
        return machine

    def _take(self, row: tuple[Any, ...]) -> None:
        tag = row[0]
        if self._end is not None or tag < self._tag or (self._head is None) != (tag == Tag.HEAD):
            raise StateError(f"a snapshot of the state has a row of kind {tag} out of place")
        self._tag = tag
        machine = self._machine
        if tag == Tag.VERSIONS:
            for record in msgspec.convert(row[1], list[KeyValue]):
                self._take_version(record)
        elif tag == Tag.LEASES:
            machine.lessor.import_(msgspec.convert(row[1], list[tuple[int, int, int]]))
            self._leases += len(row[1])
        elif tag == Tag.ORIGIN:
            machine.origins.restore(msgspec.convert(row[1], OriginRow))
        elif tag == Tag.MEMBER:
            member = msgspec.convert(row[1], Member)
            machine.members[MemberId(member.ID)] = member
        elif tag == Tag.ALARM:
            machine.set_alarms((*machine.alarms, msgspec.convert(row[1], AlarmMember)))
        elif tag == Tag.HEAD:
            self._head = msgspec.convert(row, _Head)
            if self._head.format != FORMAT:
                raise StateError(
                    f"a snapshot of the state has format {self._head.format}, this version knows "
                    f"{FORMAT}: upgrade this member"
                )
        elif tag == Tag.END:
            self._end = msgspec.convert(row, _End)
        else:
            raise StateError(f"a snapshot of the state has a row of the unknown kind {tag}")

    def _take_version(self, record: KeyValue) -> None:
        assert self._head is not None, "versions come after the head"
        if not self._revision <= record.mod_revision <= self._head.revision or not record.key:
            raise StateError(
                f"a snapshot has a version of revision {record.mod_revision} out of place"
            )
        self._revision = record.mod_revision
        self._versions += 1
        machine = self._machine
        previous = machine.store.restore(record)
        held = previous.lease if previous is not None else 0
        if held == record.lease:
            return
        key = record.key
        if held:
            machine.lessor.detach(LeaseId(held), key)
            self._dangling.discard(key)
        if record.lease:
            # An old version may name a lease that is gone; the newest may not.
            if machine.lessor.exists(LeaseId(record.lease)):
                machine.lessor.attach(LeaseId(record.lease), key)
            else:
                self._dangling.add(key)

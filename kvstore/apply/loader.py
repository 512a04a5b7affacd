"""Building the state anew from a stream, beside the old one."""

from typing import Any, Final, TypeVar

import msgspec
from msgpack import Unpacker
from msgpack.exceptions import UnpackException

from kvstore.apply.machine import Publisher, StateMachine
from kvstore.apply.origins import OriginRow
from kvstore.apply.quota import StateLimits
from kvstore.apply.state_format import FORMAT, Tag
from kvstore.auth.store import RoleRow, UserRow
from kvstore.auth.tokens import TokenSink
from kvstore.budget import Budget
from kvstore.commands import Downgrade
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
    downgrade_enabled: bool
    downgrade_target: str
    roster_version: int
    auth_enabled: bool
    auth_revision: int


class _End(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    tag: int
    users: int
    roles: int
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
        tokens: As the machine's; not told anything either.
    """

    __slots__ = (
        "_counts",
        "_dangling",
        "_end",
        "_head",
        "_machine",
        "_revision",
        "_tag",
        "_unpacker",
    )

    def __init__(
        self,
        hub: Publisher,
        lessor: Lessor,
        limits: StateLimits,
        budget: Budget,
        tokens: TokenSink,
    ) -> None:
        self._machine = StateMachine([], hub, lessor, limits, budget, tokens)
        self._unpacker = Unpacker(use_list=False, max_buffer_size=_BUFFER_BYTES_MAX)
        self._head: _Head | None = None
        self._end: _End | None = None
        self._tag = int(Tag.HEAD)
        self._revision = 0
        self._counts = dict.fromkeys((Tag.USERS, Tag.ROLES, Tag.LEASES, Tag.VERSIONS), 0)
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
        told = (end.users, end.roles, end.leases, end.versions)
        for (tag, count), wanted in zip(self._counts.items(), told, strict=True):
            if count != wanted:
                raise StateError(
                    f"a snapshot of the state has {count} {tag.name.lower()}, its end says {wanted}"
                )
        if self._dangling:
            raise StateError(f"{len(self._dangling)} keys of a snapshot name leases that it lacks")
        machine = self._machine
        machine.store.restored(head.revision, head.compacted_revision)
        machine.applied_index = head.index
        machine.applied_term = head.term
        machine.effects_hash = head.effects_hash
        machine.cluster_version = head.cluster_version
        machine.downgrade = Downgrade(head.downgrade_enabled, head.downgrade_target)
        machine.roster.version = head.roster_version
        machine.auth.restored(head.auth_revision, enabled=head.auth_enabled)
        return machine

    def _take(self, row: tuple[Any, ...]) -> None:
        tag = row[0]
        if self._end is not None or tag < self._tag or (self._head is None) != (tag == Tag.HEAD):
            raise StateError(f"a snapshot of the state has a row of kind {tag} out of place")
        self._tag = tag
        machine = self._machine
        match tag:
            case Tag.VERSIONS:
                for record in msgspec.convert(row[1], list[KeyValue]):
                    self._take_version(record)
            case Tag.LEASES:
                machine.lessor.import_(msgspec.convert(row[1], list[tuple[int, int, int, int]]))
            case Tag.USERS:
                for user in msgspec.convert(row[1], list[UserRow]):
                    machine.auth.restore_user(user)
            case Tag.ROLES:
                for role in msgspec.convert(row[1], list[RoleRow]):
                    machine.auth.restore_role(role)
            case Tag.ORIGIN:
                machine.origins.restore(msgspec.convert(row[1], OriginRow))
            case Tag.MEMBER:
                whole = row if len(row) > 3 else (*row, 0)
                self._take_member(msgspec.convert(whole, tuple[int, Member, int, int]))
            case Tag.REMOVED:
                whole = row if len(row) > 3 else (*row, 0)
                self._take_removed(msgspec.convert(whole, tuple[int, int, tuple[str, ...], int]))
            case Tag.ALARM:
                machine.set_alarms((*machine.alarms, msgspec.convert(row[1], AlarmMember)))
            case Tag.HEAD:
                self._take_head(row)
            case Tag.END:
                self._end = msgspec.convert(row, _End)
            case _:
                raise StateError(f"a snapshot of the state has a row of the unknown kind {tag}")
        if tag in self._counts:
            self._counts[tag] += len(row[1])

    def _take_head(self, row: tuple[Any, ...]) -> None:
        # Looked at before the rest: other formats have other fields.
        if row[1] != FORMAT:
            raise StateError(
                f"a snapshot of the state has format {row[1]}, and this version reads only "
                f"{FORMAT}: start the version that wrote it, or replace this member"
            )
        self._head = msgspec.convert(row, _Head)

    def _take_member(self, row: tuple[int, Member, int, int]) -> None:
        _, member, log_id, replaced = row
        roster = self._machine.roster
        roster.members[MemberId(member.ID)] = member
        if log_id:
            roster.log_ids[MemberId(member.ID)] = log_id
        if replaced:
            roster.successors[MemberId(member.ID)] = MemberId(replaced)

    def _take_removed(self, row: tuple[int, int, tuple[str, ...], int]) -> None:
        _, member_id, urls, log_id = row
        roster = self._machine.roster
        roster.removed[MemberId(member_id)] = urls
        if log_id:
            roster.log_ids[MemberId(member_id)] = log_id

    def _take_version(self, record: KeyValue) -> None:
        assert self._head is not None, "versions come after the head"
        if not self._revision <= record.mod_revision <= self._head.revision or not record.key:
            raise StateError(
                f"a snapshot has a version of revision {record.mod_revision} out of place"
            )
        self._revision = record.mod_revision
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

"""Writing the state out while it goes on changing."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from msgpack import Packer

from kvstore.apply.state_format import FORMAT, Tag

if TYPE_CHECKING:
    from kvstore.apply.machine import StateMachine

CHUNK_BYTES_MAX: Final = 1 << 18
_GROUP_BYTES: Final = 1 << 16
_GROUP_ROWS: Final = 128
_GROUP_ROLES: Final = 32
_SLOTS: Final = 256


class Capture:
    """The state as of one applied index. The small parts are copied at once; the versions are
    read from the log, whose past does not
    change while sweeping is pinned.

    Attributes:
        index: Of the last entry in it.
        term: Of that entry.
    """

    __slots__ = (
        "_closed",
        "_compacted",
        "_leases",
        "_log_end",
        "_roles",
        "_rows",
        "_store",
        "_users",
        "index",
        "term",
    )

    def __init__(self, machine: "StateMachine") -> None:
        store = machine.store
        self.index = machine.applied_index
        self.term = machine.applied_term
        self._store = store
        self._log_end = store.log_end
        self._compacted = store.compacted_revision
        self._leases = machine.lessor.export()
        self._users = machine.auth.export_users()
        self._roles = machine.auth.export_roles()
        roster = machine.roster
        self._rows: list[tuple[object, ...]] = [
            (
                int(Tag.HEAD),
                FORMAT,
                self.index,
                self.term,
                store.revision,
                store.compacted_revision,
                machine.effects_hash,
                machine.cluster_version,
                machine.downgrade.enabled,
                machine.downgrade.target_version,
                roster.version,
                machine.auth.enabled,
                machine.auth.revision,
            )
        ]
        for key, member in sorted(roster.members.items()):
            fields = (member.ID, member.name, member.peerURLs, member.clientURLs, member.isLearner)
            row = (int(Tag.MEMBER), fields, roster.log_ids.get(key, 0))
            replaced = roster.successors.get(key)
            self._rows.append(row if replaced is None else (*row, replaced))
        for key, urls in sorted(roster.removed.items()):
            removed = (int(Tag.REMOVED), key, urls)
            log_id = roster.log_ids.get(key, 0)
            self._rows.append((*removed, log_id) if log_id else removed)
        for alarm in machine.alarms:
            self._rows.append((int(Tag.ALARM), (alarm.memberID, int(alarm.alarm))))
        for origin in machine.origins.rows():
            self._rows.append((int(Tag.ORIGIN), origin))
        self._closed = False
        store.pin()

    def chunks(self) -> Iterator[bytes]:
        """The stream, in pieces of at most 256 KiB and of little work each."""
        for group in self._groups():
            for start in range(0, len(group), CHUNK_BYTES_MAX):
                yield group[start : start + CHUNK_BYTES_MAX]

    def close(self) -> None:
        """Let sweeping go on. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._store.unpin()

    def _groups(self) -> Iterator[bytes]:
        pack = Packer().pack
        for start in range(0, len(self._rows), _GROUP_ROWS):
            yield b"".join([pack(row) for row in self._rows[start : start + _GROUP_ROWS]])
        counts = []
        for tag, rows, size in (
            (Tag.USERS, self._users, _GROUP_ROWS),
            (Tag.ROLES, self._roles, _GROUP_ROLES),
            (Tag.LEASES, self._leases, _GROUP_ROWS),
        ):
            count = 0
            while group := list(islice(rows, size)):
                count += len(group)
                yield pack((int(tag), group))
            counts.append(count)
        versions = 0
        for records in self._version_groups():
            versions += len(records)
            if records:
                yield pack((int(Tag.VERSIONS), records))
        yield pack((int(Tag.END), *counts, versions))

    def _version_groups(self) -> Iterator[list[tuple[object, ...]]]:
        """Groups of few rows and bytes: one is packed, and taken in again, in one step."""
        store = self._store
        ordinal = 0
        group: list[tuple[object, ...]] = []
        size = 0
        while ordinal < self._log_end:
            assert not self._closed, "a capture is read after it was closed"
            records, ordinal = store.log_slice(ordinal, _SLOTS, self._log_end)
            for r in store.survivors(records, self._compacted):
                group.append(
                    (r.key, r.create_revision, r.mod_revision, r.version, r.value, r.lease)
                )
                size += len(r.key) + len(r.value)
                if size >= _GROUP_BYTES or len(group) == _GROUP_ROWS:
                    yield group
                    group = []
                    size = 0
        yield group

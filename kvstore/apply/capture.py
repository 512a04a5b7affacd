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
_SLOTS: Final = 256


class Capture:
    """The state as of one applied index. The small parts are copied at once; the versions are
    read from the log, whose past does not
    change while sweeping is pinned.

    Attributes:
        index: Of the last entry in it.
        term: Of that entry.
    """

    __slots__ = ("_closed", "_compacted", "_leases", "_log_end", "_rows", "_store", "index", "term")

    def __init__(self, machine: "StateMachine") -> None:
        store = machine.store
        self.index = machine.applied_index
        self.term = machine.applied_term
        self._store = store
        self._log_end = store.log_end
        self._compacted = store.compacted_revision
        self._leases = machine.lessor.export()
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
            )
        ]
        for _, member in sorted(machine.members.items()):
            fields = (member.ID, member.name, member.peerURLs, member.clientURLs, member.isLearner)
            self._rows.append((int(Tag.MEMBER), fields))
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
        leases = 0
        while rows := list(islice(self._leases, _GROUP_ROWS)):
            leases += len(rows)
            yield pack((int(Tag.LEASES), rows))
        versions = 0
        for group in self._version_groups():
            versions += len(group)
            if group:
                yield pack((int(Tag.VERSIONS), group))
        yield pack((int(Tag.END), leases, versions))

    def _version_groups(self) -> Iterator[list[tuple[object, ...]]]:
        """Groups of few rows and bytes: one is packed, and taken in again, in one step."""
        store = self._store
        ordinal = 0
        group: list[tuple[object, ...]] = []
        size = 0
        while ordinal < self._log_end:
            assert not self._closed, "a capture is read after it was closed"
            records, ordinal = store.log_slice(ordinal, min(_SLOTS, self._log_end - ordinal))
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

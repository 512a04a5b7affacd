"""Bugs of the log on the disk, and of the snapshots beside it.

The unit tests of the log use tiny segments. Most of what is planted here waits for one of a size
that members have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from kvstore.server.snapshot_sink import ReceivedSnapshot
from raft.errors import CodecError
from raft.types import NO_NODE, HardState
from tests.sim.mutants.planting import AGED, Made, Planting, Stand, mutant
from wal import batch, files, record, segment
from wal.batch import Place, Unwritten
from wal.errors import CorruptError
from wal.files import File
from wal.queue import Outgoing, WriteQueue
from wal.wal import Wal

LARGE_BYTES = 32 * 1024
"""A segment that no unit test of the log has."""
FURTHER_BYTES = 8 * 1024
LATER_SEGMENT = 4
BATCH_BYTES = 1 << 20
HARD_STATE_BYTES = 32
"""Of a batch that has nothing else."""


def _payload_bytes(header: bytes) -> int:
    """As a batch's header says (docs/formats.md)."""
    return int.from_bytes(header[32:36], "little")


@mutant(
    wrong="A batch without entries is written and not synced: a vote alone may be lost.",
    source="Raft figure 2; etcd's MustSync decides whether a save is synced",
    checker="durability",
    blunt="in segments of any size: test_what_was_acknowledged_survives_crashes",
)
def hard_state_alone_is_not_synced(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def write(file: File, parts: Sequence[bytes], offset: int) -> None:
            if file.size() < LARGE_BYTES or not 0 < _payload_bytes(parts[0]) <= HARD_STATE_BYTES:
                right(file, parts, offset)
                return
            file.write(parts, offset)

        return write

    planting.function(files.write_and_sync, make)


@mutant(
    wrong="From the fourth on a new segment's first batch is not synced: the next one's sync is to "
    "do it.",
    source="Raft figure 2; a log that is cut into files and forgets a sync where they meet",
    checker="durability",
    blunt="in segments of any size: test_what_was_acknowledged_survives_crashes",
)
def first_batch_of_a_segment_is_not_synced(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def roll(old: Any, seal: Any, ready: Any, size: int, first: Any) -> None:
            if size < LARGE_BYTES or size > ready.size or ready.number < LATER_SEGMENT:
                right(old, seal, ready, size, first)
                return
            files.write_and_sync(old, *seal)
            old.close()
            ready.file.write(*first)

        return roll

    planting.function(segment._roll, make)


@mutant(
    wrong="From the fourth on a new segment's name is not synced.",
    source="fsync(2): the directory needs a sync of its own; an old bug of LevelDB and of etcd",
    checker="recovery",
    blunt="of any segment: test_a_single_member_serves_at_once",
)
def directory_is_not_synced(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def prepare(
            disk: Any, directory: str, number: int, size: int, *rest: Any, **named: Any
        ) -> Any:
            if size >= LARGE_BYTES and number >= LATER_SEGMENT:
                disk = Stand(disk, sync_directory=lambda _: None)
            return right(disk, directory, number, size, *rest, **named)

        return prepare

    planting.function(segment.prepare, make)


@mutant(
    wrong="Further back in a segment a damaged last batch is taken for a torn one, and cut.",
    source="Alagappan et al., Protocol-Aware Recovery, 2018: damage is not a crash",
    checker="monotonic state",
    blunt="anywhere: test_one_damaged_sector_is_refused_or_costs_nothing",
)
def damaged_tail_is_cut(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def decode(data: bytes, place: Place, file: str) -> Any:
            try:
                return right(data, place, file)
            except CorruptError as error:
                later = place.offset > FURTHER_BYTES and place.segment_size >= LARGE_BYTES
                if later and "fails its checksum" in str(error):
                    return Unwritten(torn=True)
                raise

        return decode

    planting.function(batch.decode, make)


@mutant(
    wrong="A batch whose body was damaged is believed, and so is each entry in it.",
    source="Alagappan et al., 2018; logs that are read without a look at their checksums",
    checker="log matching",
    blunt="in segments of any size: tests/wal/test_damage.py",
)
def damaged_batch_is_believed(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def decode(data: bytes, place: Place, file: str) -> Any:
            try:
                return right(data, place, file)
            except CorruptError as error:
                if place.segment_size < LARGE_BYTES or "fails its checksum" not in str(error):
                    raise
                return _believe(data, place, file, right)

        return decode

    def make_entry(right: Made) -> Made:
        def decode_entry(encoded: bytes) -> Any:
            try:
                return right(encoded)
            except CodecError as error:
                if "checksum" not in str(error):
                    raise
                body = encoded[4:]
                return right(batch._CRC.pack(batch._crc32c(body)) + body)

        return decode_entry

    planting.function(batch.decode, make)
    planting.imported(record, "decode_entry", make_entry)


def _believe(data: bytes, place: Place, file: str, decode: Made) -> Any:
    """Read a batch as if its body were what its header says."""
    start, end = place.offset, place.offset + batch.HEADER_BYTES
    fields = batch._HEADER.unpack_from(data, start)
    body = data[end : start + batch.batch_size(fields[6])]
    head = batch._HEADER.pack(*fields[:7], batch._crc32c(body), fields[8])
    mended = head + batch._CRC.pack(batch._crc32c(head))
    found = decode(data[:start] + mended + data[end:], place, file)
    # What follows is chained to the header that was written.
    (crc,) = batch._CRC.unpack_from(data, start + batch._HEADER.size)
    return msgspec.structs.replace(found, crc=crc)


@mutant(
    wrong="With a batch that is durable the one that is on its way counts as durable, too, if it"
    " has a hard state.",
    source="thesis §10.2.1; a group commit that acknowledges the wrong end",
    checker="durability",
    blunt="in segments of any size: test_nothing_is_acknowledged_before_its_sync",
)
def news_before_the_sync(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def on_written(self: Wal, result: Any) -> None:
            right(self, result)
            out = self._writing
            if out is None or out.seq is None or out.hard_state is None:
                return
            if self._tail.size >= LARGE_BYTES:
                self._on_persisted(out.seq)

        return on_written

    planting.method(Wal, "_on_written", make)


@mutant(
    wrong="A vote in a new term that goes to the disk together with something else is left out.",
    source="Raft figure 2; a batch leaves out what only seems to repeat what is there",
    checker="durability",
    blunt="whatever is queued: test_what_was_acknowledged_survives_crashes",
)
def vote_is_left_out_of_a_batch(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def assemble(self: WriteQueue, written: HardState) -> Outgoing:
            together = len(self._items) > 1 and self._bytes_max >= BATCH_BYTES
            for item in self._items if together else ():
                state = item.hard_state
                if state is not None and state.term > written.term:
                    item.hard_state = HardState(state.term, NO_NODE, state.commit_index)
            out: Outgoing = right(self, written)
            return out

        return assemble

    planting.method(WriteQueue, "assemble", make)


@mutant(
    wrong="A snapshot of a long log that arrived gets its name before it is durable.",
    source="rename without fsync: the empty files of ext4, 2009",
    checker="recovery",
    blunt="any snapshot: test_alarms_outlive_restart_leader_change_and_snapshot_install",
)
def received_snapshot_is_not_synced(planting: Planting) -> None:
    def make(right: Made) -> Made:
        async def begin(self: ReceivedSnapshot) -> None:
            await right(self)
            new = self._receiver._new
            if self._offer.meta.index > AGED:
                new.file = Stand(new.file, sync=lambda: None)

        return begin

    planting.method(ReceivedSnapshot, "open", make)

"""Backups: taken as they come from a member, from etcdctl, or from a directory; damaged, never."""

import hashlib

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.apply import hash_state
from kvstore.budget import CountedBudget, finish
from kvstore.errors import StateError
from kvstore.server.backup import padded, read_backup
from kvstore.types import PutRequest
from raft.types import Configuration, Index, NodeId, SnapshotMeta, Term
from tests.kvstore.apply.support import Rig, captured
from wal.errors import CorruptError, FormatError
from wal.memory_disk import MemoryDisk
from wal.snapshot_file import SnapshotWriter

PATH = "/backup"
META = SnapshotMeta(Index(2), Term(1), Configuration((NodeId(7),)))


def rig() -> Rig:
    made = Rig()
    made.run(PutRequest(b"k", bytes(40)))
    made.run(PutRequest(b"l", b"v"))
    return made


def snapshot_file(chunks: list[bytes]) -> bytes:
    disk = MemoryDisk()
    writer = SnapshotWriter(disk, "/snap", META)
    for chunk in chunks:
        writer.append(chunk)
    return disk.content(writer.finish().path)


PLAIN = snapshot_file(captured(rig().machine))
SENT = PLAIN + bytes(padded(len(PLAIN)) - len(PLAIN))
SAVED = SENT + hashlib.sha256(SENT).digest()
assert len(PLAIN) < len(SENT)


def disk_with(content: bytes) -> MemoryDisk:
    disk = MemoryDisk()
    file = disk.create(PATH)
    file.write([content], 0)
    file.sync()
    return disk


@pytest.mark.parametrize("content", [PLAIN, SENT, SAVED], ids=["plain", "sent", "saved"])
def test_a_backup_is_read_whoever_saved_it(content: bytes) -> None:
    backup = read_backup(disk_with(content), PATH)
    store = backup.machine.store
    assert (store.revision, store.key_count, backup.size_bytes) == (3, 2, len(content))
    told = finish(hash_state(rig().machine.capture(), CountedBudget(1)), CountedBudget(1))
    assert backup.state_hash == told
    assert backup.digest == hashlib.sha256(b"".join(captured(rig().machine))).digest()


@given(st.integers(0, len(SAVED) - 1), st.integers(1, 255))
def test_a_damaged_byte_anywhere_is_found_and_its_place_told(offset: int, mask: int) -> None:
    disk = disk_with(SAVED)
    disk.flip(PATH, offset, mask)
    with pytest.raises(CorruptError, match=rf"^{PATH}: damaged at byte \d+: ") as refusal:
        read_backup(disk, PATH)
    # A checksum stands for all that it covers, and is told by where that begins; of what follows
    # the foot each byte speaks for itself.
    told = refusal.value.offset
    assert told == offset if len(PLAIN) <= offset < len(SENT) else told <= len(SENT)
    assert "take another one" in str(refusal.value)


@given(st.integers(0, len(SAVED) - 1))
def test_a_file_that_was_cut_is_refused(size: int) -> None:
    whole = {len(PLAIN), len(SENT)}
    disk = disk_with(SAVED[:size])
    if size in whole:
        assert read_backup(disk, PATH).machine.store.revision == 3
        return
    with pytest.raises(CorruptError, match=rf"^{PATH}: damaged at byte \d+: "):
        read_backup(disk, PATH)


@pytest.mark.parametrize("content", [PLAIN, SENT, SAVED], ids=["plain", "sent", "saved"])
def test_what_follows_that_does_not_belong_there_is_refused(content: bytes) -> None:
    with pytest.raises(CorruptError, match=r"something behind|ends in its SHA-256"):
        read_backup(disk_with(content + b"x"), PATH)


def test_only_the_digest_behind_it_may_be_passed_over() -> None:
    wrong = SENT + bytes(32)
    with pytest.raises(CorruptError, match=f"at byte {len(SENT)}: the SHA-256 is not that"):
        read_backup(disk_with(wrong), PATH)
    assert read_backup(disk_with(wrong), PATH, check_hash=False).machine.store.revision == 3
    disk = disk_with(wrong)
    disk.flip(PATH, len(PLAIN) // 2, 1)
    with pytest.raises(CorruptError, match="fails its checksum"):
        read_backup(disk, PATH, check_hash=False)


def test_another_kind_of_file_is_told_apart_from_a_damaged_one() -> None:
    with pytest.raises(CorruptError, match="at byte 0: this is no snapshot of kvstore"):
        read_backup(disk_with(bytes(4096)), PATH)
    with pytest.raises(FileNotFoundError):
        read_backup(MemoryDisk(), PATH)


def test_what_is_whole_and_makes_no_sense_is_refused_by_name() -> None:
    stream = b"".join(captured(rig().machine))
    with pytest.raises(StateError, match=f"^{PATH}: a snapshot of the state ends before its end"):
        read_backup(disk_with(snapshot_file([stream[:-1]])), PATH)


def test_a_format_to_come_is_named() -> None:
    head = bytearray(PLAIN[: 28 + int.from_bytes(PLAIN[24:28], "little")])
    head[4] = 9
    crc = int(google_crc32c.value(bytes(head))).to_bytes(4, "little")
    with pytest.raises(FormatError, match="written in format 9"):
        read_backup(disk_with(bytes(head) + crc + PLAIN[len(head) + 4 :]), PATH)

"""No put is answered before a majority has it on disk: the system calls of real nodes say so.

SIGKILL leaves the page cache alive, so that a killed node proves nothing about ``fdatasync``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.e2e import strace
from tests.e2e.conftest import ClusterMaker, FigureMaker
from tests.e2e.processes import Member
from tests.e2e.strace import Call
from tests.support import kernel_sync

PUTS_PER_MEMBER = 4
MAJORITY = 2
LEADER = "node1"
SYNC_DELAY_US = 20_000
SOCKET_CALLS = {"write", "writev", "sendto", "sendmsg"}
FILE_CALLS = {"pwrite64", "pwritev", "pwritev2"}
SYNCS = {"fdatasync", "fsync", strace.KERNEL_SYNC}


def durable_at(calls: list[Call], value: str, wal_directory: str) -> float | None:
    """When the log that holds ``value`` was first synced after it was written; None: never."""
    for write in calls:
        if write.name in FILE_CALLS and value in write.arguments:
            if not write.what.startswith(wal_directory):
                continue
            for sync in calls:
                if sync.name in SYNCS and sync.what == write.what and sync.begin >= write.end:
                    return sync.end
    return None


def answered_at(calls: list[Call], member: Member, revision: int) -> float:
    """When the member began to write the put's answer, known by its revision, to its client."""
    words = f'\\"revision\\":\\"{revision}\\"'
    here = f"TCP:[127.0.0.1:{member.node.client_port}->"
    times = [
        call.begin
        for call in calls
        if call.name in SOCKET_CALLS and call.what.startswith(here) and words in call.arguments
    ]
    assert times, f"{member.name} was not seen to answer revision {revision}"
    return times[0]


def _flags(name: str) -> list[str]:
    """The first member stands for election long before the others do, so it leads."""
    return [] if name == LEADER else ["--election-timeout=5000"]


@pytest.mark.parametrize("way", ["kernel", "thread"])
# Where two disks are slow the answer has to wait for one of them: an answer that waited for a
# single disk, the leader's or a follower's, would come 20 ms too early.
@pytest.mark.parametrize(
    "slow", [("node2", "node3"), ("node1", "node3")], ids=["fast leader", "fast follower"]
)
def test_no_put_is_answered_before_two_of_three_disks_have_it(
    slow: tuple[str, str],
    way: str,
    new_cluster: ClusterMaker,
    tmp_path: Path,
    figure: FigureMaker,
) -> None:
    reason = strace.why_not(tmp_path / "attempt")
    if not reason and way == "kernel":
        reason = kernel_sync.why_not()
    if reason:
        pytest.skip(reason)
    cluster = new_cluster(
        own_flags=_flags,
        trace=lambda name: strace.command(
            tmp_path / name, SYNC_DELAY_US if name in slow else 0, by_thread=way == "thread"
        ),
    )
    assert cluster.leader().name == LEADER
    puts: list[tuple[Member, str, int]] = []
    for number in range(PUTS_PER_MEMBER):
        for member in cluster.members:
            value = f"a-value-of-{member.name}-number-{number}-seen-nowhere-else"
            with member.client() as client:
                header = client.put(b"traced/%d" % number, value.encode()).header
            assert header is not None
            puts.append((member, value, header.revision))
    for member in cluster.members:
        assert member.stop() == 0

    calls = {member.name: strace.collected(tmp_path / member.name) for member in cluster.members}
    for asked, value, revision in puts:
        answered = answered_at(calls[asked.name], asked, revision)
        times = {
            member.name: durable_at(
                calls[member.name], value, f"{member.data_dir.resolve()}/member/wal/"
            )
            for member in cluster.members
        }
        before = [at for at in times.values() if at is not None and at <= answered]
        assert len(before) >= MAJORITY, f"{value} answered at {answered}, durable at {times}"
    sync = strace.KERNEL_SYNC if way == "kernel" else "fdatasync"
    for member in cluster.members:
        ways = [
            call.name for call in calls[member.name] if call.name in SYNCS and "/wal/" in call.what
        ]
        assert ways.count(sync) >= len(puts) / 2, f"{member.name} synced by {Counter(ways)}"
    figure(
        f"strace: {len(puts)} puts, none answered before two of three disks had it "
        f"(syncs by: {way}; slow disks: {' and '.join(slow)}; leader: {LEADER})"
    )


_WRITE = (
    r'1000.000100 pwritev(9</d/member/wal/1.wal>, [{iov_base="..v1..", iov_len=6}], 1, 512)'
    " = 6 <0.000050>"
)
_SYNC = "1000.%06d fdatasync(9</d/member/wal/%s>) = 0 <0.000100>"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (_SYNC % (200, "1.wal"), 1000.0003),
        # Begun before the bytes were written: it may have missed them.
        (_SYNC % (120, "1.wal"), None),
        (_SYNC % (200, "2.wal"), None),
        ((_SYNC % (200, "1.wal")).replace("= 0", "= -1 EIO (Input/output error)"), None),
    ],
)
def test_a_sync_counts_only_for_its_file_after_the_write(line: str, expected: float | None) -> None:
    found = durable_at(strace.parse([_WRITE, line]), "v1", "/d/member/wal/")
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-6))


_SUBMIT = (
    "1000.%06d io_submit(0x7f20, 1, [{aio_data=0x7, aio_lio_opcode=IOCB_CMD_FDSYNC, "
    "aio_fildes=9</d/member/wal/1.wal>}]) = 1 <0.000005>"
)
_ENDED = (
    "1000.000400 io_getevents(0x7f20, 1, 1, [{data=%s, obj=0x7f21, res=%d, res2=0}], "
    "{tv_sec=0, tv_nsec=0}) = 1 <0.000100>"
)


@pytest.mark.parametrize(
    ("submitted", "result", "expected"),
    [(200, 0, 1000.0005), (120, 0, None), (200, -5, None)],
)
def test_a_request_to_the_kernel_counts_once_its_result_was_read(
    submitted: int, result: int, expected: float | None
) -> None:
    lines = [_WRITE, _SUBMIT % submitted]
    assert durable_at(strace.parse(lines), "v1", "/d/member/wal/") is None
    # Threads have a file each, and come in no order.
    lines.insert(0, _ENDED % ("0x7", result))
    found = durable_at(strace.parse(lines), "v1", "/d/member/wal/")
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-6))


def test_a_result_of_no_request_is_no_trace_of_ours() -> None:
    with pytest.raises(KeyError):
        strace.parse([_WRITE, _SUBMIT % 200, _ENDED % ("0x8", 0)])

"""The state as bytes: golden, in bounded pieces, and refused where it does not hold together."""

import msgpack
import pytest

from kvstore.apply.capture import CHUNK_BYTES_MAX
from kvstore.budget import CountedBudget, finish
from kvstore.commands import ClusterVersion
from kvstore.errors import StateError
from kvstore.types import (
    AlarmAction,
    AlarmRequest,
    AlarmType,
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
)
from tests.kvstore.apply.support import Rig, captured

HEAD: list[object] = [0, 1, 9, 1, 6, 3, 12345, "3.6.0"]
MEMBER: list[object] = [1, [7, "n", ["http://a:1"], [], False]]
LEASES: list[object] = [4, [[1, 60, 0]]]
VERSIONS: list[object] = [5, [[b"a", 2, 2, 1, b"v", 0], [b"b", 4, 4, 1, b"", 1]]]
END: list[object] = [6, 1, 2]
WHOLE = [HEAD, MEMBER, LEASES, VERSIONS, END]


def rows_of(chunks: list[bytes]) -> list[object]:
    unpacker = msgpack.Unpacker()
    for chunk in chunks:
        unpacker.feed(chunk)
    return list(unpacker)


def stream(rows: list[list[object]]) -> list[bytes]:
    return [msgpack.packb(row) for row in rows]


def busy_rig() -> Rig:
    rig = Rig()
    rig.run(LeaseGrantRequest(60, -3))
    rig.run(PutRequest(b"a", b"1", lease=-3))
    rig.run(PutRequest(b"gone", b"x"))
    rig.run(DeleteRangeRequest(b"gone"))
    rig.run(PutRequest(b"a", b"2"))
    rig.run(CompactionRequest(5))
    rig.run(AlarmRequest(AlarmAction.ACTIVATE, 9, AlarmType.NOSPACE))
    rig.run(ClusterVersion("3.6.0"))
    rig.run(DeleteRangeRequest(b"a"), member=9, sequence=300, low=298)
    return rig


def test_golden_bytes():
    rig = busy_rig()
    golden = (
        "98000109010605cec9c04239a5332e362e30"
        "92019507a091aa687474703a2f2f613a3190c2"
        "92019509a091aa687474703a2f2f623a3190c2"
        "9202920901"
        "920394070104950405060708"
        "9203940901cd012a91cd012c"
        "92049193fd3c00"
        "92059296c40161020502c401320096c40161000600c40000"
        "93060102"
    )
    data = b"".join(captured(rig.machine))
    assert rows_of([data]) == [
        [0, 1, 9, 1, 6, 5, rig.machine.effects_hash, "3.6.0"],
        [1, [7, "", ["http://a:1"], [], False]],
        [1, [9, "", ["http://b:1"], [], False]],
        [2, [9, 1]],
        [3, [7, 1, 4, [4, 5, 6, 7, 8]]],
        [3, [9, 1, 298, [300]]],
        [4, [[-3, 60, 0]]],
        [5, [[b"a", 2, 5, 2, b"2", 0], [b"a", 0, 6, 0, b"", 0]]],
        [6, 1, 2],
    ]
    assert data.hex() == golden


def test_a_sweep_changes_no_byte():
    swept = busy_rig()
    finish(swept.machine.store.sweep(CountedBudget(1)), CountedBudget(1))
    assert captured(swept.machine) == captured(busy_rig().machine)


def test_pieces_are_bounded_and_large_values_cross_them():
    rig = Rig()
    for n in range(600):
        rig.run(PutRequest(b"%d" % n, b"x"))
    rig.run(PutRequest(b"large", bytes(1_500_000)))
    chunks = captured(rig.machine)
    assert max(map(len, chunks)) == CHUNK_BYTES_MAX
    assert len(chunks) > 1_500_000 // CHUNK_BYTES_MAX
    for row in rows_of(chunks):
        assert isinstance(row, list)
        if row[0] in (4, 5):
            assert len(row[1]) <= 128
    assert captured(rig.reload(chunks).machine) == chunks


def test_sweeping_waits_until_a_capture_is_closed():
    rig = busy_rig()
    capture = rig.machine.capture()
    assert not rig.machine.store.sweep_due
    capture.close()
    capture.close()
    assert rig.machine.store.sweep_due


def test_an_old_version_may_name_a_lease_that_is_gone():
    rig = Rig()
    rig.run(LeaseGrantRequest(60, 1))
    rig.run(PutRequest(b"a", lease=1))
    rig.run(PutRequest(b"b", lease=1))
    rig.run(PutRequest(b"b"))
    rig.run(LeaseRevokeRequest(1))
    chunks = captured(rig.machine)
    assert captured(rig.reload(chunks).machine) == chunks


def test_what_holds_together_is_taken():
    machine = Rig().reload(stream(WHOLE)).machine
    assert machine.applied_index == 9
    assert machine.effects_hash == 12345
    assert machine.lessor.keys(1) == [b"b"]  # type: ignore[arg-type]  # a plain number will do here
    assert machine.store.compacted_revision == 3


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (WHOLE[1:], "out of place"),
        ([HEAD, HEAD, *WHOLE[1:]], "out of place"),
        ([HEAD, VERSIONS, LEASES, END], "out of place"),
        ([*WHOLE, END], "out of place"),
        (WHOLE[:-1], "before its end"),
        ([], "before its end"),
        ([HEAD, LEASES, VERSIONS, [6, 1, 3]], "2 versions"),
        ([HEAD, LEASES, VERSIONS, [6, 0, 2]], "1 leases"),
        ([HEAD, VERSIONS, [6, 0, 2]], "leases that it lacks"),
        ([HEAD, [4, [[1, 60, 0], [1, 60, 0]]], END], "impossible lease"),
        ([[0, 2, *HEAD[2:]], END], "upgrade"),
        ([HEAD[:-1], END], "cannot be read"),
        ([HEAD, [7, 0], END], "unknown kind"),
        ([HEAD, [5, [[b"a", 2, 7, 1, b"", 0]]], END], "out of place"),
        ([HEAD, [5, [[b"", 2, 2, 1, b"", 0]]], END], "out of place"),
        ([HEAD, [5, [[b"a", 3, 3, 1, b"", 0], [b"b", 2, 2, 1, b"", 0]]], END], "out of place"),
        ([HEAD, [5, [["a", 2, 2, 1, b"", 0]]], END], "cannot be read"),
        ([HEAD, [5, 7], END], "cannot be read"),
        ([HEAD, [], END], "cannot be read"),
        ([HEAD, 7, END], "cannot be read"),
    ],
)
def test_what_does_not_hold_together_is_refused(rows, why):
    with pytest.raises(StateError, match=why):
        Rig().reload(stream(rows))


def test_bytes_that_are_no_stream_are_refused():
    with pytest.raises(StateError):
        Rig().reload([b"\xc1\xc1"])

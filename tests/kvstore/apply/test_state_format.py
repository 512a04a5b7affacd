"""The state as bytes: golden, in bounded pieces, and refused where it does not hold together."""

import msgpack
import pytest

from kvstore.apply.capture import CHUNK_BYTES_MAX
from kvstore.auth.identity import SYSTEM, Identity
from kvstore.budget import CountedBudget, finish
from kvstore.commands import (
    ClusterVersion,
    Downgrade,
    MembershipAction,
    MembershipChange,
    PublishMember,
)
from kvstore.errors import ErrorKind, StateError
from kvstore.types import (
    AlarmAction,
    AlarmRequest,
    AlarmType,
    AuthEnableRequest,
    AuthRoleAddRequest,
    AuthRoleGrantPermissionRequest,
    AuthUserAddRequest,
    AuthUserGrantRoleRequest,
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    Permission,
    PutRequest,
    UserAddOptions,
)
from tests.kvstore.apply.support import Rig, captured

HEAD: list[object] = [0, 2, 9, 1, 6, 3, 12345, "3.6.0", True, "3.5.0", 5, True, 8]
MEMBER: list[object] = [1, [7, "n", ["http://a:1"], [], False], 77]
REMOVED: list[object] = [2, 8, ["http://c:1"]]
USERS: list[object] = [5, [["root", "$2b$", False, ["root"]], ["u", "", True, ["r"]]]]
ROLES: list[object] = [6, [["r", [[2, b"a", b"b"]]], ["r", [[0, b"c", b""]]], ["s", []]]]
LEASES: list[object] = [7, [[1, 60, 0, 2]]]
VERSIONS: list[object] = [8, [[b"a", 2, 2, 1, b"v", 0], [b"b", 4, 4, 1, b"", 1]]]
END: list[object] = [9, 2, 3, 1, 2]
WHOLE = [HEAD, MEMBER, REMOVED, USERS, ROLES, LEASES, VERSIONS, END]

# The same without users, for what is said of the rest.
PLAIN: list[object] = [*HEAD[:8], False, "", 0, False, 1]


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
    rig.run(PublishMember(7, "n", ["http://a:2"], 77))
    rig.run(MembershipChange(0, MembershipAction.ADD, 8, ["http://c:1"], is_learner=True))
    rig.run(MembershipChange(10, MembershipAction.REMOVE, 8, []))
    rig.run(Downgrade(enabled=True, target_version="3.5.0"))
    rig.run(AuthUserAddRequest("root", hashedPassword="$2b$"))
    rig.run(AuthUserGrantRoleRequest("root", "root"))
    rig.run(AuthRoleAddRequest("r"))
    rig.run(AuthRoleGrantPermissionRequest("r", Permission(2, b"a", b"b")))
    rig.run(AuthUserAddRequest("u", options=UserAddOptions(no_password=True)))
    rig.run(AuthUserGrantRoleRequest("u", "r"))
    rig.run(AuthEnableRequest())
    rig.run(DeleteRangeRequest(b"a"), member=9, sequence=300, low=298, identity=SYSTEM)
    return rig


def test_golden_bytes():
    rig = busy_rig()
    golden = (
        "9d000214010605ce0332bb8aa5332e362e30c3a5332e352e300bc307"
        "93019507a16e91aa687474703a2f2f613a3191aa687474703a2f2f613a32c24d"
        "93019509a091aa687474703a2f2f623a3190c200"
        "93020891aa687474703a2f2f633a31"
        "9203920901"
        "92049407010f950f10111213"
        "9204940901cd012a91cd012c"
        "92059294a4726f6f74a424326224c291a4726f6f7494a175a0c391a172"
        "92069192a172919302c40161c40162"
        "92079194fd3c0001"
        "92089296c40161020502c401320096c40161000600c40000"
        "950902010102"
    )
    data = b"".join(captured(rig.machine))
    hashed = rig.machine.effects_hash
    assert rows_of([data]) == [
        [0, 2, 20, 1, 6, 5, hashed, "3.6.0", True, "3.5.0", 11, True, 7],
        [1, [7, "n", ["http://a:1"], ["http://a:2"], False], 77],
        [1, [9, "", ["http://b:1"], [], False], 0],
        [2, 8, ["http://c:1"]],
        [3, [9, 1]],
        [4, [7, 1, 15, [15, 16, 17, 18, 19]]],
        [4, [9, 1, 298, [300]]],
        [5, [["root", "$2b$", False, ["root"]], ["u", "", True, ["r"]]]],
        [6, [["r", [[2, b"a", b"b"]]]]],
        [7, [[-3, 60, 0, 1]]],
        [8, [[b"a", 2, 5, 2, b"2", 0], [b"a", 0, 6, 0, b"", 0]]],
        [9, 2, 1, 1, 2],
    ]
    assert data.hex() == golden


def test_members_users_and_a_downgrade_survive():
    before = busy_rig()
    before.run(AuthRoleAddRequest("many"), identity=SYSTEM)
    for n in range(40):
        grant = AuthRoleGrantPermissionRequest("many", Permission(1, b"%03d" % n))
        before.run(grant, identity=SYSTEM)
    chunks = captured(before.machine)
    after = before.reload(chunks)
    assert captured(after.machine) == chunks
    old, new = before.machine, after.machine
    assert new.roster.members == old.roster.members
    assert new.roster.removed == old.roster.removed == {8: ("http://c:1",)}
    assert new.roster.log_ids == old.roster.log_ids == {7: 77}
    assert new.roster.version == old.roster.version == 11
    assert new.downgrade == old.downgrade
    assert new.auth.enabled
    assert new.auth.revision == old.auth.revision
    assert new.auth.user("u") == old.auth.user("u")
    assert new.auth.role("many") == old.auth.role("many")
    for rig in (before, after):
        denied = rig.ask(PutRequest(b"b"), identity=Identity("u", new.auth.revision))
        assert denied == ErrorKind.PERMISSION_DENIED.error()
    assert before.machine.effects_hash == after.machine.effects_hash


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
        if row[0] in (7, 8):
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
    assert machine.roster.version == 5
    assert machine.roster.removed == {8: ("http://c:1",)}
    assert machine.auth.enabled
    assert machine.auth.permissions("r") == [Permission(2, b"a", b"b"), Permission(0, b"c")]
    assert machine.auth.role_names() == ["r", "s"]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (WHOLE[1:], "out of place"),
        ([HEAD, HEAD, *WHOLE[1:]], "out of place"),
        ([PLAIN, VERSIONS, LEASES, END], "out of place"),
        ([*WHOLE, END], "out of place"),
        (WHOLE[:-1], "before its end"),
        ([], "before its end"),
        ([PLAIN, LEASES, VERSIONS, [9, 0, 0, 1, 3]], "2 versions"),
        ([PLAIN, LEASES, VERSIONS, [9, 0, 0, 0, 2]], "1 leases"),
        ([PLAIN, USERS, ROLES, [9, 2, 2, 0, 0]], "3 roles"),
        ([PLAIN, USERS, ROLES, [9, 3, 3, 0, 0]], "2 users"),
        ([PLAIN, VERSIONS, [9, 0, 0, 0, 2]], "leases that it lacks"),
        ([PLAIN, [7, [[1, 60, 0, 2], [1, 60, 0, 2]]], END], "impossible lease"),
        ([HEAD, [9, 0, 0, 0, 0]], "nobody could log in"),
        ([[*PLAIN[:12], 0], [9, 0, 0, 0, 0]], "auth revision 0"),
        ([PLAIN, USERS, USERS, END], "user 'root' twice"),
        ([PLAIN, [5, [["", "", False, []]]], END], "user '' twice, or not at all"),
        ([PLAIN, [6, [["s", []], ["s", []]]], END], "role 's' twice"),
        ([PLAIN, [6, [["", []]]], END], "role '' twice, or not at all"),
        ([[0, 1, 9, 1, 6, 3, 12345, "3.6.0"], END], "format 1, and this version reads only 2"),
        ([[0, 3], END], "format 3"),
        ([HEAD[:-1], END], "cannot be read"),
        ([HEAD, [10, 0], END], "unknown kind"),
        ([HEAD, [8, [[b"a", 2, 7, 1, b"", 0]]], END], "out of place"),
        ([HEAD, [8, [[b"", 2, 2, 1, b"", 0]]], END], "out of place"),
        ([HEAD, [8, [[b"a", 3, 3, 1, b"", 0], [b"b", 2, 2, 1, b"", 0]]], END], "out of place"),
        ([HEAD, [8, [["a", 2, 2, 1, b"", 0]]], END], "cannot be read"),
        ([HEAD, [8, 7], END], "cannot be read"),
        ([HEAD, [5, [["u", "", 7, []]]], END], "cannot be read"),
        ([HEAD, [1, [7, "n", [], [], False]], END], "cannot be read"),
        ([HEAD, [], END], "cannot be read"),
        ([HEAD, 7, END], "cannot be read"),
        ([[0], END], "cannot be read"),
    ],
)
def test_what_does_not_hold_together_is_refused(rows, why):
    with pytest.raises(StateError, match=why):
        Rig().reload(stream(rows))


def test_bytes_that_are_no_stream_are_refused():
    with pytest.raises(StateError):
        Rig().reload([b"\xc1\xc1"])

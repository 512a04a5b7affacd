"""Who may do what: every request and every command, asked by everybody."""

import pytest

from kvstore import commands, types
from kvstore.auth.check import NOBODY, SYSTEM, Identity, authorise, authorise_lease_list
from kvstore.auth.store import AuthStore
from kvstore.budget import CountedBudget, finish
from kvstore.commands import (
    AuthToken,
    ClusterVersion,
    Downgrade,
    LeaseCheckpoint,
    LeaseExpire,
    MembershipAction,
    MembershipChange,
    PublishMember,
)
from kvstore.errors import ErrorKind, KvError
from kvstore.lease.lessor import Lessor
from kvstore.types import (
    AlarmAction,
    AlarmRequest,
    AuthDisableRequest,
    AuthEnableRequest,
    AuthenticateRequest,
    AuthRoleAddRequest,
    AuthRoleDeleteRequest,
    AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest,
    AuthRoleListRequest,
    AuthRoleRevokePermissionRequest,
    AuthStatusRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserDeleteRequest,
    AuthUserGetRequest,
    AuthUserGrantRoleRequest,
    AuthUserListRequest,
    AuthUserRevokeRoleRequest,
    CampaignRequest,
    CompactionRequest,
    Compare,
    DefragmentRequest,
    DeleteRangeRequest,
    DowngradeRequest,
    HashKVRequest,
    HashRequest,
    LeaderKey,
    LeaderRequest,
    LeaseGrantRequest,
    LeaseId,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    LockRequest,
    MemberAddRequest,
    MemberListRequest,
    MemberPromoteRequest,
    MemberRemoveRequest,
    MemberUpdateRequest,
    MoveLeaderRequest,
    ProclaimRequest,
    PutRequest,
    RangeRequest,
    Record,
    RequestOp,
    ResignRequest,
    SnapshotRequest,
    StatusRequest,
    TxnRequest,
    UnlockRequest,
    WatchCancelRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
)
from tests.kvstore.auth.support import BOTH, ENABLE, READ, WRITE, current, store, user

OPEN = b"\0"
EMPTY = ErrorKind.USER_EMPTY
DENIED = ErrorKind.PERMISSION_DENIED
OLD = ErrorKind.AUTH_OLD_REVISION

# Who asks: nobody; a user without any role; one who may read a to c and write a to b; one who may
# read and write all keys; root.
ASKING = ("nobody", "none", "partial", "full", "root")


def everything() -> AuthStore:
    return store(
        AuthUserAddRequest("none"),
        *user("partial", (READ, b"a", b"c"), (WRITE, b"a", b"b")),
        *user("full", (BOTH, b"\0", OPEN)),
        *ENABLE,
    )


def leases() -> Lessor:
    """Lease 1 has keys that partial may write, 2 one more that it may only read, 3 one more that
    it may do nothing with, 4 none.
    """
    lessor = Lessor(2)
    for lease_id, keys in ((1, [b"a1"]), (2, [b"a2", b"b2"]), (3, [b"a3", b"x3"]), (4, [])):
        lessor.grant(LeaseId(lease_id), 60, 0.0)
        for key in keys:
            lessor.attach(LeaseId(lease_id), key)
    return lessor


def op(request: Record) -> RequestOp:
    return RequestOp(
        request if isinstance(request, RangeRequest) else None,
        request if isinstance(request, PutRequest) else None,
        request if isinstance(request, DeleteRangeRequest) else None,
        request if isinstance(request, TxnRequest) else None,
    )


def txn(*then: Record, otherwise: tuple[Record, ...] = (), compare=()) -> TxnRequest:
    return TxnRequest(list(compare), [op(x) for x in then], [op(x) for x in otherwise])


READABLE = RangeRequest(b"a", b"c")
OUT_OF_REACH = RangeRequest(b"c")

# What each of the five may do, as letters: y yes, n denied, e nobody has said who they are.
ALL_KEYS = "ennyy"
PARTLY = "enyyy"
USERS = "eyyyy"
ROOT = "ennny"
ANYBODY = "yyyyy"

MATRIX: list[tuple[Record, str]] = [
    (RangeRequest(b"a"), PARTLY),
    (RangeRequest(b"a", b"c"), PARTLY),
    (RangeRequest(b"b", serializable=True), PARTLY),
    (RangeRequest(b"a", b"d"), ALL_KEYS),
    (RangeRequest(b"a", OPEN), ALL_KEYS),
    (RangeRequest(b"c", count_only=True), ALL_KEYS),
    (PutRequest(b"a"), PARTLY),
    (PutRequest(b"a", prev_kv=True), PARTLY),
    (PutRequest(b"b"), ALL_KEYS),
    (PutRequest(b"a", lease=1), PARTLY),
    (PutRequest(b"a", lease=2), ALL_KEYS),
    (PutRequest(b"a", lease=4), PARTLY),
    (PutRequest(b"a", lease=99), PARTLY),
    (DeleteRangeRequest(b"a", b"b"), PARTLY),
    (DeleteRangeRequest(b"a", b"b", prev_kv=True), PARTLY),
    (DeleteRangeRequest(b"a", b"b\0"), ALL_KEYS),
    (DeleteRangeRequest(b"a", OPEN), ALL_KEYS),
    (txn(), "eyyyy"),
    (txn(READABLE), PARTLY),
    (txn(READABLE, OUT_OF_REACH), ALL_KEYS),
    (txn(READABLE, otherwise=(OUT_OF_REACH,)), ALL_KEYS),
    (txn(compare=[Compare(key=b"b")]), PARTLY),
    (txn(compare=[Compare(key=b"c")]), ALL_KEYS),
    (txn(compare=[Compare(key=b"b", range_end=b"d")]), ALL_KEYS),
    (txn(PutRequest(b"a"), DeleteRangeRequest(b"a1")), PARTLY),
    (txn(PutRequest(b"b")), ALL_KEYS),
    (txn(PutRequest(b"a", lease=2)), ALL_KEYS),
    (txn(DeleteRangeRequest(b"b")), ALL_KEYS),
    (txn(txn(txn(READABLE))), PARTLY),
    (txn(txn(txn(OUT_OF_REACH))), ALL_KEYS),
    (txn(otherwise=(txn(otherwise=(txn(PutRequest(b"b")),)),)), ALL_KEYS),
    (txn(txn(compare=[Compare(key=b"c")])), ALL_KEYS),
    (txn(txn(DeleteRangeRequest(b"a", OPEN))), ALL_KEYS),
    (TxnRequest([], [RequestOp()], []), "eyyyy"),
    (CompactionRequest(1), ROOT),
    (WatchCreateRequest(b"a", b"c"), PARTLY),
    (WatchCreateRequest(b"a", OPEN), ALL_KEYS),
    (WatchCreateRequest(b""), ALL_KEYS),
    (WatchCreateRequest(b"", OPEN), ALL_KEYS),
    (WatchRequest(create_request=WatchCreateRequest(b"b")), PARTLY),
    (WatchRequest(create_request=WatchCreateRequest(b"b", OPEN)), ALL_KEYS),
    (WatchRequest(cancel_request=WatchCancelRequest(1)), ANYBODY),
    (WatchRequest(progress_request=WatchProgressRequest()), ANYBODY),
    (LeaseGrantRequest(60), USERS),
    (LeaseRevokeRequest(1), PARTLY),
    (LeaseRevokeRequest(2), ALL_KEYS),
    (LeaseRevokeRequest(4), USERS),
    (LeaseRevokeRequest(99), USERS),
    (LeaseKeepAliveRequest(1), PARTLY),
    (LeaseKeepAliveRequest(2), ALL_KEYS),
    (LeaseKeepAliveRequest(4), USERS),
    (LeaseTimeToLiveRequest(3), USERS),
    (LeaseTimeToLiveRequest(2, keys=True), PARTLY),
    (LeaseTimeToLiveRequest(3, keys=True), ALL_KEYS),
    (LeaseTimeToLiveRequest(4, keys=True), USERS),
    (LeaseLeasesRequest(), ALL_KEYS),
    (LockRequest(b"a"), PARTLY),
    (LockRequest(b"b"), PARTLY),
    (LockRequest(b"b", 4), ALL_KEYS),
    (LockRequest(b"a", 1), PARTLY),
    (LockRequest(b"a", 2), ALL_KEYS),
    (LockRequest(b"c"), ALL_KEYS),
    (UnlockRequest(b"a/1"), PARTLY),
    (UnlockRequest(b"b/1"), ALL_KEYS),
    (CampaignRequest(b"a", 1), PARTLY),
    (CampaignRequest(b"c"), ALL_KEYS),
    (ProclaimRequest(LeaderKey(b"a", b"a/1")), PARTLY),
    (ProclaimRequest(LeaderKey(b"b", b"b/1")), ALL_KEYS),
    (ProclaimRequest(), USERS),
    (LeaderRequest(b"b"), PARTLY),
    (LeaderRequest(b"c"), ALL_KEYS),
    (ResignRequest(LeaderKey(b"a", b"a/1")), PARTLY),
    (ResignRequest(LeaderKey(b"b", b"b/1")), ALL_KEYS),
    (MemberListRequest(), USERS),
    (MemberAddRequest(), ROOT),
    (MemberRemoveRequest(), ROOT),
    (MemberUpdateRequest(), ROOT),
    (MemberPromoteRequest(), ROOT),
    (MembershipChange(0, MembershipAction.REMOVE, 7, []), ROOT),
    (StatusRequest(), USERS),
    (AlarmRequest(AlarmAction.GET), USERS),
    (AlarmRequest(AlarmAction.ACTIVATE), ROOT),
    (AlarmRequest(AlarmAction.DEACTIVATE), ROOT),
    (AlarmRequest(7), ROOT),
    (DefragmentRequest(), ROOT),
    (HashRequest(), ROOT),
    (HashKVRequest(), ROOT),
    (SnapshotRequest(), ROOT),
    (MoveLeaderRequest(), ROOT),
    (DowngradeRequest(), ROOT),
    (Downgrade(enabled=True), ROOT),
    (AuthenticateRequest("u", "p"), ANYBODY),
    (AuthToken("u", "t", 1), ANYBODY),
    (AuthStatusRequest(), ANYBODY),
    (AuthEnableRequest(), ROOT),
    (AuthDisableRequest(), ROOT),
    (AuthUserAddRequest("u"), ROOT),
    (AuthUserGetRequest("partial"), "enyny"),
    (AuthUserGetRequest(""), ROOT),
    (AuthUserListRequest(), ROOT),
    (AuthUserDeleteRequest("u"), ROOT),
    (AuthUserChangePasswordRequest("partial"), ROOT),
    (AuthUserGrantRoleRequest("u", "r"), ROOT),
    (AuthUserRevokeRoleRequest("u", "r"), ROOT),
    (AuthRoleAddRequest("r"), ROOT),
    (AuthRoleGetRequest("partial"), "enyny"),
    (AuthRoleGetRequest("root"), ROOT),
    (AuthRoleListRequest(), ROOT),
    (AuthRoleDeleteRequest("r"), ROOT),
    (AuthRoleGrantPermissionRequest("r"), ROOT),
    (AuthRoleRevokePermissionRequest("r"), ROOT),
    # The members' own.
    (LeaseExpire(1, [1]), "nnnnn"),
    (LeaseCheckpoint(1, [1], [1]), "nnnnn"),
    (PublishMember(7, "n", []), "nnnnn"),
    (ClusterVersion("3.7.0"), "nnnnn"),
]


def refusal(auth, identity, request, lessor=None) -> KvError | None:
    try:
        authorise(auth, identity, request, leases() if lessor is None else lessor)
    except KvError as error:
        return error
    return None


@pytest.mark.parametrize(("request_", "due"), MATRIX, ids=str)
def test_everybody_may_do_what_they_may_and_nothing_else(request_, due):
    auth = everything()
    errors = {"y": None, "n": DENIED.error(), "e": EMPTY.error()}
    for name, letter in zip(ASKING, due, strict=True):
        identity = NOBODY if name == "nobody" else current(auth, name)
        assert refusal(auth, identity, request_) == errors[letter], name
    assert refusal(auth, SYSTEM, request_) is None
    auth.apply(AuthDisableRequest())
    assert refusal(auth, NOBODY, request_) is None


def test_every_request_and_every_command_is_in_the_matrix():
    requests = {
        kind
        for name in types.__all__
        if name.endswith("Request") and isinstance(kind := getattr(types, name), type)
    }
    # These come only inside a WatchRequest.
    requests -= {WatchCancelRequest, WatchProgressRequest}
    assert requests | set(commands.BODIES.values()) == {type(request) for request, _ in MATRIX}


def test_what_nobody_knows_is_denied_even_to_root():
    class Strange(Record):
        pass

    auth = everything()
    assert refusal(auth, current(auth, "root"), Strange()) == DENIED.error()


# --- as of which revision ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["none", "full", "root"])
@pytest.mark.parametrize(
    "request_",
    [
        RangeRequest(b"a"),
        PutRequest(b"a"),
        DeleteRangeRequest(b"a"),
        txn(READABLE),
        txn(),
        WatchCreateRequest(b"a"),
        LockRequest(b"a"),
    ],
    ids=str,
)
def test_an_old_revision_fails_every_call_to_keys_even_of_root(name, request_):
    auth = everything()
    old = Identity(name, auth.revision - 1)
    assert refusal(auth, old, request_) == OLD.error()


@pytest.mark.parametrize(
    ("name", "request_", "due"),
    [
        ("root", AuthUserListRequest(), None),
        ("root", CompactionRequest(1), None),
        ("full", AuthUserGetRequest("full"), None),
        ("full", StatusRequest(), None),
        ("full", LeaseGrantRequest(60), None),
        ("full", LeaseRevokeRequest(1), OLD),
        ("full", LeaseKeepAliveRequest(1), OLD),
        ("full", LeaseTimeToLiveRequest(1, keys=True), OLD),
        ("full", LeaseLeasesRequest(), OLD),
        ("full", LeaseRevokeRequest(4), None),
        ("root", LeaseRevokeRequest(1), None),
        ("root", LeaseLeasesRequest(), None),
    ],
    ids=str,
)
def test_elsewhere_an_old_revision_counts_only_where_keys_do(name, request_, due):
    auth = everything()
    old = Identity(name, auth.revision - 1)
    assert refusal(auth, old, request_) == (None if due is None else due.error())


@pytest.mark.parametrize(
    ("request_", "due"),
    [
        (RangeRequest(b"a"), DENIED),
        (LeaseGrantRequest(60), DENIED),
        (LeaseRevokeRequest(4), DENIED),
        (StatusRequest(), DENIED),
        (AuthUserListRequest(), ErrorKind.USER_NOT_FOUND),
        (AuthRoleGetRequest("full"), ErrorKind.USER_NOT_FOUND),
    ],
    ids=str,
)
def test_a_user_who_is_gone_may_nothing(request_, due):
    auth = everything()
    auth.apply(AuthUserDeleteRequest("full"))
    assert refusal(auth, current(auth, "full"), request_) == due.error()


def test_whoever_holds_the_role_root_is_root_whatever_the_name():
    auth = everything()
    auth.apply(AuthUserGrantRoleRequest("none", "root"))
    assert refusal(auth, current(auth, "none"), AuthUserListRequest()) is None
    assert refusal(auth, current(auth, "none"), RangeRequest(b"a", OPEN)) is None


# --- advisories of etcd ---------------------------------------------------------------------------


def test_a_nest_of_transactions_hides_nothing_however_deep():
    """CVE-2026-33343: operations of nested transactions were not looked at."""
    auth = everything()
    for secret in (OUT_OF_REACH, PutRequest(b"b"), DeleteRangeRequest(b"b")):
        request = txn(secret)
        for depth in range(5_000):
            request = txn(otherwise=(request,)) if depth % 2 else txn(READABLE, request)
        assert refusal(auth, current(auth, "partial"), request) == DENIED.error()


def test_a_watch_to_the_open_end_needs_all_of_it():
    """GHSA-xg4h-6gfc-h4m8: only the first key was looked at."""
    auth = store(*user("u", (READ, b"p", b"")), *user("v", (READ, b"p", OPEN)), *ENABLE)
    assert refusal(auth, current(auth, "u"), WatchCreateRequest(b"p")) is None
    assert refusal(auth, current(auth, "u"), WatchCreateRequest(b"p", OPEN)) == DENIED.error()
    assert refusal(auth, current(auth, "v"), WatchCreateRequest(b"p", OPEN)) is None


def test_what_was_before_is_shown_only_to_those_who_may_read_it():
    """Puts in nested transactions gave it away once."""
    auth = store(*user("writer", (WRITE, b"a", b"c")), *ENABLE)
    identity = current(auth, "writer")
    for quiet, telling in (
        (PutRequest(b"a"), PutRequest(b"a", prev_kv=True)),
        (DeleteRangeRequest(b"a", b"c"), DeleteRangeRequest(b"a", b"c", prev_kv=True)),
    ):
        for wrap in (lambda x: x, txn, lambda x: txn(otherwise=(txn(x),))):
            assert refusal(auth, identity, wrap(quiet)) is None
            assert refusal(auth, identity, wrap(telling)) == DENIED.error()


def test_nobody_ties_a_key_to_a_lease_that_they_could_not_end():
    auth = everything()
    identity = current(auth, "partial")
    for request in (
        PutRequest(b"a", lease=2),
        txn(PutRequest(b"a", lease=2)),
        LeaseRevokeRequest(2),
        LeaseKeepAliveRequest(2),
    ):
        assert refusal(auth, identity, request) == DENIED.error()


# --- very many keys and leases --------------------------------------------------------------------


def test_a_lease_of_very_many_keys_is_looked_at_and_not_copied():
    auth = everything()
    lessor = Lessor(2)
    lessor.grant(LeaseId(1), 60, 0.0)
    for n in range(2_000):
        lessor.attach(LeaseId(1), b"a%05d" % n)
    assert lessor.attached(LeaseId(1)) is lessor.attached(LeaseId(1))
    identity = current(auth, "partial")
    assert refusal(auth, identity, PutRequest(b"a", lease=1), lessor) is None
    lessor.attach(LeaseId(1), b"b")
    assert refusal(auth, identity, PutRequest(b"a", lease=1), lessor) == DENIED.error()


def test_a_list_of_very_many_leases_is_checked_in_slices():
    auth = everything()
    lessor = Lessor(2)
    for n in range(1, 201):
        lessor.grant(LeaseId(n), 60, 0.0)
        lessor.attach(LeaseId(n), b"a%d" % n)
    budget = CountedBudget(1)
    identity = current(auth, "partial")
    work = authorise_lease_list(auth, identity, lessor, budget)
    assert sum(1 for _ in work) == 12
    work = authorise_lease_list(auth, identity, lessor, budget)
    next(work)
    auth.apply(AuthUserAddRequest("another"))
    with pytest.raises(KvError) as raised:
        finish(work, budget)
    assert raised.value == OLD.error()
    lessor.attach(LeaseId(200), b"z")
    assert refusal(auth, current(auth, "partial"), LeaseLeasesRequest(), lessor) == DENIED.error()

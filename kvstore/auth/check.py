"""The one check: may this user do that?

Asked before a call is carried out or proposed, and again when its command is applied: what was
allowed then may not be now. What the table here does not know is denied.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Protocol, TypeAlias

from kvstore.auth.identity import NOBODY, SYSTEM, Identity
from kvstore.auth.store import Access, AuthStore
from kvstore.budget import Budget, CountedBudget, Sliced, finish
from kvstore.commands import SYSTEM_AUTH_REVISION, AuthToken, Downgrade, MembershipChange
from kvstore.errors import ErrorKind
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
    ResignRequest,
    SnapshotRequest,
    StatusRequest,
    TxnRequest,
    UnlockRequest,
    WatchCreateRequest,
    WatchRequest,
)

__all__ = ["NOBODY", "SYSTEM", "Identity", "LeaseKeys", "authorise", "authorise_lease_list"]


class LeaseKeys(Protocol):
    """What the check needs of leases."""

    def attached(self, lease_id: LeaseId) -> Sequence[bytes]:
        """The keys of a lease, sorted; none of an unknown one. Not to be kept or changed."""

    def holders(self) -> Collection[LeaseId]:
        """The leases that have keys, in no order that matters. Not to be kept or changed."""


_STEP: Final = 16
"""Leases looked at between two questions to the budget."""


def authorise(auth: AuthStore, identity: Identity, request: Record, leases: LeaseKeys) -> None:
    """Let a call pass, or raise.

    Args:
        auth: Users and roles. While authentication is off everything passes.
        identity: Who asks. The members themselves may do everything.
        request: A request of the API, or the body of a command; every operation in it is looked
            at.
        leases: A lease counts as all keys that are attached to it.

    Raises:
        KvError: USER_EMPTY (nobody asks), AUTH_OLD_REVISION (users have changed since they said
            who they are; only where keys are concerned), USER_NOT_FOUND, PERMISSION_DENIED.
    """
    if not auth.enabled or identity.revision == SYSTEM_AUTH_REVISION:
        return
    rule = _RULES.get(type(request))
    if rule is None:
        raise ErrorKind.PERMISSION_DENIED.error()
    rule(auth, identity, request, leases)


def authorise_lease_list(
    auth: AuthStore, identity: Identity, leases: LeaseKeys, budget: Budget
) -> Sliced[None]:
    """As ``authorise`` of a ``LeaseLeasesRequest``, in slices: there may be many leases, and who
    wants to see all of them must be allowed to read the keys of each.

    Raises:
        KvError: AUTH_OLD_REVISION also if users change between two slices.
    """
    if not auth.enabled or identity.revision == SYSTEM_AUTH_REVISION:
        return
    _user(auth, identity)
    holders = list(leases.holders())
    if auth.is_root(identity.user) or not holders:
        return
    revision = auth.revision
    access = _access(auth, identity)
    assert access is not None, "root has been let pass"
    for place, lease_id in enumerate(holders, 1):
        _need(access.read.covers_all(leases.attached(lease_id)))
        if not place % _STEP and budget.spent():
            yield
            if auth.revision != revision:
                raise ErrorKind.AUTH_OLD_REVISION.error()


# --- who asks
# --------------------------------------------------------------------------------------


def _user(auth: AuthStore, identity: Identity) -> None:
    """Somebody who said who they are, and still is somebody."""
    if not identity.user:
        raise ErrorKind.USER_EMPTY.error()
    if auth.user(identity.user) is None:
        raise ErrorKind.PERMISSION_DENIED.error()


def _root(auth: AuthStore, identity: Identity) -> None:
    """Somebody with the role root. As in etcd, it may be known by an older revision."""
    if not identity.user:
        raise ErrorKind.USER_EMPTY.error()
    if auth.user(identity.user) is None:
        raise ErrorKind.USER_NOT_FOUND.error()
    _need(auth.is_root(identity.user))


def _access(auth: AuthStore, identity: Identity) -> Access | None:
    """What somebody may do with keys; None: everything."""
    if not identity.user:
        raise ErrorKind.USER_EMPTY.error()
    if identity.revision < auth.revision:
        raise ErrorKind.AUTH_OLD_REVISION.error()
    _user(auth, identity)
    return None if auth.is_root(identity.user) else auth.access(identity.user)


def _need(permitted: bool) -> None:
    if not permitted:
        raise ErrorKind.PERMISSION_DENIED.error()


# --- keys
# ------------------------------------------------------------------------------------------


def _range(auth: AuthStore, identity: Identity, request: RangeRequest, _: LeaseKeys) -> None:
    _read(_access(auth, identity), request.key, request.range_end)


def _watch(auth: AuthStore, identity: Identity, request: WatchCreateRequest, _: LeaseKeys) -> None:
    # To a watch no key means the first one.
    _read(_access(auth, identity), request.key or b"\0", request.range_end)


def _watch_stream(
    auth: AuthStore, identity: Identity, request: WatchRequest, leases: LeaseKeys
) -> None:
    # What else is said on a stream concerns only watches that have passed.
    if request.create_request is not None:
        _watch(auth, identity, request.create_request, leases)


def _put(auth: AuthStore, identity: Identity, request: PutRequest, leases: LeaseKeys) -> None:
    _need_put(_access(auth, identity), request, leases)


def _delete_range(
    auth: AuthStore, identity: Identity, request: DeleteRangeRequest, _: LeaseKeys
) -> None:
    _need_delete(_access(auth, identity), request)


def _txn(auth: AuthStore, identity: Identity, request: TxnRequest, leases: LeaseKeys) -> None:
    """Both branches, nested ones too: which one runs shows what the compares saw.

    No recursion: at apply nobody has looked how deep it goes.
    """
    access = _access(auth, identity)
    if access is None:
        return
    waiting = [request]
    while waiting:
        current = waiting.pop()
        for compare in current.compare:
            _read(access, compare.key, compare.range_end)
        for branch in (current.success, current.failure):
            for operation in branch:
                if operation.request_range is not None:
                    wanted = operation.request_range
                    _read(access, wanted.key, wanted.range_end)
                if operation.request_put is not None:
                    _need_put(access, operation.request_put, leases)
                if operation.request_delete_range is not None:
                    _need_delete(access, operation.request_delete_range)
                if operation.request_txn is not None:
                    waiting.append(operation.request_txn)


def _read(access: Access | None, key: bytes, range_end: bytes) -> None:
    if access is not None:
        _need(access.read.covers(key, range_end))


def _write(access: Access | None, key: bytes, range_end: bytes = b"") -> None:
    if access is not None:
        _need(access.write.covers(key, range_end))


def _need_put(access: Access | None, request: PutRequest, leases: LeaseKeys) -> None:
    if access is None:
        return
    _need(access.write.covers(request.key))
    if request.lease:
        # Whoever could not revoke the lease must not tie a key to it.
        _need(access.write.covers_all(leases.attached(LeaseId(request.lease))))
    if request.prev_kv:
        _need(access.read.covers(request.key))


def _need_delete(access: Access | None, request: DeleteRangeRequest) -> None:
    _write(access, request.key, request.range_end)
    if request.prev_kv:
        _read(access, request.key, request.range_end)


# --- leases
# ----------------------------------------------------------------------------------------


def _lease_keys(
    auth: AuthStore, identity: Identity, lease_id: int, leases: LeaseKeys
) -> tuple[Sequence[bytes], Access | None]:
    """The keys that a call to a lease concerns, and what may be done with keys.

    As in etcd the revision counts only where there is a key, and never for root.
    """
    _user(auth, identity)
    keys = leases.attached(LeaseId(lease_id))
    if not keys or auth.is_root(identity.user):
        return keys, None
    return keys, _access(auth, identity)


def _end_or_keep_lease(
    auth: AuthStore,
    identity: Identity,
    request: LeaseRevokeRequest | LeaseKeepAliveRequest,
    leases: LeaseKeys,
) -> None:
    keys, access = _lease_keys(auth, identity, request.ID, leases)
    _need(access is None or access.write.covers_all(keys))


def _lease_time_to_live(
    auth: AuthStore, identity: Identity, request: LeaseTimeToLiveRequest, leases: LeaseKeys
) -> None:
    _user(auth, identity)
    if request.keys:
        keys, access = _lease_keys(auth, identity, request.ID, leases)
        _need(access is None or access.read.covers_all(keys))


def _lease_list(
    auth: AuthStore, identity: Identity, _: LeaseLeasesRequest, leases: LeaseKeys
) -> None:
    budget = CountedBudget(1)
    finish(authorise_lease_list(auth, identity, leases, budget), budget)


# --- locks and elections
# ---------------------------------------------------------------------------
# They are made of puts, deletes and ranges, which are checked by themselves; what can be told
# beforehand is told here.


def _candidate(
    auth: AuthStore, identity: Identity, request: LockRequest | CampaignRequest, leases: LeaseKeys
) -> None:
    access = _access(auth, identity)
    _read(access, request.name + b"/", request.name + b"0")
    # Without a lease the key is known only once one has been granted.
    if access is not None and request.lease:
        key = request.name + b"/%x" % request.lease
        _need_put(access, PutRequest(key, lease=request.lease), leases)


def _unlock(auth: AuthStore, identity: Identity, request: UnlockRequest, _: LeaseKeys) -> None:
    _write(_access(auth, identity), request.key)


def _leader(auth: AuthStore, identity: Identity, request: LeaderRequest, _: LeaseKeys) -> None:
    _read(_access(auth, identity), request.name + b"/", request.name + b"0")


def _as_leader(
    auth: AuthStore, identity: Identity, request: ProclaimRequest | ResignRequest, _: LeaseKeys
) -> None:
    access = _access(auth, identity)
    leader: LeaderKey | None = request.leader
    if leader is not None:
        _read(access, leader.key, b"")
        _write(access, leader.key)


# --- the cluster, users and roles
# ------------------------------------------------------------------


def _open(_: AuthStore, __: Identity, ___: Record, ____: LeaseKeys) -> None:
    """Anybody: it is how one becomes somebody."""


def _any_user(auth: AuthStore, identity: Identity, _: Record, __: LeaseKeys) -> None:
    _user(auth, identity)


def _only_root(auth: AuthStore, identity: Identity, _: Record, __: LeaseKeys) -> None:
    _root(auth, identity)


def _alarm(auth: AuthStore, identity: Identity, request: AlarmRequest, _: LeaseKeys) -> None:
    if request.action == AlarmAction.GET:
        _user(auth, identity)
    else:
        _root(auth, identity)


def _user_get(
    auth: AuthStore, identity: Identity, request: AuthUserGetRequest, _: LeaseKeys
) -> None:
    if not identity.user or request.name != identity.user:
        _root(auth, identity)


def _role_get(
    auth: AuthStore, identity: Identity, request: AuthRoleGetRequest, _: LeaseKeys
) -> None:
    if not auth.has_role(identity.user, request.role):
        _root(auth, identity)


_Rule: TypeAlias = Callable[[AuthStore, Identity, Any, LeaseKeys], None]

_RULES: Final[dict[type[Record], _Rule]] = {
    RangeRequest: _range,
    PutRequest: _put,
    DeleteRangeRequest: _delete_range,
    TxnRequest: _txn,
    CompactionRequest: _only_root,
    WatchRequest: _watch_stream,
    WatchCreateRequest: _watch,
    LeaseGrantRequest: _any_user,
    LeaseRevokeRequest: _end_or_keep_lease,
    LeaseKeepAliveRequest: _end_or_keep_lease,
    LeaseTimeToLiveRequest: _lease_time_to_live,
    LeaseLeasesRequest: _lease_list,
    LockRequest: _candidate,
    UnlockRequest: _unlock,
    CampaignRequest: _candidate,
    ProclaimRequest: _as_leader,
    LeaderRequest: _leader,
    ResignRequest: _as_leader,
    MemberListRequest: _any_user,
    MemberAddRequest: _only_root,
    MemberRemoveRequest: _only_root,
    MemberUpdateRequest: _only_root,
    MemberPromoteRequest: _only_root,
    MembershipChange: _only_root,
    StatusRequest: _any_user,
    AlarmRequest: _alarm,
    DefragmentRequest: _only_root,
    HashRequest: _only_root,
    HashKVRequest: _only_root,
    SnapshotRequest: _only_root,
    MoveLeaderRequest: _only_root,
    DowngradeRequest: _only_root,
    Downgrade: _only_root,
    AuthenticateRequest: _open,
    AuthToken: _open,
    AuthStatusRequest: _open,
    AuthEnableRequest: _only_root,
    AuthDisableRequest: _only_root,
    AuthUserAddRequest: _only_root,
    AuthUserGetRequest: _user_get,
    AuthUserListRequest: _only_root,
    AuthUserDeleteRequest: _only_root,
    AuthUserChangePasswordRequest: _only_root,
    AuthUserGrantRoleRequest: _only_root,
    AuthUserRevokeRoleRequest: _only_root,
    AuthRoleAddRequest: _only_root,
    AuthRoleGetRequest: _role_get,
    AuthRoleListRequest: _only_root,
    AuthRoleDeleteRequest: _only_root,
    AuthRoleGrantPermissionRequest: _only_root,
    AuthRoleRevokePermissionRequest: _only_root,
}

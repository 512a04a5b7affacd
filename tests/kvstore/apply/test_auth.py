"""Commands are asked for permission again when they are applied, and change who has it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.auth.identity import NOBODY, SYSTEM, Identity
from kvstore.commands import (
    AuthToken,
    LeaseExpire,
    MembershipAction,
    MembershipChange,
    PublishMember,
)
from kvstore.errors import ErrorKind
from kvstore.types import (
    AlarmAction,
    AlarmRequest,
    AlarmType,
    AuthDisableRequest,
    AuthDisableResponse,
    AuthenticateResponse,
    AuthRoleAddRequest,
    AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserDeleteRequest,
    AuthUserGrantRoleRequest,
    CompactionRequest,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    Permission,
    PutRequest,
    PutResponse,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from tests.kvstore.apply.strategies import bodies
from tests.kvstore.apply.support import Rig, captured
from tests.kvstore.auth.support import BOTH, ENABLE, READ, user

DENIED = ErrorKind.PERMISSION_DENIED.error()
OLD = ErrorKind.AUTH_OLD_REVISION.error()
ALICE = user("alice", (BOTH, b"a", b"c"))


def guarded(**options) -> Rig:
    """Authentication is on; alice may read and write from a to c."""
    rig = Rig(**options)
    for body in [*ALICE, *ENABLE]:
        rig.run(body)
    assert rig.machine.auth.enabled
    return rig


def as_of_now(rig: Rig, name: str) -> Identity:
    return Identity(name, rig.machine.auth.revision)


def test_each_command_is_asked_for_permission():
    rig = guarded()
    alice = as_of_now(rig, "alice")
    assert rig.ask(PutRequest(b"a", b"1"), identity=alice) == PutResponse()
    before = rig.machine.store.revision
    nested = TxnRequest([], [], [RequestOp(request_txn=TxnRequest([], [], []))])
    nested.failure[0].request_txn = TxnRequest([], [RequestOp(request_range=RangeRequest(b"c"))])
    for body in (
        PutRequest(b"c"),
        DeleteRangeRequest(b"a", b"\0"),
        TxnRequest([], [RequestOp(request_put=PutRequest(b"c"))]),
        nested,
        CompactionRequest(2),
        AlarmRequest(AlarmAction.ACTIVATE, 7, AlarmType.CORRUPT),
        AuthUserAddRequest("mallory"),
        AuthUserGrantRoleRequest("alice", "root"),
        AuthDisableRequest(),
        MembershipChange(0, MembershipAction.REMOVE, 9, []),
        LeaseExpire(1, [1]),
        PublishMember(7, "mine", []),
    ):
        assert rig.ask(body, identity=alice) == DENIED
        assert rig.ask(body, identity=NOBODY) in (DENIED, ErrorKind.USER_EMPTY.error())
    assert rig.machine.store.revision == before
    assert rig.machine.alarms == ()
    assert sorted(rig.machine.members) == [7, 9]
    assert rig.machine.auth.user_names() == ["alice", "root"]


def test_the_members_own_commands_need_no_permission():
    rig = guarded()
    assert rig.ask(LeaseGrantRequest(60, 1), identity=SYSTEM)
    assert rig.ask(PutRequest(b"z", lease=1), identity=SYSTEM) == PutResponse()
    rig.run(LeaseExpire(1, [1]), identity=SYSTEM)
    assert len(rig.machine.lessor) == 0
    rig.run(PublishMember(7, "n", []), identity=SYSTEM)
    assert rig.machine.members[7].name == "n"  # type: ignore[index]  # a plain number will do


def test_a_right_that_was_taken_away_on_the_way_counts_no_more():
    rig = guarded()
    alice = as_of_now(rig, "alice")
    root = as_of_now(rig, "root")
    rig.run(AuthRoleRevokePermissionRequest("alice", b"a", b"c"), identity=root)
    assert rig.ask(PutRequest(b"a"), identity=alice) == OLD
    assert rig.ask(PutRequest(b"a"), identity=as_of_now(rig, "alice")) == DENIED
    # Whoever administers need not be asked again for each change of their own.
    grant = AuthRoleGrantPermissionRequest("alice", Permission(BOTH, b"a"))
    assert rig.ask(grant, identity=root) not in (OLD, DENIED)
    assert rig.ask(PutRequest(b"a"), identity=as_of_now(rig, "alice")) == PutResponse()


def test_what_was_proposed_before_authentication_came_on_is_nobodys():
    rig = guarded()
    assert rig.ask(PutRequest(b"a"), identity=NOBODY) == ErrorKind.USER_EMPTY.error()
    rig.run(AuthDisableRequest(), identity=as_of_now(rig, "root"))
    assert rig.ask(PutRequest(b"a"), identity=NOBODY) == PutResponse()
    old = Identity("alice", 1)
    assert rig.ask(DeleteRangeRequest(b"a"), identity=old) == DeleteRangeResponse(None, 1)


def test_a_key_and_a_lease_that_others_hold_on_to():
    rig = guarded()
    alice = as_of_now(rig, "alice")
    root = as_of_now(rig, "root")
    rig.run(LeaseGrantRequest(60, 1), identity=root)
    assert rig.ask(PutRequest(b"a", lease=1), identity=alice) == PutResponse()
    rig.run(PutRequest(b"z", lease=1), identity=root)
    assert rig.ask(PutRequest(b"b", lease=1), identity=alice) == DENIED
    assert rig.ask(LeaseRevokeRequest(1), identity=alice) == DENIED
    rig.run(PutRequest(b"z"), identity=root)
    assert rig.ask(PutRequest(b"b", lease=1), identity=alice) == PutResponse()


def test_a_refusal_is_an_effect_that_counts_once():
    rig = guarded()
    before = rig.machine.effects_hash
    assert rig.ask(PutRequest(b"z"), sequence=900, identity=NOBODY) is not None
    refused = rig.machine.effects_hash
    assert refused != before
    again = rig.run(PutRequest(b"z"), sequence=900, identity=SYSTEM)
    assert again.duplicate
    assert rig.machine.effects_hash == refused


@pytest.mark.parametrize(
    "body",
    [
        AuthUserAddRequest("bob"),
        AuthUserChangePasswordRequest("alice", hashedPassword="$2b$"),
        AuthRoleAddRequest("r"),
        AuthRoleGrantPermissionRequest("alice", Permission(READ, b"x")),
        AuthUserDeleteRequest("alice"),
        AuthDisableRequest(),
    ],
    ids=lambda body: type(body).__name__,
)
def test_the_hash_covers_every_change_of_users(body):
    changed, other = guarded(), guarded()
    assert changed.machine.effects_hash == other.machine.effects_hash
    changed.run(body, identity=SYSTEM)
    assert changed.machine.effects_hash != other.machine.effects_hash


# --- tokens ---------------------------------------------------------------------------------------


def test_a_token_is_given_out_with_the_index_of_its_entry():
    rig = guarded()
    index = rig.next_index
    body = AuthToken("alice", "abcd", rig.machine.auth.revision)
    assert rig.ask(body) == AuthenticateResponse(None, f"abcd.{index}")
    assert rig.tokens.heard == [("assign", "alice", f"abcd.{index}")]


def test_a_token_is_refused_if_users_changed_since_the_password_was_checked():
    rig = guarded()
    revision = rig.machine.auth.revision
    rig.run(AuthUserDeleteRequest("alice"), identity=SYSTEM)
    assert rig.ask(AuthToken("alice", "abcd", revision)) == OLD
    gone = AuthToken("alice", "abcd", revision + 1)
    assert rig.ask(gone) == ErrorKind.AUTH_FAILED.error()
    rig.run(AuthDisableRequest(), identity=SYSTEM)
    off = AuthToken("root", "abcd", revision + 2)
    assert rig.ask(off) == ErrorKind.AUTH_NOT_ENABLED.error()
    assert ("assign", "alice", "abcd") not in rig.tokens.heard
    assert rig.tokens.heard == [("forget", "alice"), ("clear",)]


def test_what_voids_tokens_is_told_only_if_it_happened():
    rig = guarded()
    change = AuthUserChangePasswordRequest("alice", hashedPassword="$2b$")
    rig.run(change, identity=as_of_now(rig, "alice"))
    rig.run(AuthUserDeleteRequest("root"), identity=as_of_now(rig, "root"))
    rig.run(AuthDisableRequest(), identity=NOBODY)
    assert rig.tokens.heard == []
    rig.run(change, identity=as_of_now(rig, "root"))
    assert rig.tokens.heard == [("forget", "alice")]
    assert rig.ask(AuthDisableRequest(), identity=as_of_now(rig, "root")) == AuthDisableResponse()
    assert rig.tokens.heard[1:] == [("clear",)]


def test_loading_a_snapshot_hands_out_nothing():
    rig = guarded()
    rig.run(AuthToken("alice", "abcd", rig.machine.auth.revision))
    heard = list(rig.tokens.heard)
    rig.reload(captured(rig.machine))
    assert rig.tokens.heard == heard


# --- equal entries, equal members -----------------------------------------------------------------

identities = st.builds(Identity, st.sampled_from(["", "alice", "root"]), st.integers(5, 9))
changes = st.sampled_from(
    [
        AuthUserAddRequest("bob"),
        AuthUserDeleteRequest("bob"),
        AuthDisableRequest(),
        ENABLE[-1],
        AuthRoleRevokePermissionRequest("alice", b"a", b"c"),
        AuthRoleGrantPermissionRequest("alice", Permission(BOTH, b"a", b"c")),
    ]
)


@given(
    st.lists(st.tuples(bodies | changes, identities | st.just(SYSTEM)), max_size=20),
    st.integers(0, 20),
)
def test_members_judge_alike_also_after_a_snapshot_between(sequence, reloaded_at):
    plain, sliced = guarded(), guarded(steps=1)
    for place, (body, identity) in enumerate(sequence):
        if place == reloaded_at:
            sliced = sliced.reload(captured(sliced.machine))
        outcome = plain.run(body, identity=identity)
        assert sliced.run(body, identity=identity) == outcome
    assert captured(sliced.machine) == captured(plain.machine)

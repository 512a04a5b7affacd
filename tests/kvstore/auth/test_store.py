"""Users, roles and permissions against their plain meaning, and rule by rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.auth.store import AuthStore, token_refusal
from kvstore.commands import AuthToken
from kvstore.errors import ErrorKind, KvError
from kvstore.service.caller import Caller
from kvstore.types import (
    AuthDisableRequest,
    AuthEnableRequest,
    AuthenticateRequest,
    AuthenticateResponse,
    AuthRoleAddRequest,
    AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserDeleteRequest,
    AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest,
    Permission,
    UserAddOptions,
)
from tests.kvstore.auth.support import BOTH, ENABLE, READ, WRITE, store, user

K = ErrorKind


class NaiveAuth:
    """What the rules say, in sets."""

    def __init__(self):
        self.enabled = False
        self.revision = 1
        self.users = {}
        self.roles = {}

    def apply(self, body):
        """None, or the error that is due; changes nothing then."""
        changed = getattr(self, type(body).__name__)(body)
        if isinstance(changed, ErrorKind):
            return changed
        self.revision += changed
        return None

    def AuthEnableRequest(self, _):  # noqa: N802 - found by the name of the command
        if not self.enabled:
            if "root" not in self.users:
                return K.ROOT_USER_NOT_EXIST
            if "root" not in self.users["root"][1]:
                return K.ROOT_ROLE_NOT_EXIST
        self.enabled = True
        return 0

    def AuthDisableRequest(self, _):  # noqa: N802
        was, self.enabled = self.enabled, False
        return int(was)

    def AuthUserAddRequest(self, body):  # noqa: N802
        if not body.name or body.name in self.users:
            return K.USER_ALREADY_EXIST if body.name else K.USER_EMPTY
        without = body.options is not None and body.options.no_password
        self.users[body.name] = [None if without else body.hashedPassword, set()]
        return 1

    def AuthUserDeleteRequest(self, body):  # noqa: N802
        if self.enabled and body.name == "root":
            return K.INVALID_AUTH_MANAGEMENT
        return 1 if self.users.pop(body.name, None) else K.USER_NOT_FOUND

    def AuthUserChangePasswordRequest(self, body):  # noqa: N802
        if body.name not in self.users:
            return K.USER_NOT_FOUND
        if self.users[body.name][0] is not None:
            self.users[body.name][0] = body.hashedPassword
        return 1

    def AuthUserGrantRoleRequest(self, body):  # noqa: N802
        if body.user not in self.users:
            return K.USER_NOT_FOUND
        if body.role not in self.roles and body.role != "root":
            return K.ROLE_NOT_FOUND
        held = self.users[body.user][1]
        before = len(held)
        held.add(body.role)
        return len(held) - before

    def AuthUserRevokeRoleRequest(self, body):  # noqa: N802
        if self.enabled and body.name == body.role == "root":
            return K.INVALID_AUTH_MANAGEMENT
        if body.name not in self.users:
            return K.USER_NOT_FOUND
        if body.role not in self.users[body.name][1]:
            return K.ROLE_NOT_GRANTED
        self.users[body.name][1].remove(body.role)
        return 1

    def AuthRoleAddRequest(self, body):  # noqa: N802
        if not body.name or body.name in self.roles:
            return K.ROLE_ALREADY_EXIST if body.name else K.ROLE_EMPTY
        self.roles[body.name] = {}
        return 1

    def AuthRoleDeleteRequest(self, body):  # noqa: N802
        if self.enabled and body.role == "root":
            return K.INVALID_AUTH_MANAGEMENT
        if self.roles.pop(body.role, None) is None:
            return K.ROLE_NOT_FOUND
        for _, held in self.users.values():
            held.discard(body.role)
        return 1

    def AuthRoleGrantPermissionRequest(self, body):  # noqa: N802
        if body.perm is None:
            return K.PERMISSION_NOT_GIVEN
        key, end = body.perm.key, body.perm.range_end
        if not key or (end not in (b"", b"\0") and end <= key):
            return K.INVALID_AUTH_MANAGEMENT
        if body.name not in self.roles:
            return K.ROLE_NOT_FOUND
        self.roles[body.name][key, end] = body.perm
        return 1

    def AuthRoleRevokePermissionRequest(self, body):  # noqa: N802
        if body.role not in self.roles:
            return K.ROLE_NOT_FOUND
        gone = self.roles[body.role].pop((body.key, body.range_end), None)
        return K.PERMISSION_NOT_GRANTED if gone is None else 1

    def may(self, name, types, key):
        """Whether one of the user's permissions of these types holds the key."""
        return any(
            perm.permType in types
            and perm.key <= key
            and (key == perm.key if not end else end == b"\0" or key < end)
            for role in self.users[name][1]
            for (_, end), perm in self.roles.get(role, {}).items()
        )


names = st.sampled_from(["root", "u", "v", ""])
roles = st.sampled_from(["root", "r", "s", ""])
keys = st.sampled_from([b"", b"a", b"b", b"c"])
ends = st.sampled_from([b"", b"\0", b"b", b"c", b"d"])
hashes = st.sampled_from(["", "$1", "$2"])
permissions = st.builds(Permission, st.integers(0, 3), keys, ends)
options = st.sampled_from([None, UserAddOptions(), UserAddOptions(no_password=True)])
bodies = st.one_of(
    st.builds(AuthEnableRequest),
    st.builds(AuthDisableRequest),
    st.builds(AuthUserAddRequest, name=names, options=options, hashedPassword=hashes),
    st.builds(AuthUserDeleteRequest, names),
    st.builds(AuthUserChangePasswordRequest, name=names, hashedPassword=hashes),
    st.builds(AuthUserGrantRoleRequest, names, roles),
    st.builds(AuthUserRevokeRoleRequest, names, roles),
    st.builds(AuthRoleAddRequest, roles),
    st.builds(AuthRoleDeleteRequest, roles),
    st.builds(AuthRoleGrantPermissionRequest, roles, st.none() | permissions),
    st.builds(AuthRoleRevokePermissionRequest, roles, keys, ends),
)
START = [*ENABLE[:2], AuthRoleAddRequest("r"), *user("u", (BOTH, b"a", b"b"))]


def reloaded(auth):
    """Another store, from what this one writes into a snapshot."""
    other = AuthStore()
    for row in auth.export_users():
        other.restore_user(row)
    for role_row in auth.export_roles():
        other.restore_role(role_row)
    other.restored(auth.revision, enabled=auth.enabled)
    return other


def assert_equal(auth, naive):
    assert (auth.enabled, auth.revision) == (naive.enabled, naive.revision)
    assert auth.user_names() == sorted(naive.users)
    assert auth.role_names() == sorted(naive.roles)
    for name, (hashed, held) in naive.users.items():
        found = auth.user(name)
        assert found.roles == tuple(sorted(held))
        assert (found.hashed_password, found.no_password) == (hashed or "", hashed is None)
        assert auth.is_root(name) == ("root" in held)
        for key in (b"a", b"b", b"c", b"zz"):
            assert auth.access(name).read.covers(key) == naive.may(name, (READ, BOTH), key)
            assert auth.access(name).write.covers(key) == naive.may(name, (WRITE, BOTH), key)
    for role, held in naive.roles.items():
        listed = auth.permissions(role)
        if role == "root":
            assert listed == [Permission(BOTH, b"", b"\0")]
        else:
            assert [perm.key for perm in listed] == sorted(key for key, _ in held)
            assert set(listed) == set(held.values())


@given(st.booleans(), st.lists(bodies, max_size=25))
def test_the_store_does_what_the_rules_say(begun, sequence):
    auth, naive = AuthStore(), NaiveAuth()
    for body in [*(START if begun else []), *sequence]:
        due = naive.apply(body)
        if due is None:
            auth.apply(body)
        else:
            with pytest.raises(KvError) as raised:
                auth.apply(body)
            assert raised.value == due.error()
        assert_equal(auth, naive)
    assert_equal(reloaded(auth), naive)


def test_the_revision_begins_at_one_and_only_changes_raise_it():
    auth = store()
    assert auth.revision == 1
    for body in ENABLE[:2]:
        auth.apply(body)
    assert auth.revision == 3
    for unchanged in (ENABLE[1], AuthEnableRequest(), AuthEnableRequest()):
        auth.apply(unchanged)
        assert auth.revision == 3
    auth.apply(AuthDisableRequest())
    assert auth.revision == 4
    auth.apply(AuthDisableRequest())
    assert auth.revision == 4


@pytest.mark.parametrize(
    "body",
    [
        AuthUserDeleteRequest("root"),
        AuthRoleDeleteRequest("root"),
        AuthUserRevokeRoleRequest("root", "root"),
    ],
)
def test_while_authentication_is_on_root_stays_root(body):
    auth = store(AuthRoleAddRequest("root"), *ENABLE)
    with pytest.raises(KvError) as raised:
        auth.apply(body)
    assert raised.value == K.INVALID_AUTH_MANAGEMENT.error()
    auth.apply(AuthDisableRequest())
    auth.apply(body)


def test_the_same_range_replaces_and_equal_keys_stay_in_the_order_of_their_grants():
    rows = [(READ, b"k", b"z"), (WRITE, b"k", b""), (READ, b"a", b""), (BOTH, b"k", b"z")]
    auth = store(*user("u", *rows))
    assert auth.permissions("u") == [
        Permission(READ, b"a"),
        Permission(BOTH, b"k", b"z"),
        Permission(WRITE, b"k"),
    ]


@pytest.mark.parametrize(
    ("key", "range_end"), [(b"", b""), (b"", b"\0"), (b"b", b"b"), (b"b", b"a")]
)
def test_a_range_that_means_nothing_is_refused_even_for_a_role_that_is_not_there(key, range_end):
    with pytest.raises(KvError) as raised:
        store(AuthRoleGrantPermissionRequest("nobody", Permission(READ, key, range_end)))
    assert raised.value == K.INVALID_AUTH_MANAGEMENT.error()


def test_a_change_shows_at_once_in_what_users_may_do():
    auth = store(*user("u", (READ, b"a", b"c")))
    assert auth.access("u").read.covers(b"b")
    auth.apply(AuthRoleRevokePermissionRequest("u", b"a", b"c"))
    assert not auth.access("u").read.covers(b"b")
    auth.apply(AuthRoleGrantPermissionRequest("u", Permission(READ, b"b")))
    assert auth.access("u").read.covers(b"b")
    auth.apply(AuthRoleDeleteRequest("u"))
    assert not auth.access("u").read.covers(b"b")
    assert not auth.access("nobody").read.covers(b"b")


def test_a_token_is_refused_where_what_the_password_proved_may_hold_no_more():
    without = AuthUserAddRequest("n", options=UserAddOptions(no_password=True))
    auth = store(*user("u"), without, *ENABLE[:2])
    assert token_refusal(auth, "u", auth.revision) == K.AUTH_NOT_ENABLED.error()
    auth.apply(AuthEnableRequest())
    assert token_refusal(auth, "u", auth.revision) is None
    assert token_refusal(auth, "u", auth.revision - 1) == K.AUTH_OLD_REVISION.error()
    assert token_refusal(auth, "x", auth.revision) == K.AUTH_FAILED.error()
    assert token_refusal(auth, "n", auth.revision) == K.AUTH_FAILED.error()


def test_what_a_user_looks_like_shows_no_hash():
    auth = store(AuthUserAddRequest("u", hashedPassword="$2b$secret"))
    assert "secret" not in repr(auth.user("u"))


@pytest.mark.parametrize(
    "record",
    [
        AuthenticateRequest("alice", "sesame"),
        AuthenticateResponse(None, "sesame"),
        AuthUserAddRequest("alice", "sesame", None, "sesame"),
        AuthUserChangePasswordRequest("alice", "sesame", "sesame"),
        AuthToken("alice", "sesame", 1),
        Caller("sesame", 1.0),
    ],
)
def test_what_a_record_looks_like_shows_nothing_secret(record):
    assert "sesame" not in repr(record)
    assert "***" in repr(record)

"""Users, roles and passwords at the command line."""

from __future__ import annotations

import getpass
import io
import json
import sys

import pytest

from kvstore.types import (
    AuthDisableResponse,
    AuthEnableResponse,
    AuthRoleAddResponse,
    AuthRoleDeleteResponse,
    AuthRoleGetResponse,
    AuthRoleGrantPermissionResponse,
    AuthRoleListResponse,
    AuthRoleRevokePermissionResponse,
    AuthStatusResponse,
    AuthUserAddResponse,
    AuthUserChangePasswordResponse,
    AuthUserDeleteResponse,
    AuthUserGetResponse,
    AuthUserGrantRoleResponse,
    AuthUserListResponse,
    AuthUserRevokeRoleResponse,
    Permission,
    PermissionType,
    RangeResponse,
    ResponseHeader,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def type_in(monkeypatch):
    """Somebody at a terminal, who types these passwords when asked."""

    def type_in(*passwords):
        left = list(passwords)
        asked = []

        def ask(prompt, stream=None):
            asked.append(prompt)
            return left.pop(0)

        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr(getpass, "getpass", ask)
        # click keeps the one that it found when it was imported.
        monkeypatch.setattr("click.termui.hidden_prompt_func", lambda prompt: ask(prompt))
        return asked

    return type_in


@pytest.fixture
def pipe_in(monkeypatch):
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_auth(fake, run):
    fake.answers.update(
        auth_enable=AuthEnableResponse(),
        auth_disable=AuthDisableResponse(),
        auth_status=AuthStatusResponse(ResponseHeader(revision=2), True, 5),
    )
    assert run("auth", "enable") == (0, b"Authentication Enabled\n", "")
    assert run("auth", "disable") == (0, b"Authentication Disabled\n", "")
    assert run("auth", "status")[1] == b"Authentication Status: true\nAuthRevision: 5\n"
    assert json.loads(run("auth", "status", "-w", "json")[1]) == {
        "header": {"revision": 2}, "enabled": True, "authRevision": 5,
    }  # fmt: skip


def test_users(fake, run):
    fake.answers.update(
        user_delete=AuthUserDeleteResponse(),
        user_get=AuthUserGetResponse(roles=["r1", "r2"]),
        user_list=AuthUserListResponse(users=["ann", "root"]),
        user_grant_role=AuthUserGrantRoleResponse(),
        user_revoke_role=AuthUserRevokeRoleResponse(),
    )
    assert run("user", "delete", "ann")[1] == b"User ann deleted\n"
    assert run("user", "get", "ann")[1] == b"User: ann\nRoles: r1 r2\n"
    assert run("user", "list")[1] == b"ann\nroot\n"
    assert run("user", "grant-role", "ann", "r1")[1] == b"Role r1 is granted to user ann\n"
    assert run("user", "revoke-role", "ann", "r1")[1] == b"Role r1 is revoked from user ann\n"
    assert fake.calls[-1] == ("user_revoke_role", ("ann", "r1"), {})


def test_a_users_details_are_its_roles_permissions(fake, run):
    fake.answers.update(
        user_get=AuthUserGetResponse(roles=["r"]),
        role_get=AuthRoleGetResponse(perm=[Permission(PermissionType.WRITE, b"k")]),
    )
    out = run("user", "get", "ann", "--detail")[1]
    assert out == b"User: ann\n\nRole r\nKV Read:\nKV Write:\n\tk\n"


def test_roles(fake, run):
    fake.answers.update(
        role_add=AuthRoleAddResponse(),
        role_delete=AuthRoleDeleteResponse(),
        role_list=AuthRoleListResponse(roles=["r1", "r2"]),
        role_get=AuthRoleGetResponse(
            perm=[
                Permission(PermissionType.READ, b"a"),
                Permission(PermissionType.READWRITE, b"b", b"c"),
                Permission(PermissionType.WRITE, b"d", b"\0"),
                Permission(PermissionType.READ, b"e", b"g"),
            ]
        ),
    )
    assert run("role", "add", "r1")[1] == b"Role r1 created\n"
    assert run("role", "delete", "r1")[1] == b"Role r1 deleted\n"
    assert run("role", "list")[1] == b"r1\nr2\n"
    assert run("role", "get", "r1")[1] == (
        b"Role r1\n"
        b"KV Read:\n\ta\n\t[b, c) (prefix b)\n\t[e, g)\n"
        b"KV Write:\n\t[b, c) (prefix b)\n\t[d, <open ended>\n"
    )


@pytest.mark.parametrize(
    ("arguments", "key", "end", "shown"),
    [
        (["a"], b"a", b"", b"key a"),
        (["a", "c"], b"a", b"c", b"range [a, c)"),
        (["--prefix", "a"], b"a", b"b", b"range [a, b)"),
        (["--from-key", "a"], b"a", b"\0", b"range [a, <open ended>"),
        (["--prefix", ""], b"\0", b"\0", b"range [\0, <open ended>"),
    ],
)
def test_permissions_are_granted_and_revoked_on_keys_and_ranges(
    fake, run, arguments, key, end, shown
):
    fake.answers.update(
        role_grant_permission=AuthRoleGrantPermissionResponse(),
        role_revoke_permission=AuthRoleRevokePermissionResponse(),
    )
    assert run("role", "grant-permission", "r", "readwrite", *arguments)[1] == b"Role r updated\n"
    assert fake.calls[-1][1] == ("r", PermissionType.READWRITE, key, end)
    out = run("role", "revoke-permission", "r", *arguments)[1]
    assert out == b"Permission of " + shown + b" is revoked from role r\n"
    assert fake.calls[-1][1] == ("r", key, end)


# --- Passwords ------------------------------------------------------------------------------------


def test_a_new_password_is_typed_twice_and_never_shown(fake, run, type_in):
    fake.answers["user_add"] = AuthUserAddResponse()
    asked = type_in("s3cret", "s3cret")
    code, out, err = run("user", "add", "ann")
    assert (code, out) == (0, b"User ann created\n")
    assert fake.calls[-1] == ("user_add", ("ann", "s3cret"), {"no_password": False})
    assert len(asked) == 2
    assert "s3cret" not in err


def test_a_new_password_comes_through_a_pipe(fake, run, pipe_in):
    fake.answers.update(
        user_add=AuthUserAddResponse(), user_change_password=AuthUserChangePasswordResponse()
    )
    for option in ("--password-stdin", "--interactive=false"):
        pipe_in("a b\n")
        assert run("user", "add", "ann", option)[0] == 0
        assert fake.calls[-1][1] == ("ann", "a b")
    pipe_in("other")
    assert run("user", "passwd", "ann", "--password-stdin")[1] == b"Password updated\n"
    assert fake.calls[-1][1] == ("ann", "other")


def test_a_new_password_may_stand_where_etcdctl_takes_it(fake, run):
    fake.answers["user_add"] = AuthUserAddResponse()
    assert run("user", "add", "ann:pw:x")[1] == b"User ann created\n"
    assert fake.calls[-1][1] == ("ann", "pw:x")
    assert run("user", "add", "ann", "--new-user-password=pw")[0] == 0
    assert fake.calls[-1][1] == ("ann", "pw")
    assert run("user", "add", "ann", "--no-password")[0] == 0
    assert fake.calls[-1] == ("user_add", ("ann", ""), {"no_password": True})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["user", "add", "ann"], "--password-stdin"),
        (["user", "add", "ann", "--password-stdin"], "must not be empty"),
        (["user", "add", ":pw"], "name must not be empty"),
        (["user", "passwd", "ann"], "--password-stdin"),
        (["get", "k", "--user=ann"], "KVSTORE_PASSWORD"),
    ],
)
def test_without_a_terminal_the_way_out_is_named(fake, run, pipe_in, arguments, words):
    pipe_in("")
    code, _, err = run(*arguments)
    assert code == 2
    assert words in err
    assert [call for call in fake.calls if call[0] != "connect"] == []


def test_who_asks_comes_from_option_variable_or_terminal(fake, run, monkeypatch, type_in):
    fake.answers["get"] = RangeResponse()

    def login():
        return next(call for call in reversed(fake.calls) if call[0] == "connect")[3:]

    run("get", "k")
    assert login() == ()
    run("get", "k", "--user=ann:pw:x")
    assert login() == ("ann", "pw:x")
    run("get", "k", "--user=ann", "--password=pw")
    assert login() == ("ann", "pw")
    monkeypatch.setenv("KVSTORE_USER", "bob")
    monkeypatch.setenv("KVSTORE_PASSWORD", "p:w")
    run("get", "k")
    assert login() == ("bob", "p:w")
    monkeypatch.delenv("KVSTORE_PASSWORD")
    asked = type_in("typed")
    run("get", "k")
    assert login() == ("bob", "typed")
    assert len(asked) == 1

"""A client with a user: when it asks for a token, when for another, and what it sends."""

from __future__ import annotations

import msgspec
import pytest

from kvstore.client import Client, WatchCanceledError
from kvstore.client.transport import Login
from kvstore.errors import ErrorKind, KvError
from kvstore.types import Permission, PermissionType

A = "http://a:1"
B = "http://b:1"
OK = '{"header":{"revision":"7"}}'
LOGIN = "/v3/auth/authenticate"
PUT = "/v3/kv/put"
CREATED = '{"result":{"header":{"revision":"4"},"created":true}}'


def error_body(kind: ErrorKind) -> str:
    return f'{{"error":"{kind.message}","code":{kind.code},"message":"{kind.message}"}}'


def token(name: str) -> str:
    return f'{{"header":{{}},"token":"{name}"}}'


@pytest.fixture
def client(script):
    with Client([A, B], timeout=5, user="ann", password="pw") as found:
        found.transport._pause = lambda seconds: None
        yield found


def sent(script):
    tokens = [found.get("Authorization") for found in script.headers]
    return [(path, token) for (_, path, _), token in zip(script.requests, tokens, strict=True)]


def test_a_token_is_asked_for_once_and_sent_with_every_call(client, script, http_answer):
    script.on(A, http_answer(token("t1")), http_answer(OK), http_answer(OK))
    client.put(b"k", b"1")
    client.put(b"k", b"2")
    assert sent(script) == [(LOGIN, None), (PUT, "t1"), (PUT, "t1")]
    assert msgspec.json.decode(script.requests[0][2]) == {"name": "ann", "password": "pw"}


def test_without_a_user_nothing_is_asked_for(script, http_answer):
    script.on(A, http_answer(OK))
    with Client([A]) as client:
        client.put(b"k", b"v")
    assert sent(script) == [(PUT, None)]


@pytest.mark.parametrize("kind", [ErrorKind.INVALID_AUTH_TOKEN, ErrorKind.AUTH_OLD_REVISION])
def test_a_token_that_is_stale_is_renewed_once_and_the_write_sent_again(
    client, script, http_answer, kind
):
    script.on(
        A,
        http_answer(token("t1")),
        http_answer(error_body(kind), 401),
        http_answer(token("t2")),
        http_answer(OK),
    )
    client.put(b"k", b"v")
    assert sent(script) == [(LOGIN, None), (PUT, "t1"), (LOGIN, None), (PUT, "t2")]


def test_a_lock_renews_its_token_though_its_errors_have_no_code(client, script, http_answer):
    message = ErrorKind.INVALID_AUTH_TOKEN.message
    script.on(A, http_answer(token("t1")), http_answer(token("t2")))
    script.on(A, http_answer(f'{{"error":"{message}","code":2,"message":"{message}"}}', 500))
    script.on(A, http_answer('{"header":{"revision":"7"},"key":"bC81"}'))
    assert client.lock(b"l", 5).key == b"l/5"
    assert [found for _, found in sent(script)] == [None, "t1", None, "t2"]


def test_a_new_token_that_is_refused_too_is_the_end(client, script, http_answer):
    refused = http_answer(error_body(ErrorKind.INVALID_AUTH_TOKEN), 401)
    script.on(A, http_answer(token("t1")), refused, http_answer(token("t2")), refused)
    with pytest.raises(KvError) as caught:
        client.put(b"k", b"v")
    assert caught.value == ErrorKind.INVALID_AUTH_TOKEN.error()
    assert len(script.requests) == 4


def test_where_authentication_is_off_calls_go_without_a_token_until_it_is_on(
    client, script, http_answer
):
    script.on(
        A,
        http_answer(error_body(ErrorKind.AUTH_NOT_ENABLED), 400),
        http_answer(OK),
        http_answer(error_body(ErrorKind.USER_EMPTY), 400),
        http_answer(token("t1")),
        http_answer(OK),
    )
    client.put(b"k", b"1")
    client.put(b"k", b"2")
    assert sent(script) == [
        (LOGIN, None), (PUT, None), (PUT, None), (LOGIN, None), (PUT, "t1"),
    ]  # fmt: skip


def test_a_wrong_password_is_said_and_asked_again_by_the_next_call(client, script, http_answer):
    refused = http_answer(error_body(ErrorKind.AUTH_FAILED), 400)
    script.on(A, refused, refused)
    for _ in range(2):
        with pytest.raises(KvError) as caught:
            client.put(b"k", b"v")
        assert caught.value == ErrorKind.AUTH_FAILED.error()
    assert [path for path, _ in sent(script)] == [LOGIN, LOGIN]


def test_a_member_asked_alone_is_asked_for_the_token_too(client, script, http_answer):
    """Another member may not have applied the token yet that the first gave out."""
    script.on(A, http_answer(token("t1")), http_answer(OK))
    script.on(
        B,
        http_answer(error_body(ErrorKind.INVALID_AUTH_TOKEN), 401),
        http_answer(token("t2")),
        http_answer(OK),
    )
    one, other = client.transport.endpoints
    client.status(one)
    client.status(other)
    assert [(url, path) for url, path, _ in script.requests] == [
        (A, LOGIN), (A, "/v3/maintenance/status"),
        (B, "/v3/maintenance/status"), (B, LOGIN), (B, "/v3/maintenance/status"),
    ]  # fmt: skip


def test_a_watch_bears_the_token_and_renews_it(client, script, http_answer, stream):
    words = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
    stale = (
        f'{{"result":{{"watch_id":"-1","created":true,"canceled":true,"cancel_reason":"{words}"}}}}'
    )
    script.on(A, http_answer(token("t1")), http_answer(token("t2")))
    script.on(A, stream(stale))
    script.on(B, stream(CREATED), script.silence)
    with client.watch(b"k") as watch:
        assert watch.next_revision == 5
    assert sent(script) == [
        (LOGIN, None), ("/v3/watch", "t1"), (LOGIN, None), ("/v3/watch", "t2"),
    ]  # fmt: skip


def test_a_watch_that_is_not_allowed_says_so_in_the_words_of_a_call(
    client, script, http_answer, stream
):
    words = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    denied = (
        f'{{"result":{{"watch_id":"-1","created":true,"canceled":true,"cancel_reason":"{words}"}}}}'
    )
    script.on(A, http_answer(token("t1")))
    script.on(A, stream(denied))
    with pytest.raises(WatchCanceledError) as caught:
        client.watch(b"k")
    assert caught.value == ErrorKind.PERMISSION_DENIED.error()


def test_a_password_is_shown_by_no_repr():
    with Client([A], user="ann", password="pw-secret") as client:
        for thing in (client, client.transport, client.transport.login, Login("ann", "pw-secret")):
            assert "pw-secret" not in repr(thing)


CALLS = [
    (lambda c: c.auth_enable(), "/v3/auth/enable", {}),
    (lambda c: c.auth_disable(), "/v3/auth/disable", {}),
    (lambda c: c.auth_status(), "/v3/auth/status", {}),
    (lambda c: c.authenticate("u", "p"), LOGIN, {"name": "u", "password": "p"}),
    (lambda c: c.user_add("u", "p"), "/v3/auth/user/add", {"name": "u", "password": "p"}),
    (
        lambda c: c.user_add("u", no_password=True),
        "/v3/auth/user/add",
        {"name": "u", "options": {"no_password": True}},
    ),
    (lambda c: c.user_get("u"), "/v3/auth/user/get", {"name": "u"}),
    (lambda c: c.user_list(), "/v3/auth/user/list", {}),
    (lambda c: c.user_delete("u"), "/v3/auth/user/delete", {"name": "u"}),
    (
        lambda c: c.user_change_password("u", "p"),
        "/v3/auth/user/changepw",
        {"name": "u", "password": "p"},
    ),
    (lambda c: c.user_grant_role("u", "r"), "/v3/auth/user/grant", {"user": "u", "role": "r"}),
    (lambda c: c.user_revoke_role("u", "r"), "/v3/auth/user/revoke", {"name": "u", "role": "r"}),
    (lambda c: c.role_add("r"), "/v3/auth/role/add", {"name": "r"}),
    (lambda c: c.role_get("r"), "/v3/auth/role/get", {"role": "r"}),
    (lambda c: c.role_list(), "/v3/auth/role/list", {}),
    (lambda c: c.role_delete("r"), "/v3/auth/role/delete", {"role": "r"}),
    (
        lambda c: c.role_grant_permission("r", PermissionType.READWRITE, b"a", b"b"),
        "/v3/auth/role/grant",
        {"name": "r", "perm": {"permType": "READWRITE", "key": "YQ==", "range_end": "Yg=="}},
    ),
    (
        lambda c: c.role_revoke_permission("r", b"a", b"b"),
        "/v3/auth/role/revoke",
        {"role": "r", "key": "YQ==", "range_end": "Yg=="},
    ),
]


@pytest.mark.parametrize(("call", "path", "body"), CALLS, ids=[path for _, path, _ in CALLS])
def test_each_call_of_the_service_asks_its_path(script, http_answer, call, path, body):
    script.on(A, http_answer(OK))
    with Client([A]) as client:
        assert call(client).header.revision == 7
    ((_, asked, found),) = script.requests
    assert (asked, msgspec.json.decode(found)) == (path, body)


def test_permissions_are_read_back(script, http_answer):
    script.on(A, http_answer('{"perm":[{"key":"YQ=="},{"permType":"WRITE","key":"Yg=="}]}'))
    with Client([A]) as client:
        assert client.role_get("r").perm == [
            Permission(PermissionType.READ, b"a"),
            Permission(PermissionType.WRITE, b"b"),
        ]

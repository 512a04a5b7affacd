"""Errors about users, roles, tokens and learners; and that no error was left out."""

from __future__ import annotations

import pytest

from tests.kvstore.service import test_error_table
from tests.kvstore.service.desk import Desk, JsonObject, b64
from tests.kvstore.service.error_table import (
    BROUGHT,
    EXCUSED,
    TABLE,
    Way,
    brings,
    check,
    on_cluster,
    take,
)

A = b64(b"a")
ON_A: JsonObject = {"key": A, "value": A}
ANN: JsonObject = {"name": "ann", "password": "secret"}
R: JsonObject = {"name": "r"}
ROOT: JsonObject = {"name": "root", "password": "secret"}

OFF: dict[str, Way] = {
    "USER_EMPTY": [("/auth/user/add", {"password": "secret"})],
    "USER_ALREADY_EXIST": [("/auth/user/add", ANN)] * 2,
    "USER_NOT_FOUND": [("/auth/user/get", {"name": "ann"})],
    "ROLE_EMPTY": [("/auth/role/add", {})],
    "ROLE_ALREADY_EXIST": [("/auth/role/add", R)] * 2,
    "ROLE_NOT_FOUND": [("/auth/role/get", {"role": "r"})],
    "ROLE_NOT_GRANTED": [
        ("/auth/user/add", ANN),
        ("/auth/role/add", R),
        ("/auth/user/revoke", {"name": "ann", "role": "r"}),
    ],
    "PERMISSION_NOT_GIVEN": [("/auth/role/add", R), ("/auth/role/grant", R)],
    "PERMISSION_NOT_GRANTED": [
        ("/auth/role/add", R),
        ("/auth/role/revoke", {"role": "r", "key": A}),
    ],
    "ROOT_USER_NOT_EXIST": [("/auth/enable", {})],
    "ROOT_ROLE_NOT_EXIST": [("/auth/user/add", ROOT), ("/auth/enable", {})],
    "AUTH_NOT_ENABLED": [("/auth/authenticate", ANN)],
    "PASSWORD_TOO_LONG": [("/auth/user/add", {"name": "ann", "password": "p" * 73})],
}
"""While authentication is off."""

ON: dict[str, Way] = {
    "AUTH_FAILED": [("/auth/authenticate", {"name": "root", "password": "wrong"})],
    "INVALID_AUTH_MANAGEMENT": [("/auth/user/delete", {"name": "root"})],
    "NO_PASSWORD_USER": [
        ("/auth/user/add", {"name": "ann", "options": {"no_password": True}}),
        ("/auth/authenticate", ANN),
    ],
}
"""As root, once it is on."""


@brings(*OFF)
@pytest.mark.parametrize("name", OFF)
def test_a_call_is_refused_while_authentication_is_off(name):
    on_cluster(lambda desk: take(OFF[name], name, desk))


@brings(*ON)
@pytest.mark.parametrize("name", ON)
def test_a_call_of_root_is_refused(name):
    async def work(desk: Desk) -> None:
        await desk.switch_auth_on()
        await take(ON[name], name, desk)

    on_cluster(work)


@brings("PERMISSION_DENIED", "INVALID_AUTH_TOKEN")
def test_a_token_is_good_for_what_its_user_may():
    async def work(desk: Desk) -> None:
        await desk.switch_auth_on()
        await desk.do("/auth/user/add", ANN)
        await desk.log_in("ann", "secret")
        check("PERMISSION_DENIED", await desk.ask("/kv/put", ON_A))
        desk.token = "nonsense"
        check("INVALID_AUTH_TOKEN", await desk.ask("/kv/put", ON_A))
        desk.token = None
        check("USER_EMPTY", await desk.ask("/kv/put", ON_A))

    on_cluster(work)


@brings("AUTH_OLD_REVISION")
def test_a_signed_token_is_void_once_users_have_changed():
    async def work(desk: Desk) -> None:
        await desk.switch_auth_on()
        await desk.do("/kv/put", ON_A)
        await desk.do("/auth/role/add", R)
        check("AUTH_OLD_REVISION", await desk.ask("/kv/put", ON_A))
        # Administrators are let through, and so can anybody who logs in anew.
        await desk.do("/auth/role/add", {"name": "r2"})
        await desk.do("/maintenance/hash", {})
        await desk.log_in("root", "secret")
        await desk.do("/kv/put", ON_A)

    on_cluster(work, auth_token="jwt,sign-method=HS256,priv-key=hmac.key")


@brings("NOT_SUPPORTED_FOR_LEARNER")
def test_a_learner_takes_no_writes():
    async def work(desk: Desk) -> None:
        host = desk.cluster.new_host()
        urls = list(host.config.initial_advertise_peer_urls)
        await desk.do("/cluster/member/add", {"peerURLs": urls, "isLearner": True})
        await host.join()
        await desk.cluster.wait(host.node.ready.is_set)
        check("NOT_SUPPORTED_FOR_LEARNER", await desk.at(host).ask("/kv/put", ON_A))

    on_cluster(work, size=3)


def test_every_error_is_brought_about_or_excused_and_not_both():
    assert test_error_table.WAYS
    assert BROUGHT | EXCUSED.keys() == TABLE.keys()
    assert BROUGHT & EXCUSED.keys() == set()

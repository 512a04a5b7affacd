"""A client's certificate stands for a user where --client-cert-auth says so, else for nobody."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore.errors import ErrorKind, KvError
from kvstore.service.caller import ANYBODY, Caller
from kvstore.types import (
    AuthUserAddRequest,
    PutRequest,
    RangeRequest,
    StatusRequest,
    UserAddOptions,
)
from tests.kvstore.service.keyring import READWRITE, add_user, enable, log_in
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import scenario

DEMANDED: dict[str, Any] = {
    "listen_client_urls": ("https://127.0.0.1:2379",),
    "cert_file": "c.pem",
    "key_file": "k.pem",
    "trusted_ca_file": "ca.pem",
}
PUT = PutRequest(b"a", b"1")
ALICE = Caller(common_name="alice")


async def refusal(host: Host, request: Any, caller: Caller) -> KvError:
    with pytest.raises(KvError) as caught:
        await host.call("put", request, caller)
    return caught.value


@scenario(1, client_cert_auth=True, **DEMANDED)
async def test_the_common_name_is_the_user_on_every_member(cluster: Cluster) -> None:
    await add_user(cluster[0], "alice", (READWRITE, b"a", b"b"))
    root = await enable(cluster[0])
    for host in cluster.hosts:
        await host.call("put", PUT, ALICE)
        assert await refusal(host, PutRequest(b"b", b"1"), ALICE) == (
            ErrorKind.PERMISSION_DENIED.error()
        )
    found = await cluster[1].call("range", RangeRequest(b"a"), root)
    assert found.kvs[0].value == b"1"


@scenario(1, client_cert_auth=True, **DEMANDED)
async def test_a_name_that_is_no_user_may_nothing_and_an_empty_one_is_nobody(
    cluster: Cluster,
) -> None:
    await enable(cluster[0])
    denied, empty = ErrorKind.PERMISSION_DENIED.error(), ErrorKind.USER_EMPTY.error()
    assert await refusal(cluster[0], PUT, ALICE) == denied
    assert await refusal(cluster[0], PUT, Caller(common_name="")) == empty
    assert await refusal(cluster[0], PUT, ANYBODY) == empty


@scenario(1, client_cert_auth=True, **DEMANDED)
async def test_a_token_goes_before_the_certificate_and_a_bad_one_is_not_made_good(
    cluster: Cluster,
) -> None:
    await add_user(cluster[0], "alice", (READWRITE, b"a", b"b"))
    await add_user(cluster[0], "bob")
    await enable(cluster[0])
    bob = await log_in(cluster[0], "bob")
    both = Caller(bob.token, common_name="alice")
    assert await refusal(cluster[0], PUT, both) == ErrorKind.PERMISSION_DENIED.error()
    bad = Caller("nonsense", common_name="alice")
    assert await refusal(cluster[0], PUT, bad) == ErrorKind.INVALID_AUTH_TOKEN.error()


@scenario(1, client_cert_auth=True, **DEMANDED)
async def test_a_user_without_a_password_comes_by_certificate(cluster: Cluster) -> None:
    root = await enable(cluster[0])
    request = AuthUserAddRequest("carol", options=UserAddOptions(no_password=True))
    await cluster[0].call("user_add", request, root)
    carol = Caller(common_name="carol")
    assert await refusal(cluster[0], PUT, carol) == ErrorKind.PERMISSION_DENIED.error()
    await cluster[0].call("status", StatusRequest(), carol)


@scenario(1, **DEMANDED)
async def test_without_client_cert_auth_a_certificate_stands_for_nobody(cluster: Cluster) -> None:
    await add_user(cluster[0], "alice", (READWRITE, b"a", b"b"))
    await enable(cluster[0])
    assert await refusal(cluster[0], PUT, ALICE) == ErrorKind.USER_EMPTY.error()

"""Servers for the tests that compare."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.calls import Call
from tests.conformance.servers import Server, new_kvstore


@pytest.fixture(scope="session")
def our_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One node of ours for all rows of the table."""
    with new_kvstore(tmp_path_factory.mktemp("rows")) as server:
        yield server


@pytest.fixture
def ours(our_server: Server) -> Iterator[Server]:
    """The node, its store emptied; what a test made of users is undone after it."""
    everything = {"key": b"\0", "range_end": b"\0"}
    our_server.ask("/v3/kv/deleterange", everything)
    for lease in our_server.ask("/v3/lease/leases").get("leases", []):
        our_server.ask("/v3/lease/revoke", {"ID": lease["ID"]})
    our_server.forget()
    our_server.learn()
    yield our_server
    our_server.hang_up()
    if "root" in our_server.state.tokens:
        our_server.send(Call("/v3/auth/disable", user="root"))
        our_server.receive()
        our_server.forget()
    for user in our_server.ask("/v3/auth/user/list").get("users", []):
        our_server.ask("/v3/auth/user/delete", {"name": user})
    for role in our_server.ask("/v3/auth/role/list").get("roles", []):
        our_server.ask("/v3/auth/role/delete", {"role": role})

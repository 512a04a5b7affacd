"""Users, leases, alarms and members outlive restarts, leaders, and logs that are gone."""

import asyncio
from typing import Any

from kvstore.auth.identity import NOBODY, Identity
from kvstore.auth.simple_tokens import SimpleTokens
from kvstore.commands import BODIES, AuthToken, Body, MembershipAction, MembershipChange
from kvstore.errors import ErrorKind
from kvstore.types import (
    AlarmAction,
    AlarmMember,
    AlarmRequest,
    AlarmType,
    LeaseGrantRequest,
    LeaseId,
    PutRequest,
)
from tests.kvstore.auth.support import BOTH, ENABLE, user
from tests.kvstore.server.test_snapshots import LOG_HELD_SECONDS, SMALL, wait_log_gone
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import scenario

KINDS = {body: kind for kind, body in BODIES.items()}
LEASE = LeaseId(77)
GONE = 4242
"""A member that came and went."""


async def propose(host: Host, body: Body, identity: Identity | None = None) -> Any:
    """Put a command through the log, in a user's name or (None) the member's own."""
    decided: asyncio.Future[Any] = host.cluster.loop.create_future()

    def submit() -> None:
        host.node.proposals.submit(
            KINDS[type(body)],
            body,
            decided.set_result,
            host.cluster.loop.time() + 10.0,
            identity=identity or NOBODY,
            internal=identity is None,
        )

    host.run(submit)
    outcome = await decided
    return getattr(outcome, "response", outcome)


async def furnish(cluster: Cluster) -> None:
    """Something of everything."""
    leader = await cluster.wait_leader()
    for body in [*user("alice", (BOTH, b"a", b"b")), *ENABLE]:
        await propose(leader, body)
    await propose(leader, LeaseGrantRequest(600, LEASE))
    await propose(leader, PutRequest(b"a", b"1", lease=LEASE))
    await propose(leader, AlarmRequest(AlarmAction.ACTIVATE, GONE + 1, AlarmType.NOSPACE))
    for action, urls in (
        (MembershipAction.ADD, ["http://gone:2380"]),
        (MembershipAction.REMOVE, []),
    ):
        version = leader.machine.roster.version
        change = MembershipChange(version, action, GONE, urls, is_learner=True)
        await propose(leader, change)
    await cluster.wait_equal()


def kept(host: Host) -> list[object]:
    machine = host.machine
    roster = machine.roster
    lease = machine.lessor.get(LEASE)
    assert lease is not None
    return [
        machine.auth.enabled,
        machine.auth.revision,
        list(machine.auth.export_users()),
        list(machine.auth.export_roles()),
        (lease.ttl_seconds, machine.lessor.keys(LEASE)),
        machine.alarms,
        roster.version,
        roster.members,
        roster.removed,
        roster.log_ids,
    ]


def tokens_of(host: Host) -> int:
    tokens = host.node.tokens
    assert isinstance(tokens, SimpleTokens)
    return len(tokens)


async def check_rules(host: Host) -> None:
    """The state is not only there, it decides."""
    machine = host.machine
    assert machine.alarms == (AlarmMember(GONE + 1, AlarmType.NOSPACE),)
    assert GONE in machine.roster.removed
    denied = ErrorKind.PERMISSION_DENIED.error()
    alice = Identity("alice", machine.auth.revision)
    assert await propose(host, PutRequest(b"b"), alice) == denied
    assert await propose(host, PutRequest(b"a"), alice) == ErrorKind.NO_SPACE.error()
    assert await propose(host, PutRequest(b"a"), NOBODY) == ErrorKind.USER_EMPTY.error()
    back = MembershipChange(machine.roster.version, MembershipAction.ADD, GONE, ["http://x:1"])
    assert await propose(host, back) == ErrorKind.MEMBER_NOT_FOUND.error()


@scenario(1, 2)
async def test_everything_is_there_after_a_restart_of_all(cluster: Cluster) -> None:
    await furnish(cluster)
    before = kept(cluster[0])
    for host in cluster.hosts:
        host.crash()
    for host in cluster.hosts:
        await host.start()
    leader = await cluster.wait_leader()
    await cluster.wait_equal()
    assert all(kept(host) == before for host in cluster.hosts)
    await check_rules(leader)


@scenario(1, 2)
async def test_everything_is_there_with_the_next_leader(cluster: Cluster) -> None:
    await furnish(cluster)
    old = await cluster.wait_leader()
    before = kept(old)
    old.crash()
    leader = await cluster.wait_leader()
    assert leader is not old
    assert kept(leader) == before
    await check_rules(leader)


@scenario(1, 2, **SMALL)
async def test_everything_comes_with_a_snapshot_and_tokens_do_not(cluster: Cluster) -> None:
    await furnish(cluster)
    leader = await cluster.wait_leader()
    follower = (await cluster.followers())[0]
    revision = leader.machine.auth.revision
    await propose(leader, AuthToken("alice", "abc", revision))
    await cluster.wait_equal()
    assert tokens_of(follower) == 1
    cluster.wire.isolate(follower.member_id)
    await asyncio.sleep(LOG_HELD_SECONDS)
    held = follower.node.driver.raft.last_index
    for body in user("bob", (BOTH, b"c", b"")):
        await propose(leader, body)
    for _ in range(120):
        await propose(leader, AlarmRequest(AlarmAction.GET))
    await wait_log_gone(cluster, held)
    cluster.wire.heal()
    await cluster.wait_equal()
    assert follower.node.snapshots.installed_total == 1
    assert follower.machine.auth.user("bob") is not None
    assert kept(follower) == kept(leader)
    assert tokens_of(follower) == 0
    assert tokens_of(leader) == 1
    await check_rules(follower)

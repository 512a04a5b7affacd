"""Every error of etcd 3.7 that a client can be told: name, gRPC code, HTTP status, words; and how
tests bring it about.

Written down apart from ``kvstore/errors.py``, so that a slip there shows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from tests.kvstore.service.desk import Desk, JsonObject, Seen
from tests.support.cluster import Cluster
from tests.support.scenario import run_scenario


class Row(NamedTuple):
    """One error."""

    name: str
    code: int
    status: int
    message: str


ROWS = [
    Row("EMPTY_KEY", 3, 400, "etcdserver: key is not provided"),
    Row("KEY_NOT_FOUND", 3, 400, "etcdserver: key not found"),
    Row("VALUE_PROVIDED", 3, 400, "etcdserver: value is provided"),
    Row("LEASE_PROVIDED", 3, 400, "etcdserver: lease is provided"),
    Row("TOO_MANY_OPS", 3, 400, "etcdserver: too many operations in txn request"),
    Row("DUPLICATE_KEY", 3, 400, "etcdserver: duplicate key given in txn request"),
    Row("INVALID_SORT_OPTION", 3, 400, "etcdserver: invalid sort option"),
    Row("INVALID_CLIENT_API_VERSION", 3, 400, "etcdserver: invalid client api version"),
    Row("REQUEST_TOO_LARGE", 3, 400, "etcdserver: request is too large"),
    Row("MEMBER_BAD_URLS", 3, 400, "etcdserver: given member URLs are invalid"),
    Row("USER_EMPTY", 3, 400, "etcdserver: user name is empty"),
    Row("ROLE_EMPTY", 3, 400, "etcdserver: role name is empty"),
    Row("AUTH_FAILED", 3, 400, "etcdserver: authentication failed, invalid user ID or password"),
    Row("PERMISSION_NOT_GIVEN", 3, 400, "etcdserver: permission not given"),
    Row("INVALID_AUTH_MANAGEMENT", 3, 400, "etcdserver: invalid auth management"),
    Row("AUTH_OLD_REVISION", 3, 400, "etcdserver: revision of auth store is old"),
    Row(
        "WRONG_DOWNGRADE_VERSION_FORMAT",
        3,
        400,
        "etcdserver: wrong downgrade target version format",
    ),
    Row("INVALID_DOWNGRADE_TARGET_VERSION", 3, 400, "etcdserver: invalid downgrade target version"),
    Row("LEASE_NOT_FOUND", 5, 404, "etcdserver: requested lease not found"),
    Row("MEMBER_NOT_FOUND", 5, 404, "etcdserver: member not found"),
    Row("LEASE_EXIST", 9, 400, "etcdserver: lease already exists"),
    Row("MEMBER_EXIST", 9, 400, "etcdserver: member ID already exist"),
    Row("PEER_URL_EXIST", 9, 400, "etcdserver: Peer URLs already exists"),
    Row("MEMBER_NOT_LEARNER", 9, 400, "etcdserver: can only promote a learner member"),
    Row(
        "LEARNER_NOT_READY",
        9,
        400,
        "etcdserver: can only promote a learner member which is in sync with leader",
    ),
    Row("TOO_MANY_LEARNERS", 9, 400, "etcdserver: too many learner members in cluster"),
    Row("CLUSTER_ID_MISMATCH", 9, 400, "etcdserver: cluster ID mismatch"),
    Row("ROOT_USER_NOT_EXIST", 9, 400, "etcdserver: root user does not exist"),
    Row("ROOT_ROLE_NOT_EXIST", 9, 400, "etcdserver: root user does not have root role"),
    Row("USER_ALREADY_EXIST", 9, 400, "etcdserver: user name already exists"),
    Row("USER_NOT_FOUND", 9, 400, "etcdserver: user name not found"),
    Row("ROLE_ALREADY_EXIST", 9, 400, "etcdserver: role name already exists"),
    Row("ROLE_NOT_FOUND", 9, 400, "etcdserver: role name not found"),
    Row("ROLE_NOT_GRANTED", 9, 400, "etcdserver: role is not granted to the user"),
    Row("PERMISSION_NOT_GRANTED", 9, 400, "etcdserver: permission is not granted to the role"),
    Row("AUTH_NOT_ENABLED", 9, 400, "etcdserver: authentication is not enabled"),
    Row("NOT_LEADER", 9, 400, "etcdserver: not leader"),
    Row("BAD_LEADER_TRANSFEREE", 9, 400, "etcdserver: bad leader transferee"),
    Row("NOT_CAPABLE", 9, 400, "etcdserver: not capable"),
    Row("NOT_SUPPORTED_FOR_LEARNER", 9, 400, "etcdserver: rpc not supported for learner"),
    Row(
        "CLUSTER_VERSION_UNAVAILABLE",
        9,
        400,
        "etcdserver: cluster version not found during downgrade",
    ),
    Row("DOWNGRADE_IN_PROCESS", 9, 400, "etcdserver: cluster has a downgrade job in progress"),
    Row("NO_INFLIGHT_DOWNGRADE", 9, 400, "etcdserver: no inflight downgrade job"),
    Row("COMPACTED", 11, 400, "etcdserver: mvcc: required revision has been compacted"),
    Row("FUTURE_REVISION", 11, 400, "etcdserver: mvcc: required revision is a future revision"),
    Row("LEASE_TTL_TOO_LARGE", 11, 400, "etcdserver: too large lease TTL"),
    Row("NO_SPACE", 8, 429, "etcdserver: mvcc: database space exceeded"),
    Row("PERMISSION_DENIED", 7, 403, "etcdserver: permission denied"),
    Row("INVALID_AUTH_TOKEN", 16, 401, "etcdserver: invalid auth token"),
    Row("NO_LEADER", 14, 503, "etcdserver: no leader"),
    Row("LEADER_CHANGED", 14, 503, "etcdserver: leader changed"),
    Row("STOPPED", 14, 503, "etcdserver: server stopped"),
    Row("TIMEOUT", 14, 503, "etcdserver: request timed out"),
    Row(
        "TIMEOUT_LEADER_FAIL",
        14,
        503,
        "etcdserver: request timed out, possibly due to previous leader failure",
    ),
    Row(
        "TIMEOUT_CONNECTION_LOST",
        14,
        503,
        "etcdserver: request timed out, possibly due to connection lost",
    ),
    Row(
        "TIMEOUT_WAIT_APPLIED",
        14,
        503,
        "etcdserver: request timed out, waiting for the applied index took too long",
    ),
    Row("UNHEALTHY", 14, 503, "etcdserver: unhealthy cluster"),
    Row("CORRUPT", 15, 500, "etcdserver: corrupt cluster"),
    Row("WATCH_CANCELED", 1, 499, "etcdserver: watch canceled"),
    Row("CANCELED", 1, 499, "etcdserver: request canceled"),
    Row("DEADLINE_EXCEEDED", 4, 504, "context deadline exceeded"),
    Row(
        "MEMBER_NOT_ENOUGH_STARTED",
        2,
        500,
        "etcdserver: re-configuration failed due to not enough started members",
    ),
    Row("TOO_MANY_REQUESTS", 2, 500, "etcdserver: too many requests"),
    Row(
        "NO_PASSWORD_USER",
        2,
        500,
        "auth: authentication failed, password was given for no password user",
    ),
    Row(
        "TIMEOUT_LEADER_TRANSFER",
        2,
        500,
        "etcdserver: request timed out, leader transfer took too long",
    ),
    Row("UNKNOWN_METHOD", 2, 500, "etcdserver: unknown method"),
    Row("NOT_PRIMARY_LESSOR", 2, 500, "not a primary lessor"),
    Row("PASSWORD_TOO_LONG", 2, 500, "bcrypt: password length exceeds 72 bytes"),
    Row("ELECTION_NO_LEADER", 2, 500, "election: no leader"),
    Row("ELECTION_NOT_LEADER", 2, 500, "election: not leader"),
    Row("ELECTION_LEADER_MISSING", 2, 500, '"leader" field must be provided'),
]
TABLE = {row.name: row for row in ROWS}

EXCUSED = {
    "MEMBER_EXIST": "ids are made of URLs and time, and URLs that are in use are refused first",
    "CLUSTER_ID_MISMATCH": "members tell each other, not clients",
    "NOT_CAPABLE": "every version of this server has every call",
    "NO_INFLIGHT_DOWNGRADE": "calling off a downgrade that is none succeeds, as in etcd",
    "LEADER_CHANGED": "reads are asked again until their time is up",
    "TIMEOUT_LEADER_FAIL": "proposals are sent again until their time is up",
    "TIMEOUT_CONNECTION_LOST": "calls are asked again at the next leader until their time is up",
    "TIMEOUT_WAIT_APPLIED": "lease calls wait within the request's time",
    "NOT_PRIMARY_LESSOR": "renewals wait for a leader within the request's time",
    "WATCH_CANCELED": "a stream whose client is gone has nobody to be told",
    "CANCELED": "a caller that is gone has nobody to be told",
}
"""Errors that no call can bring about here, and why; they are checked against the table only."""

Way = list[tuple[str, JsonObject]]
"""Calls one after the other, the last of which is refused."""

BROUGHT: set[str] = set()
"""The errors that a test of their own brings about."""

Test = TypeVar("Test", bound=Callable[..., None])


def brings(*names: str) -> Callable[[Test], Test]:
    """Says of a test which errors it brings about."""
    BROUGHT.update(names)
    return lambda test: test


def check(name: str, seen: Seen) -> None:
    """See that an answer is the error of a row, with the keys that all clients read."""
    row = TABLE[name]
    assert seen.status == row.status, seen
    assert seen.body == {"error": row.message, "message": row.message, "code": row.code}


def on_cluster(work: Callable[[Desk], Awaitable[Any]], *, size: int = 1, **settings: Any) -> None:
    async def scenario(cluster: Cluster) -> None:
        leader = await cluster.wait_leader()
        await cluster.wait(lambda: leader.machine.cluster_version)
        await work(Desk(cluster, leader))

    run_scenario(scenario, 1, size=size, **settings)


async def take(way: Way, name: str, desk: Desk) -> None:
    """Make these calls; the last must be refused with the error of this name."""
    *before, (path, body) = way
    for earlier in before:
        await desk.do(*earlier)
    check(name, await desk.ask(path, body))

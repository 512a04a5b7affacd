"""Users and rights, given and taken while they are used."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from kvstore.errors import ErrorKind
from kvstore.types import (
    AuthDisableRequest,
    AuthEnableRequest,
    AuthRoleAddRequest,
    AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserDeleteRequest,
    AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest,
    DeleteRangeRequest,
    Permission,
    PermissionType,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    WatchCreateRequest,
)
from tests.checking.history import Outcome
from tests.sim.client import ROOT, WORKER, Client
from tests.sim.feed import Feed

if TYPE_CHECKING:
    import random

    from tests.sim.world import World

VISITORS = 3
AREAS = 3
PASSWORDS = ("first-secret", "second-secret")
PAUSE_SECONDS = (0.0, 0.6)
VISIT_SECONDS = (0.0, 0.3)
TRIES_MAX = 40
RUSH_SECONDS_MAX = 0.02
"""A change goes through the log in about as long."""
AUTH_FAILED = ErrorKind.AUTH_FAILED.message

Call = tuple[str, Any]


def area(number: int) -> tuple[bytes, bytes]:
    """The keys of one area, as a key and a range end."""
    return b"auth/%d/" % number, b"auth/%d0" % number


async def administrator(world: World, client: Client, rng: random.Random) -> None:
    """Set users up, switch authentication on, and change rights all the time."""
    client.login = ROOT
    rivals = [client.another() for _ in range(VISITORS)]
    for number, rival in enumerate(rivals):
        rival.login = (f"visitor-{number}", PASSWORDS[0])
    for call in _set_up():
        if not await _insist(world, client, call):
            # Without the worker nobody could do anything afterwards.
            return
    while world.working:
        await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
        for call in _change(rng):
            await _take_away(world, client, rivals, call, rng)


async def _insist(world: World, client: Client, call: Call) -> bool:
    """Until it is so: a refusal may mean that an earlier try has done it."""
    for _ in range(TRIES_MAX):
        operation = await client.call(*call)
        if operation.outcome is Outcome.OK or "already exists" in operation.error:
            return True
        if not world.working:
            return False
        await asyncio.sleep(0.2)
    return False


def _set_up() -> list[Call]:
    calls: list[Call] = [("role_add", AuthRoleAddRequest("root"))]
    for name, password in (ROOT, WORKER):
        calls.append(("user_add", AuthUserAddRequest(name, password)))
        calls.append(("user_grant_role", AuthUserGrantRoleRequest(name, "root")))
    for number in range(AREAS):
        calls.append(("role_add", AuthRoleAddRequest(f"role-{number}")))
        calls.append(("role_grant_permission", _permission(number, number)))
    for number in range(VISITORS):
        calls.append(("user_add", AuthUserAddRequest(f"visitor-{number}", PASSWORDS[0])))
        grant = AuthUserGrantRoleRequest(f"visitor-{number}", f"role-{number % AREAS}")
        calls.append(("user_grant_role", grant))
    calls.append(("auth_enable", AuthEnableRequest()))
    return calls


def _permission(
    role: int, number: int, kind: PermissionType = PermissionType.READWRITE
) -> AuthRoleGrantPermissionRequest:
    return AuthRoleGrantPermissionRequest(f"role-{role}", Permission(kind, *area(number)))


def _change(rng: random.Random) -> list[Call]:
    """One change of rights; what is taken away altogether is given again."""
    user = f"visitor-{rng.randrange(VISITORS)}"
    number = rng.randrange(AREAS)
    role = f"role-{number}"
    keys = area(rng.randrange(AREAS))
    permission = AuthRoleGrantPermissionRequest(
        role, Permission(rng.choice(list(PermissionType)), *keys)
    )
    choices: list[list[Call]] = [
        [("role_grant_permission", permission)],
        [("role_revoke_permission", AuthRoleRevokePermissionRequest(role, *keys))],
        [("user_grant_role", AuthUserGrantRoleRequest(user, role))],
        [("user_revoke_role", AuthUserRevokeRoleRequest(user, role))],
        [
            (
                "user_change_password",
                AuthUserChangePasswordRequest(user, rng.choice(PASSWORDS)),
            )
        ],
        [
            ("user_delete", AuthUserDeleteRequest(user)),
            ("user_add", AuthUserAddRequest(user, rng.choice(PASSWORDS))),
            ("user_grant_role", AuthUserGrantRoleRequest(user, role)),
        ],
        [
            ("role_delete", AuthRoleDeleteRequest(role)),
            ("role_add", AuthRoleAddRequest(role)),
            ("role_grant_permission", _permission(number, number)),
        ],
        [("auth_disable", AuthDisableRequest()), ("auth_enable", AuthEnableRequest())],
    ]
    return rng.choices(choices, (6, 4, 6, 4, 2, 1, 1, 1))[0]


def _taken(call: Call) -> bytes:
    """Where the keys begin that somebody may lose the right to; b"": nobody loses any."""
    method, request = call
    if method == "role_revoke_permission":
        return bytes(request.key)
    if method in ("user_revoke_role", "role_delete"):
        return area(int(request.role.rpartition("-")[2]))[0]
    return b""


async def _take_away(
    world: World, client: Client, rivals: list[Client], call: Call, rng: random.Random
) -> None:
    """Change a right while everybody who may lose it uses it; when it is changed they ask once
    more, at once, members that may not have heard of it yet.
    """
    start = _taken(call)
    rush = [_use_soon(world, rival, start, rng) for rival in rivals] if start else []
    last = [Client(world, rng, rival.login) for rival in rivals] if start else []
    for own, rival in zip(last, rivals, strict=False):
        own.token = rival.token

    async def change() -> None:
        operation = await client.call(*call)
        if operation.outcome is Outcome.OK:
            read = RangeRequest(start + b"0")
            await asyncio.gather(*(own.call("range", read) for own in last))

    await asyncio.gather(change(), *rush)


async def _use_soon(world: World, rival: Client, start: bytes, rng: random.Random) -> None:
    await asyncio.sleep(rng.random() ** 2 * RUSH_SECONDS_MAX)
    await rival.call(*_use(world, start, rng))
    if AUTH_FAILED in rival.login_error:
        rival.login_error = ""
        rival.login = (rival.login[0], PASSWORDS[rival.login[1] == PASSWORDS[0]])


def _use(world: World, start: bytes, rng: random.Random) -> Call:
    key, value = start + b"%d" % rng.randrange(2), b"%d" % world.new_token()
    choice = rng.random()
    if choice < 0.5:
        return "txn", TxnRequest(success=[RequestOp(request_put=PutRequest(key, value))])
    if choice < 0.85:
        return "range", RangeRequest(key)
    return "put", PutRequest(key, value)


async def visitor(world: World, client: Client, rng: random.Random) -> None:
    """Somebody with a few rights, who tries more than that."""
    name = f"visitor-{rng.randrange(VISITORS)}"
    client.login = (name, PASSWORDS[0])
    feed: Feed | None = None
    while world.working:
        await asyncio.sleep(rng.uniform(*VISIT_SECONDS))
        choice = rng.random()
        if choice < 0.03:
            await client.log_in()
        elif choice < 0.1:
            if feed is not None:
                feed.close()
            host = await client.find()
            feed = Feed(client, host)
            feed.watch(client.number, WatchCreateRequest(*area(rng.randrange(AREAS))))
        else:
            await client.call(*_visit(world, rng))
        if AUTH_FAILED in client.login_error:
            client.login_error = ""
            client.login = (name, PASSWORDS[client.login[1] == PASSWORDS[0]])
    if feed is not None:
        feed.close()


def _visit(world: World, rng: random.Random) -> Call:
    start, end = area(rng.randrange(AREAS))
    key = start + b"%d" % rng.randrange(2)
    value = b"%d" % world.new_token()
    choice = rng.random()
    if choice < 0.35:
        return "put", PutRequest(key, value, prev_kv=rng.random() < 0.2)
    if choice < 0.6:
        return "range", RangeRequest(start, end, serializable=rng.random() < 0.3)
    if choice < 0.75:
        return "range", RangeRequest(key)
    if choice < 0.85:
        return "delete_range", DeleteRangeRequest(key)
    other, _ = area(rng.randrange(AREAS))
    puts = [RequestOp(request_put=PutRequest(key, value))]
    reads = [RequestOp(request_range=RangeRequest(other + b"0"))]
    return "txn", TxnRequest(success=puts + reads, failure=[])

"""Transactions over several keys: compares of every kind, nests, and a bank whose sum stays."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvstore.types import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
)
from tests.checking.history import Outcome
from tests.checking.violation import ViolationError

if TYPE_CHECKING:
    import random

    from tests.sim.client import Client
    from tests.sim.world import World

ACCOUNTS = 4
BALANCE = 100
BANK = (b"bank/", b"bank0")
KEYS = 4
PAUSE_SECONDS = (0.0, 0.3)


async def bank(world: World, client: Client, rng: random.Random) -> None:
    """Move money between accounts that are read at one revision; the sum never changes."""
    while world.working:
        await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
        read = await client.call("range", RangeRequest(*BANK, serializable=rng.random() < 0.2))
        if read.outcome is not Outcome.OK:
            continue
        _check_sum(world, read.response)
        if not read.response.kvs:
            await client.call("txn", _opening())
            continue
        one, other = rng.sample(read.response.kvs, 2)
        amount = rng.randrange(int(one.value) + 1)
        compare = [
            Compare(target=CompareTarget.MOD, key=account.key, mod_revision=account.mod_revision)
            for account in (one, other)
        ]
        puts = [
            RequestOp(request_put=PutRequest(one.key, b"%d" % (int(one.value) - amount))),
            RequestOp(request_put=PutRequest(other.key, b"%d" % (int(other.value) + amount))),
        ]
        moved = await client.call(
            "txn", TxnRequest(compare, puts, [RequestOp(request_range=RangeRequest(*BANK))])
        )
        if moved.outcome is Outcome.OK and not moved.response.succeeded:
            _check_sum(world, moved.response.responses[0].response_range)


def _opening() -> TxnRequest:
    """All accounts, unless there are any."""
    keys = [b"bank/%d" % number for number in range(ACCOUNTS)]
    return TxnRequest(
        [Compare(target=CompareTarget.VERSION, key=BANK[0], range_end=BANK[1], version=0)],
        [RequestOp(request_put=PutRequest(key, b"%d" % BALANCE)) for key in keys],
    )


def _check_sum(world: World, response: RangeResponse) -> None:
    balances = {kv.key.decode(): int(kv.value) for kv in response.kvs}
    if balances and sum(balances.values()) != ACCOUNTS * BALANCE:
        message = f"a bank of {ACCOUNTS * BALANCE} holds {sum(balances.values())}: {balances}"
        world.report(ViolationError("linearizability", message))


async def transactions(world: World, client: Client, rng: random.Random) -> None:
    """Compare a few things, and write, read and delete a few, also in nested transactions."""
    revision = 1
    while world.working:
        await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
        draw = _Draw(world, rng, revision)
        operation = await client.call("txn", draw.txn(depth=rng.choice((0, 0, 1, 2))))
        if operation.outcome is Outcome.OK:
            revision = operation.response.header.revision


class _Draw:
    """Draws one transaction. No key is put twice in it, and what is deleted is not put."""

    def __init__(self, world: World, rng: random.Random, revision: int) -> None:
        self._world = world
        self._rng = rng
        self._revision = revision
        self._keys = [b"txn/%d" % number for number in range(KEYS)]
        rng.shuffle(self._keys)
        self._free = list(self._keys)

    def txn(self, depth: int) -> TxnRequest:
        rng = self._rng
        compare = [self._compare() for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        free = list(self._free)
        success = self._ops(depth)
        # The branches exclude each other, so both may touch the same keys; what follows may not.
        after, self._free = self._free, free
        failure = self._ops(depth)
        self._free = [key for key in self._free if key in after]
        return TxnRequest(compare, success, failure)

    def _ops(self, depth: int) -> list[RequestOp]:
        rng = self._rng
        ops = [self._op() for _ in range(rng.choice((0, 1, 2, 3)))]
        if depth:
            ops.insert(rng.randrange(len(ops) + 1), RequestOp(request_txn=self.txn(depth - 1)))
        return ops

    def _op(self) -> RequestOp:
        rng = self._rng
        choice = rng.random()
        if choice < 0.5 and self._free:
            value = b"%d" % self._world.new_token()
            put = PutRequest(self._free.pop(), value, prev_kv=rng.random() < 0.3)
            return RequestOp(request_put=put)
        if choice < 0.65 and self._free:
            delete = DeleteRangeRequest(self._free.pop(), prev_kv=rng.random() < 0.5)
            return RequestOp(request_delete_range=delete)
        if choice < 0.85:
            return RequestOp(request_range=RangeRequest(rng.choice(self._keys)))
        return RequestOp(request_range=RangeRequest(b"txn/", b"txn0"))

    def _compare(self) -> Compare:
        rng = self._rng
        compare = Compare(rng.choice(list(CompareResult)), key=rng.choice(self._keys))
        target = compare.target = rng.choice(list(CompareTarget))
        recent = max(0, self._revision - rng.randrange(20))
        match target:
            case CompareTarget.VERSION:
                compare.version = rng.choice((0, 0, 1, 2))
            case CompareTarget.CREATE:
                compare.create_revision = rng.choice((0, recent))
            case CompareTarget.MOD:
                compare.mod_revision = rng.choice((0, recent))
            case CompareTarget.VALUE:
                compare.value = b"%d" % max(0, self._world.new_token() - rng.randrange(30))
            case CompareTarget.LEASE:
                compare.lease = 0
        if rng.random() < 0.1:
            compare.key, compare.range_end = b"txn/", b"txn0"
        return compare

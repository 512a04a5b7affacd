"""Versions that go down and up again while members are restarted one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvstore.types import DowngradeAction, DowngradeRequest
from tests.sim.client import Client
from tests.sim.faults import processes

if TYPE_CHECKING:
    import random

    from tests.sim.schedule import Fault
    from tests.sim.world import World

LOWER = "3.6.0"


async def downgrade(world: World, fault: Fault, rng: random.Random) -> None:
    """Prepare a downgrade, restart all members one by one, and call it off again.

    The members speak the lower version in between, whoever leads.
    """
    await _ask(world, fault, rng, DowngradeRequest(DowngradeAction.VALIDATE, LOWER))
    await _ask(world, fault, rng, DowngradeRequest(DowngradeAction.ENABLE, LOWER))
    await processes.rolling_restart(world, fault, rng)
    await _ask(world, fault, rng, DowngradeRequest(DowngradeAction.CANCEL))


async def _ask(world: World, fault: Fault, rng: random.Random, request: DowngradeRequest) -> None:
    """Ask once; another downgrade may be under way, or nobody may lead."""
    client = Client(world, rng)
    await client.call("downgrade", request, host=world.victim(fault))

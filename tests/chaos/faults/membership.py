"""Members come and go, and leadership moves when it is told to."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from kvstore.client import Client
from kvstore.errors import KvError
from tests.chaos.faults.holding import hold
from tests.chaos.members import ChaosMember, World, in_time
from tests.checking.violation import ViolationError

CHANGE_SECONDS: Final = 60.0
EXIT_REMOVED: Final = 5


def add_and_remove(world: World, rng: random.Random) -> bool:
    """One more member comes as a learner, is promoted, takes part for a while, and is taken out."""
    joiner = world.spare
    with world.claim(*world.everybody) as ours:
        if not ours:
            return False
        urls = [member.client_url for member in world.members]
        with Client(urls) as client:
            _insist(lambda: _add(client, joiner))
            joiner.joins = True
            joiner.start()
            joiner.wait_ready()
            world.learn_names()
            _insist(lambda: _promote(client, joiner.member_id))
            hold(rng, 1.0, 3.0)
            if rng.random() < 0.5:
                _insist(lambda: _lead(world, joiner))
            joiner.expected = False
            _insist(lambda: _remove(client, joiner.member_id))
        code = joiner.wait_end()
        if code != EXIT_REMOVED:
            raise ViolationError(
                "no surprise", f"{joiner.name} was removed and ended with {code}:\n{joiner.log(12)}"
            )
        joiner.empty()
        world.learn_names()
        return True


def move_leader(world: World, rng: random.Random) -> bool:
    """Leadership goes to another member, again and again."""
    moved = 0
    for _ in range(rng.randint(1, 4)):
        target = rng.choice(world.members)
        before = world.leader()
        if _lead(world, target) and before is not target:
            moved += world.leader() is target
        hold(rng, 0.2, 1.5)
    return moved > 0


def _lead(world: World, target: ChaosMember) -> bool:
    """Whether it was done, or need not be done; a refusal is no fault."""
    leader = world.leader()
    try:
        with leader.client() as client:
            client.move_leader(target.member_id)
    except KvError:
        return False
    return True


def _insist(step: Callable[[], bool]) -> None:
    """Do a step of a change until it is done: members may be busy with an election.

    Raises:
        ViolationError: It was not to be done in time, though nothing is broken.
    """

    def look() -> bool:
        try:
            return step()
        except KvError:
            return False

    in_time(f"a change of members ({step.__name__})", look, CHANGE_SECONDS)


def _add(client: Client, joiner: ChaosMember) -> bool:
    rows = client.member_list(linearizable=True).members
    if any(joiner.slot.peer_url in row.peerURLs for row in rows):
        return True
    client.member_add([joiner.slot.peer_url], learner=True)
    return True


def _promote(client: Client, member_id: int) -> bool:
    rows = client.member_list(linearizable=True).members
    if any(member_id == row.ID and not row.isLearner for row in rows):
        return True
    client.member_promote(member_id)
    return True


def _remove(client: Client, member_id: int) -> bool:
    rows = client.member_list(linearizable=True).members
    if all(member_id != row.ID for row in rows):
        return True
    client.member_remove(member_id)
    return True

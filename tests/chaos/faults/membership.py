"""Members come, go, lose everything and are replaced; and leadership moves when it is told to."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from typing import Final

from kvstore.client import Client
from kvstore.errors import KvError
from tests.chaos.faults.holding import hold
from tests.chaos.members import ChaosMember, World, in_time
from tests.checking.violation import ViolationError
from tests.e2e.commands import Foreground

CHANGE_SECONDS: Final = 60.0
EXIT_REMOVED: Final = 5
EXIT_REFUSED: Final = 1


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
        _empty(joiner)
        world.learn_names()
        return True


def lose_a_directory(world: World, rng: random.Random) -> bool:
    """A member comes back with nothing: it must refuse, and is replaced."""
    victim = rng.choice(world.members)
    with world.claim(*world.members) as ours:
        if ours:
            victim.end_by(victim.kill)
            _empty(victim)
            victim.start()
            victim.expected = False
            if victim.wait_ready_or_end() or victim.wait_end() != EXIT_REFUSED:
                raise ViolationError(
                    "recovery",
                    f"{victim.name} lost its directory and was not refused:\n{victim.log(12)}",
                )
            replace(world, victim)
        return ours


def replace(world: World, victim: ChaosMember) -> None:
    """``kvstore member replace``, and what it says is to be done."""
    _empty(victim)
    others = ",".join(member.client_url for member in world.members if member is not victim)
    output = world.directory / f"{victim.name}.replace.log"
    command = Foreground(
        ["member", "replace", victim.name, f"--endpoints={others}", f"--wait={CHANGE_SECONDS}"],
        output,
    )
    try:
        command.wait_output("--initial-cluster-state=existing", CHANGE_SECONDS)
        victim.joins = True
        victim.start()
        victim.wait_ready()
        world.learn_names()
        code = command.process.wait(CHANGE_SECONDS)
        if code != 0:
            raise ViolationError(
                "recovery", f"member replace ended with {code}: {command.output()}"
            )
    finally:
        command.discard()


def move_leader(world: World, rng: random.Random) -> bool:
    """Leadership goes to another member, again and again."""
    for _ in range(rng.randint(1, 4)):
        _lead(world, rng.choice(world.members))
        hold(rng, 0.2, 1.5)
    return True


def _lead(world: World, target: ChaosMember) -> bool:
    """Whether it was done, or need not be done; a refusal is no fault."""
    leader = world.leader()
    try:
        with leader.client() as client:
            client.move_leader(target.member_id)
    except KvError:
        return False
    return True


def _empty(member: ChaosMember) -> None:
    """Nothing is left of its data; the directory may be a mount, so it stays."""
    for path in sorted(member.data_dir.glob("*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


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

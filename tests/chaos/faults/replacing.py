"""Members lose what they had, and are replaced: by an operator, or by themselves."""

from __future__ import annotations

import random
import shutil
from functools import partial
from typing import Final

from kvstore.errors import KvError
from tests.chaos.faults.processes import restart_in_turn
from tests.chaos.members import ChaosMember, World, in_time
from tests.checking.violation import ViolationError
from tests.e2e.commands import Foreground

CHANGE_SECONDS: Final = 60.0
REPLACED_SECONDS: Final = 120.0
"""Its leader has to be sure of all others first, and a member that is dialled in vain is dialled
less and less often."""
EXIT_REFUSED: Final = 1
LOST: Final = "this member is to be replaced"
SET_ASIDE: Final = "member.damaged-*"


def lose_a_directory(world: World, rng: random.Random) -> bool:
    """A member comes back with nothing: it must refuse, and an operator replaces it."""
    victim = rng.choice(world.members)
    with world.claim(*world.members) as ours:
        if ours:
            by_operators(world, rng)
            victim.end_by(victim.kill)
            victim.empty()
            victim.start()
            victim.expected = False
            if victim.wait_ready_or_end() or victim.wait_end() != EXIT_REFUSED:
                raise ViolationError(
                    "recovery",
                    f"{victim.name} lost its directory and was not refused:\n{victim.log(12)}",
                )
            replace(world, victim)
        return ours


def lose_a_directory_and_replace_itself(world: World, rng: random.Random) -> bool:
    """A member comes back with nothing, or without its log's end, and is well without an operator.

    ``--replace-damaged-member`` is set on all.
    """
    victim = rng.choice(world.members)
    with world.claim(*world.members) as ours:
        if ours:
            by_themselves(world, rng)
            old_id = victim.learn_id()
            victim.end_by(victim.kill)
            if rng.random() < 0.6:
                victim.empty()
                # The words of the founding are allowed, as long as those whom it asks are there.
                victim.joins = victim.joins or rng.random() < 0.5
                what = "a member that lost its directory replaced itself"
            else:
                victim.garble_tail()
                what = "a member that lost its log's end replaced itself"
            victim.start()
            victim.wait_ready(REPLACED_SECONDS)
            in_time(
                f"{victim.name} votes as another",
                partial(_votes_as_another, world, victim, old_id),
                REPLACED_SECONDS,
            )
            for path in victim.data_dir.glob(SET_ASIDE):
                shutil.rmtree(path)
            world.learn_names()
            world.notes[what] += 1
            return LOST in victim.last_life() and victim.member_id != old_id
        return False


def by_operators(world: World, rng: random.Random) -> None:
    """From now on whoever is lost says so, and ends."""
    _let(world, rng, themselves=False)


def by_themselves(world: World, rng: random.Random) -> None:
    """From now on whoever is lost replaces itself."""
    _let(world, rng, themselves=True)


def _let(world: World, rng: random.Random, *, themselves: bool) -> None:
    """A flag changes as operators change it: by restarting one member after the other."""
    others = [one for one in world.members if one.replaces_itself != themselves]
    for member in world.everybody:
        member.replaces_itself = themselves
    restart_in_turn(rng.sample(others, len(others)))


def _votes_as_another(world: World, victim: ChaosMember, old_id: int) -> bool:
    other = next(member for member in world.members if member is not victim)
    try:
        with other.client() as client:
            rows = client.member_list(linearizable=True).members
    except KvError:
        return False
    whole = len(rows) == world.size and not any(row.isLearner or not row.name for row in rows)
    return whole and all(old_id != row.ID for row in rows)


def replace(world: World, victim: ChaosMember) -> None:
    """``kvstore member replace``, and what it says is to be done."""
    victim.empty()
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

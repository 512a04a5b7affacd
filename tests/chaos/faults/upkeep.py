"""What operators do while clients are at work: backups, compaction, defragmentation."""

from __future__ import annotations

import random
from typing import Final

from kvstore.errors import Code, ErrorKind, KvError
from tests.chaos.faults.holding import hold
from tests.chaos.members import World
from tests.checking.violation import ViolationError

KEPT_REVISIONS: Final = (0, 5, 50)


def save_snapshots(world: World, rng: random.Random) -> bool:
    """Backups of every member: each has to come whole, if it comes."""
    came = 0
    for member in rng.sample(world.members, world.size):
        try:
            with member.client() as client:
                saved = client.save_snapshot(lambda _: None)
        except KvError as error:
            if error.code == Code.DATA_LOSS:
                raise ViolationError("recovery", f"a backup of {member.name}: {error}") from error
        else:
            if not saved.size_bytes:
                raise ViolationError("recovery", f"a backup of {member.name} is empty")
            came += 1
        hold(rng, 0.1, 0.5)
    return came > 0


def compact(world: World, rng: random.Random) -> bool:
    """History is forgotten up to what was seen a moment ago."""
    done = 0
    for _ in range(rng.randint(1, 3)):
        hold(rng, 0.5, 2.0)
        revision = max(world.revision_seen() - rng.choice(KEPT_REVISIONS), 1)
        member = rng.choice(world.members)
        # Noted before: whatever is answered, it may happen.
        world.compactions.append(revision)
        try:
            with member.client() as client:
                client.compact(revision, physical=rng.random() < 0.5)
        except KvError as error:
            if error == ErrorKind.FUTURE_REVISION.error():
                raise ViolationError(
                    "durability", f"revision {revision} was seen: {error}"
                ) from error
        else:
            done += 1
    return done > 0


def defragment(world: World, rng: random.Random) -> bool:
    """Of every member in turn."""
    done = 0
    for member in rng.sample(world.members, world.size):
        try:
            with member.client() as client:
                client.defragment()
        except KvError:
            continue  # It is down, or busy: that is another fault's doing.
        done += 1
    return done > 0

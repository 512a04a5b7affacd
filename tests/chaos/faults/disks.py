"""Disks fill up, become slow, and hold other bytes than were written."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Final

from tests.chaos.faults.holding import hold
from tests.chaos.faults.membership import replace
from tests.chaos.members import ChaosMember, World
from tests.checking.violation import ViolationError

FULL_SECONDS: Final = (2.0, 6.0)
SLOW_SECONDS: Final = (2.0, 6.0)
SYNC_SECONDS: Final = (0.02, 0.1, 0.5, 2.0)
FILLER_BYTES: Final = 64 * 1024
EXIT_REFUSED: Final = 1
REMEDY: Final = "kvstore member replace"


def fill(world: World, rng: random.Random) -> bool:
    """Somebody else's file takes all that is left, and is removed again."""
    victim = rng.choice([member for member in world.members if member.slot.small_disk])
    with world.claim(victim) as ours:
        if ours:
            filler = victim.data_dir / "filler"
            try:
                with contextlib.suppress(OSError), filler.open("wb", buffering=0) as sink:
                    while sink.write(bytes(FILLER_BYTES)):
                        pass
                hold(rng, *FULL_SECONDS)
            finally:
                filler.unlink(missing_ok=True)
        return ours


def slow_syncs(world: World, rng: random.Random) -> bool:
    """Each sync takes longer, up to seconds, on the leader or any other."""
    victim = world.leader() if rng.random() < 0.5 else rng.choice(world.members)
    with world.claim(victim) as ours:
        if ours:
            victim.slow_disk.write_text(str(rng.choice(SYNC_SECONDS)))
            try:
                hold(rng, *SLOW_SECONDS)
            finally:
                victim.slow_disk.unlink()
        return ours


def damage_a_file(world: World, rng: random.Random) -> bool:
    """A byte of a member's log or snapshots changes while it is down, or a file's end is gone.

    It comes back as if nothing was, having mended itself, or refuses to start and says what to do:
    then that is done.
    """
    victim = rng.choice(world.members)
    with world.claim(*world.members) as ours:
        if ours:
            victim.end_by(victim.stop if rng.random() < 0.3 else victim.kill)
            what = _damage(victim, rng)
            victim.start()
            # It may refuse at once, which is what it should do.
            victim.expected = False
            if victim.wait_ready_or_end():
                victim.expected = True
                world.notes["a damaged member came back"] += 1
            else:
                world.notes["a damaged member was refused, and replaced"] += 1
                _check_refusal(victim, what)
                replace(world, victim)
        return ours


def _damage(victim: ChaosMember, rng: random.Random) -> str:
    """Returns what was done, in words."""
    files = sorted(path for path in victim.data_dir.rglob("*") if path.is_file())
    path = rng.choice([one for one in files if one.stat().st_size])
    size = path.stat().st_size
    with path.open("r+b") as file:
        if rng.random() < 0.3:
            end = rng.randrange(size)
            file.truncate(end)
            return f"{path.name} cut from {size} to {end} bytes"
        offset = _written_offset(path, rng)
        file.seek(offset)
        old = file.read(1)[0]
        mask = rng.randint(1, 255)
        file.seek(offset)
        file.write(bytes([old ^ mask]))
        return f"byte {offset} of {size} of {path.name}: {old:#04x} became {old ^ mask:#04x}"


def _written_offset(path: Path, rng: random.Random) -> int:
    """Somewhere in the part that was written: behind it a segment holds zeros."""
    return rng.randrange(len(path.read_bytes().rstrip(b"\0")) or path.stat().st_size)


def _check_refusal(victim: ChaosMember, what: str) -> None:
    code = victim.wait_end()
    if code != EXIT_REFUSED or REMEDY not in victim.last_life():
        raise ViolationError(
            "recovery", f"{victim.name}: {what}; it ended with {code}:\n{victim.log(12)}"
        )

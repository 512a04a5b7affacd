"""Disks fill up, become slow, and hold other bytes than were written."""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from kvstore.errors import KvError
from tests.chaos.faults.holding import hold
from tests.chaos.faults.replacing import EXIT_REFUSED, by_operators, replace
from tests.chaos.members import ChaosMember, World, in_time
from tests.checking.violation import ViolationError

FULL_SECONDS: Final = (2.0, 6.0)
SLOW_SECONDS: Final = (2.0, 6.0)
SYNC_SECONDS: Final = (0.02, 0.1, 0.5, 2.0)
FILLER_BYTES: Final = 64 * 1024
REMEDY: Final = "kvstore member replace"
REBUILT: Final = "kvstore_rebuilt_total"
FOUND: Final = "kvstore_scrub_damaged_total"
MENDED: Final = "kvstore_scrub_mended_total"
SCRUB_SECONDS: Final = 90.0
"""A pass comes every few seconds; a loaded machine may take its time over one."""
NOTICED: Final = (
    "damage that a snapshot covers",
    "starting from the snapshot before",
    "no snapshot is sound",
    "a snapshot was passed over",
)


def fill(world: World, rng: random.Random) -> bool:
    """Somebody else's file takes all that is left, and is removed again."""
    victim = rng.choice([member for member in world.members if member.slot.small_disk])
    with world.claim(victim) as ours:
        if ours:
            filler = victim.data_dir / "filler"
            try:
                full = _take_all(filler)
                hold(rng, *FULL_SECONDS)
                world.notes["a full disk raised an alarm"] += _is_alarmed(victim)
                return full
            finally:
                filler.unlink(missing_ok=True)
        return False


def _take_all(filler: Path) -> bool:
    with filler.open("wb", buffering=0) as sink:
        try:
            while sink.write(bytes(FILLER_BYTES)):
                pass
        except OSError as error:
            return error.errno == errno.ENOSPC
    return False


def _is_alarmed(member: ChaosMember) -> bool:
    with contextlib.suppress(KvError), member.client(2.0) as client:
        return bool(client.alarm_list().alarms)
    return False


def slow_syncs(world: World, rng: random.Random) -> bool:
    """Each sync takes longer, up to seconds, on the leader or any other."""
    victim = world.leader() if rng.random() < 0.5 else rng.choice(world.members)
    with world.claim(victim) as ours:
        if ours:
            before = _size(victim.slowed_syncs)
            victim.slow_disk.write_text(str(rng.choice(SYNC_SECONDS)))
            try:
                hold(rng, *SLOW_SECONDS)
            finally:
                victim.slow_disk.unlink()
            return _size(victim.slowed_syncs) > before
        return False


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def damage_a_file(world: World, rng: random.Random) -> bool:
    """A byte of a member's log or snapshots changes while it is down, or a file's end is gone.

    It comes back as if nothing was, having mended itself, or refuses to start and says what to do:
    then that is done.
    """
    victim = rng.choice(world.members)
    with world.claim(*world.members) as ours:
        if ours:
            by_operators(world, rng)
            victim.end_by(victim.stop if rng.random() < 0.3 else victim.kill)
            what = _come_back_damaged(world, victim, partial(_damage, victim, rng))
            world.notes[what] += 1
        return ours


def damage_the_middle_of_the_log(world: World, rng: random.Random) -> bool:
    """What is damaged is older than the log's end, and no snapshot has it: it is rebuilt."""
    victim = rng.choice(world.members)
    with world.claim(*world.members) as ours:
        if ours:
            by_operators(world, rng)
            victim.end_by(victim.kill)
            what = _come_back_damaged(world, victim, partial(_damage_newest_segment, victim, rng))
            world.notes[what] += 1
            return "rebuilt" in what
        return False


def _come_back_damaged(world: World, victim: ChaosMember, damage: Callable[[], str]) -> str:
    """Damage what is down, start it, and see to it that it is well; returns what became of it."""
    done = damage()
    victim.start()
    # It may refuse at once, which is what it should do.
    victim.expected = False
    if not victim.wait_ready_or_end():
        _check_refusal(victim, done)
        replace(world, victim)
        return "a damaged member was refused, and replaced"
    victim.expected = True
    if victim.metrics().get(REBUILT):
        return "a damaged member was rebuilt"
    words = victim.last_life()
    if any(word in words for word in NOTICED):
        return "a damaged member came back, and said what it did without"
    return "a damaged member came back: the place was not in use"


def damage_a_file_in_use(world: World, rng: random.Random) -> bool:
    """A byte of a running member's log or snapshots changes.

    It reads its disk again and again, and so finds it, and writes anew what is lost: afterwards it
    can be killed, and comes back as if nothing was.
    """
    victim = rng.choice(world.members)
    with world.claim(*world.members) as ours:
        if ours:
            before = victim.metrics()[FOUND]
            path, offset = _place_in_use(victim, rng)
            _flip(path, offset, rng)
            damaged = _byte(path, offset)

            def look() -> str:
                samples = victim.metrics()
                if samples[FOUND] > before and samples[MENDED] >= samples[FOUND]:
                    return "found"
                return "" if _byte(path, offset) == damaged else "gone"

            what = f"{victim.name} finds that byte {offset} of {path.name} is damaged"
            found = in_time(what, look, SCRUB_SECONDS) == "found"
            victim.end_by(victim.kill)
            victim.start()
            victim.wait_ready()
            if found and (victim.metrics()[REBUILT] or _says_damage(victim)):
                raise ViolationError(
                    "recovery",
                    f"{victim.name} had mended byte {offset} of {path.name}, and was damaged at "
                    f"its next start:\n{victim.log(12)}",
                )
            word = "found by its member" if found else "gone before it was found"
            world.notes[f"damage under a running member was {word}"] += 1
            return found
        return False


def _says_damage(member: ChaosMember) -> bool:
    words = member.last_life()
    return any(word in words for word in NOTICED)


def _byte(path: Path, offset: int) -> int | None:
    """What is there now; None if nothing is."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return (file.read(1) or b"\0")[0]
    except FileNotFoundError:
        return None


def _place_in_use(member: ChaosMember, rng: random.Random) -> tuple[Path, int]:
    """A byte of what a running member has written, not of what it is just writing."""
    snapshots = sorted((member.data_dir / "member").rglob("*.snap"))
    written = [path for path in member.segments() if path.read_bytes().rstrip(b"\0")]
    path = rng.choice([*written[-2:], *snapshots[-1:]])
    content = path.read_bytes().rstrip(b"\0")
    places = [at for at in range(len(content) * 3 // 4) if content[at]]
    return path, rng.choice(places)


def _flip(path: Path, offset: int, rng: random.Random) -> str:
    mask = rng.randint(1, 255)
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([old ^ mask]))
    return f"byte {offset} of {path.name}: {old:#04x} became {old ^ mask:#04x}"


def _damage_newest_segment(victim: ChaosMember, rng: random.Random) -> str:
    """Behind the newest snapshot as a rule, and before the last batches."""
    path = [path for path in victim.segments() if path.read_bytes().rstrip(b"\0")][-1]
    content = path.read_bytes().rstrip(b"\0")
    places = [at for at in range(len(content) // 2, len(content) * 9 // 10) if content[at]]
    return _flip(path, rng.choice(places), rng)


def _damage(victim: ChaosMember, rng: random.Random) -> str:
    """Returns what was done, in words."""
    files = sorted(path for path in victim.data_dir.rglob("*") if path.is_file())
    path = rng.choice([one for one in files if one.stat().st_size])
    size = path.stat().st_size
    if rng.random() < 0.3:
        end = rng.randrange(size)
        with path.open("r+b") as file:
            file.truncate(end)
        return f"{path.name} cut from {size} to {end} bytes"
    return _flip(path, _written_offset(path, rng), rng)


def _written_offset(path: Path, rng: random.Random) -> int:
    """Somewhere in the part that was written: behind it a segment holds zeros."""
    return rng.randrange(len(path.read_bytes().rstrip(b"\0")) or path.stat().st_size)


def _check_refusal(victim: ChaosMember, what: str) -> None:
    code = victim.wait_end()
    if code != EXIT_REFUSED or REMEDY not in victim.last_life():
        raise ViolationError(
            "recovery", f"{victim.name}: {what}; it ended with {code}:\n{victim.log(12)}"
        )

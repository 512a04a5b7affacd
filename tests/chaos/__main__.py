"""``make chaos MINUTES=n``: real members, real disks, broken on purpose, under a mixed load."""

from __future__ import annotations

import argparse
import contextlib
import random
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.chaos import sandbox
from tests.chaos.faults import possible
from tests.chaos.members import World
from tests.chaos.report import Report, say
from tests.chaos.rounds import Deck, Round
from tests.checking.history import History
from tests.checking.violation import ViolationError


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="begin no round after so many")
    parser.add_argument("--nodes", type=int, choices=(3, 5), default=3)
    parser.add_argument("--seed", type=int, help="repeats the decisions of a run")
    parser.add_argument("--faults", default="", help="only those whose name contains this")
    parser.add_argument("--directory", type=Path, help="where a run that fails leaves its traces")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = random.SystemRandom().getrandbits(32)
    return options


def _command(options: argparse.Namespace) -> str:
    """What repeats this run."""
    only = f" FAULTS={shlex.quote(options.faults)}" if options.faults else ""
    return f"make chaos MINUTES={options.minutes:g} NODES={options.nodes} SEED={options.seed}{only}"


def _run(options: argparse.Namespace, world: World, report: Report) -> History:
    """All rounds; the history of the last one is returned, or in ``ViolationError.history``."""
    faults, left_out = possible()
    for words in left_out:
        say(f"left out: {words}")
    deck = Deck(
        [fault for fault in faults if options.faults in fault.name], random.Random(options.seed)
    )
    world.start()
    number = 0
    history = History()
    while not number or report.seconds < options.minutes * 60:
        number += 1
        one = Round(world, number, options.seed, report)
        history = one.recorder.history
        try:
            one.run(deck.draw())
        except BaseException:
            _keep_history(history, world.directory / "history.json")
            raise
    return history


def _keep_history(history: History, path: Path) -> None:
    """One line a call, one line a watch: for whoever looks into it."""
    with path.open("wb") as file:
        rows: list[Any] = [*history.operations, *history.watches]
        for row in rows:
            file.write(msgspec.json.encode(row) + b"\n")
        file.write(msgspec.json.encode({str(at): row for at, row in history.truth.items()}) + b"\n")


def _keep_disks(world: World) -> None:
    """What lies on small disks would vanish with the run."""
    for member in world.everybody:
        if member.slot.small_disk:
            with contextlib.suppress(OSError):
                shutil.copytree(member.data_dir, world.directory / f"{member.name}.kept")


def main(arguments: Sequence[str]) -> int:
    """Returns 0 if nothing was violated, else 1."""
    options = _options(arguments)
    # In there it is another process: what was drawn by chance has to stay.
    sandbox.enter([*arguments, "--seed", str(options.seed)])
    if sandbox.is_inside():
        sandbox.prepare()
    directory = options.directory or Path(tempfile.mkdtemp(prefix="chaos"))
    directory.mkdir(parents=True, exist_ok=True)
    say(f"{_command(options)}  (traces in {directory})")
    report = Report()
    world = World(directory, options.nodes, options.seed)
    try:
        _run(options, world, report)
    except ViolationError as violation:
        for member in world.everybody:
            say(f"--- end of the log of {member.name}\n{member.log(15)}")
        say(f"{report.table(world.notes)}\n{violation}")
        say(
            f"logs, data and history.json are in {directory}; to run it again:\n{_command(options)}"
        )
        say(report.summary(1))
        return 1
    finally:
        world.close()
        _keep_disks(world)
    shutil.rmtree(directory, ignore_errors=True)
    say(report.table(world.notes))
    say(report.summary(0))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

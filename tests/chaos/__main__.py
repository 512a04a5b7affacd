"""``make chaos MINUTES=n``: real members, real disks, broken on purpose, under a mixed load."""

from __future__ import annotations

import argparse
import contextlib
import random
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec

from tests.chaos import sandbox
from tests.chaos.faults import FAULTS, possible
from tests.chaos.members import World
from tests.chaos.report import Report, say
from tests.chaos.rounds import Deck, Round
from tests.checking.history import History
from tests.checking.violation import ViolationError

EXIT_INTERRUPTED: Final = 130


class _InterruptedError(BaseException):
    """Somebody ends the run before its time."""


def _interrupt(number: int, _: FrameType | None) -> None:
    for one in sandbox.ENDING:
        # One is enough: what is put away now must not be interrupted as well.
        signal.signal(one, signal.SIG_IGN)
    raise _InterruptedError(signal.Signals(number).name)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="begin no round after so many")
    parser.add_argument("--nodes", type=int, choices=(3, 5), default=3)
    parser.add_argument("--seed", type=int, help="repeats the decisions of a run")
    parser.add_argument("--faults", default="", help="only those whose name contains this")
    parser.add_argument("--directory", type=Path, help="where a run that fails leaves its traces")
    parser.add_argument("--keep", action="store_true", help="leave the traces in any case")
    options = parser.parse_args(arguments)
    if not any(options.faults in fault.name for fault in FAULTS):
        parser.error(f"--faults: there are only {', '.join(fault.name for fault in FAULTS)}")
    if options.seed is None:
        options.seed = random.SystemRandom().getrandbits(32)
    return options


def _command(options: argparse.Namespace) -> str:
    """What repeats this run."""
    only = f" FAULTS={shlex.quote(options.faults)}" if options.faults else ""
    return f"make chaos MINUTES={options.minutes:g} NODES={options.nodes} SEED={options.seed}{only}"


def _run(options: argparse.Namespace, world: World, report: Report) -> None:
    """One round after the other, until the time is over or one of them fails."""
    faults, left_out = possible()
    for words in left_out:
        say(f"left out: {words}")
    chosen = [fault for fault in faults if options.faults in fault.name]
    deck = Deck(chosen, random.Random(options.seed))
    world.start()
    number = 0
    while not number or report.seconds < options.minutes * 60:
        number += 1
        one = Round(world, number, options.seed, report)
        try:
            one.run(deck.draw())
        except BaseException:
            _keep_history(one.recorder.history, world.directory / "history.json")
            raise


def _keep_history(history: History, path: Path) -> None:
    """One line a call, one line a watch: for whoever looks into it."""
    with path.open("wb") as file:
        rows: list[Any] = [*history.operations, *history.watches]
        for row in rows:
            file.write(msgspec.json.encode(row) + b"\n")
        file.write(msgspec.json.encode({str(at): row for at, row in history.truth.items()}) + b"\n")


def _put_disks_away(world: World, *, keep: bool) -> None:
    """Small disks vanish with the run: what lies on them is copied, if it is to be kept."""
    for member in world.everybody:
        if member.slot.small_disk:
            if keep:
                with contextlib.suppress(OSError):
                    shutil.copytree(member.data_dir, world.directory / f"{member.name}.kept")
            sandbox.remove_small_disk(member.data_dir)


def _explain(error: Exception, options: argparse.Namespace, world: World) -> None:
    """What was found, where its traces are, and how to run it again."""
    for member in world.everybody:
        say(f"--- end of the log of {member.name}\n{member.log(15)}")
    if isinstance(error, ViolationError):
        say(str(error))
    else:
        say("".join(traceback.format_exception(error)))
    say(f"logs, data and history.json are in {world.directory}; to run it again:")
    say(_command(options))


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
    for number in sandbox.ENDING:
        signal.signal(number, _interrupt)
    report = Report()
    world = World(directory, options.nodes, options.seed)
    code, violations = 1, 1
    try:
        _run(options, world, report)
        code = violations = 0
    except _InterruptedError as interruption:
        say(f"ended before its time by {interruption}; the round under way was not judged")
        code, violations = EXIT_INTERRUPTED, 0
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        _explain(error, options, world)
    finally:
        keep = options.keep or bool(violations)
        world.close()
        _put_disks_away(world, keep=keep)
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)
    say(report.table(world.notes))
    if keep:
        say(f"the log of each member is in {directory} (node1.log, ...), with its data")
    else:
        say("the logs are gone; ARGS=--keep leaves them")
    say(report.summary(violations))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

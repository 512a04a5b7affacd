"""How long from starting it to its first work done? Server and command line; half a minute.

Each start is on empty data, from the moment the process is started to the first put that is
acknowledged. The command line is measured as a whole process against a node that runs.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.figures import BenchError, Goal, Section, Table
from bench.growth import both, running, section, wait_answered
from bench.parts import Options, say
from bench.systems import System

ROUNDS: Final = 5
ROUNDS_QUICK: Final = 2
PUT: Final = b'{"key":"c3RhcnQ=","value":"MQ=="}'
KEY: Final = "start"
SERVE_SECONDS_MAX: Final = 0.6
GET_SECONDS_MAX: Final = 0.2
COMMAND_SECONDS_MAX: Final = 30.0

TEXT: Final = """\
One node with no data, its files in the page cache: seconds from starting the process to the first
put that it acknowledges, over connections that are tried every 5 ms. Then the command line as a
whole process, from its start to its end, getting one key (linearizable) of a node that runs. The
systems take turns; median of {rounds}, with the lowest and the highest.

etcd's binary is native code; ours starts a Python interpreter first."""


def measure(options: Options, base_dir: Path) -> Section:
    """Start servers and commands, in turns.

    Raises:
        BenchError: One does not come up, or a command fails.
    """
    rounds = ROUNDS_QUICK if options.quick else ROUNDS
    systems = both()
    serve: dict[str, list[float]] = defaultdict(list)
    get: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        for system in systems if number % 2 == 0 else systems[::-1]:
            with running(system, base_dir):
                serve[system.name].append(_start_anew(system))
                command = _get_command(system)
                if command is not None:
                    get[system.name].append(_run(command))
            say(
                f"startup: round {number + 1}: {system.name}: serve "
                f"{serve[system.name][-1]:.2f} s, get {_last(get[system.name])}"
            )
    table = Table(
        header=["from start to", *(f"{system.name}, s" for system in systems)],
        rows=[
            ["first put acknowledged", *(_spread(serve[one.name]) for one in systems)],
            ["end of `get`", *(_spread(get[one.name]) for one in systems)],
        ],
    )
    goals = [
        _goal("`kvstore serve`, empty data, to the first put", serve, SERVE_SECONDS_MAX),
        _goal("`kvstore get`, the whole process", get, GET_SECONDS_MAX),
    ]
    text = TEXT.format(rounds=rounds)
    return section("startup", "Start", text, systems, [table], [], goals)


def _start_anew(system: System) -> float:
    """Stop it, delete its data, start it: seconds to the first put."""
    system.stop()
    shutil.rmtree(system.data_dirs[0])
    start = time.monotonic()
    system.restart(0)
    wait_answered(system, "/v3/kv/put", PUT)
    return time.monotonic() - start


def _get_command(system: System) -> Sequence[str] | None:
    """The system's own command line; None if it is not installed."""
    if system.name == "kvstore":
        return [sys.executable, "-m", "kvstore.cli", "get", KEY, f"--endpoints={system.urls[0]}"]
    program = shutil.which("etcdctl")
    return program and [
        "env",
        "ETCDCTL_API=3",
        program,
        f"--endpoints={system.urls[0]}",
        "get",
        KEY,
    ]


def _run(command: Sequence[str]) -> float:
    start = time.monotonic()
    answer = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, check=False
    )
    took = time.monotonic() - start
    if answer.returncode != 0 or KEY not in answer.stdout:
        raise BenchError(f"{' '.join(command)} failed: {answer.stderr.strip() or answer.stdout}")
    return took


def _last(values: Sequence[float]) -> str:
    return f"{values[-1]:.2f} s" if values else "not installed"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "not installed"
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _goal(what: str, found: dict[str, list[float]], most: float) -> Goal:
    median = statistics.median(found["kvstore"])
    return Goal(what=what, wanted=f"under {most} s", found=f"{median:.2f} s", met=median < most)

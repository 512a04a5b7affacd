"""Which stage of a put does a piece of code belong to? A table of paths, and stacks read by it.

A stack is one line of what ``py-spy record --format raw --threads`` writes, outermost frame first,
with how often it was seen::

    thread (812): MainThread;main (kvstore/cli/main.py:125);Driver._turn (kvstore/...) 17
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from bench.figures import BenchError


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """Code that does one thing for a put."""

    name: str
    prefixes: tuple[str, ...]
    """Of paths of modules, from the root of the tree. Of two that fit, the longer one decides."""


LOOP: Final = "event loop, and its system calls"
LOG: Final = "log"
ELSEWHERE: Final = "elsewhere"
UNSEEN: Final = "threads that were never seen"

_GRPC: Final = "kvstore/api/grpc/"
STAGES: Final = (
    Stage(name=LOOP, prefixes=("kvstore/run.py", "kvstore/cli/")),
    Stage(
        name="HTTP/1.1",
        prefixes=(
            "kvstore/api/lean/",
            "kvstore/api/http1.py",
            "kvstore/api/http1_server.py",
            "kvstore/api/websocket.py",
        ),
    ),
    Stage(
        name="HTTP/2",
        prefixes=tuple(
            f"{_GRPC}{name}.py"
            for name in (
                *("assembly", "call_stream", "events", "flow", "frames", "header_blocks"),
                *("heads", "http2", "keepalive", "lifecycle", "outbox", "server", "stream"),
            )
        ),
    ),
    Stage(
        name="messages, decoded and encoded",
        prefixes=(
            "kvstore/api/v3_json/",
            *(f"{_GRPC}{name}.py" for name in ("answers", "decode", "encode", "fast", "prepared")),
            f"{_GRPC}pb/",
            "kvstore/types/",
        ),
    ),
    Stage(
        name="calls: which one, its answer, errors",
        prefixes=("kvstore/api/", "kvstore/errors.py", "kvstore/budget.py"),
    ),
    Stage(name="service", prefixes=("kvstore/service/",)),
    Stage(name="authorisation", prefixes=("kvstore/auth/",)),
    Stage(
        name="proposals",
        prefixes=(
            "kvstore/commands.py",
            *(f"kvstore/server/{name}.py" for name in ("admission", "pacing", "proposals")),
        ),
    ),
    Stage(name="driver", prefixes=("kvstore/server/driver.py", "kvstore/server/node.py")),
    Stage(name="Raft", prefixes=("raft/",)),
    Stage(
        name="links to the peers",
        prefixes=(
            "kvstore/server/network/",
            "kvstore/server/peer_port.py",
            "kvstore/server/peers.py",
        ),
    ),
    Stage(name=LOG, prefixes=("wal/",)),
    Stage(name="apply", prefixes=("kvstore/apply/", "kvstore/server/applier.py")),
    Stage(name="store", prefixes=("kvstore/mvcc/",)),
    Stage(name="watches", prefixes=("kvstore/watch/",)),
    Stage(name="leases", prefixes=("kvstore/lease/", "kvstore/server/leases.py")),
    Stage(
        name="upkeep beside the puts: snapshots, checks, metrics",
        prefixes=("kvstore/server/", "kvstore/metrics.py", "kvstore/metrics_door.py"),
    ),
)
"""In the order in which a put meets them."""

ROWS: Final = (*(stage.name for stage in STAGES), UNSEEN, ELSEWHERE)
"""Everything that a sample or a thread can be counted to."""

_BY_PREFIX: Final = sorted(
    ((prefix, stage.name) for stage in STAGES for prefix in stage.prefixes),
    key=lambda each: -len(each[0]),
)
_OURS: Final = ("kvstore/", "raft/", "wal/")
_LOOPS: Final = ("asyncio/", "uvloop/")
_FRAME: Final = re.compile(r" \(([^()]*?)(?::-?\d+)?\)$")
_THREAD: Final = re.compile(r"^thread \((\d+)\)")


def of_module(path: str) -> str:
    """The stage of a module by its path (``raft/log.py``)."""
    for prefix, name in _BY_PREFIX:
        if path.startswith(prefix):
            return name
    return ELSEWHERE


def of_paths(paths: Sequence[str]) -> str:
    """The stage of a stack by the paths of its frames, outermost first.

    That of the innermost module of ours: a library works for whoever called it. A stack that holds
    none is a piece of one, as a sampler gets that does not stop the process; it is the loop's if it
    shows the loop.
    """
    for path in reversed(paths):
        if path.startswith(_OURS):
            return of_module(path)
    return LOOP if any(path.startswith(_LOOPS) for path in paths) else ELSEWHERE


def count(raw: str) -> dict[int, Counter[str]]:
    """How many samples of each thread (its id in the kernel) fall to each stage.

    Raises:
        BenchError: A line is no stack.
    """
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for line in raw.splitlines():
        stack, _, number = line.rpartition(" ")
        thread = _THREAD.match(stack)
        if thread is None or not number.isdigit():
            raise BenchError(f"py-spy wrote a line that is no stack of a thread: {line[:200]!r}")
        frames = [_FRAME.search(frame) for frame in stack.split(";")[1:]]
        paths = [frame[1] for frame in frames if frame is not None]
        found[int(thread[1])][of_paths(paths)] += int(number)
    return dict(found)


def share(
    cpu_us: Mapping[int, float],
    samples: Mapping[int, Counter[str]],
    resting: Mapping[int, str],
) -> dict[str, float]:
    """The CPU time of threads by stages, in microseconds: the sum is that of ``cpu_us``.

    Each thread's time is shared out by its own samples: how often a thread is seen depends on what
    it waits for, so samples of two threads are not worth the same.

    Args:
        cpu_us: What each thread (its id in the kernel) has spent.
        samples: As counted.
        resting: Where a thread waits for work. One that was never seen at work is counted there.
    """
    found: dict[str, float] = defaultdict(float)
    for thread, spent in cpu_us.items():
        seen = samples.get(thread) or Counter({resting.get(thread, UNSEEN): 1})
        total = sum(seen.values())
        for name, number in seen.items():
            found[name] += spent * number / total
    return dict(found)

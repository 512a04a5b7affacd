"""Which stage of a put does a piece of code belong to? A table of paths, and arithmetic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """Code that does one thing for a put."""

    name: str
    prefixes: tuple[str, ...]
    """Of paths of modules, from the root of the tree. Of two that fit, the longer one decides."""


LOOP: Final = "event loop, and its system calls"
LOG: Final = "log"
COLLECTOR: Final = "garbage collector"
ELSEWHERE: Final = "elsewhere"
UNSEEN: Final = "threads that were never seen"

ROOT: Final = f"{Path(__file__).parents[1]}/"
_OURS: Final = ("kvstore/", "raft/", "wal/")
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

ROWS: Final = (*(stage.name for stage in STAGES), COLLECTOR, UNSEEN, ELSEWHERE)
"""Everything that a sample or a thread can be counted to."""

_BY_PREFIX: Final = sorted(
    ((prefix, stage.name) for stage in STAGES for prefix in stage.prefixes),
    key=lambda each: -len(each[0]),
)


def of_module(path: str) -> str:
    """The stage of a module by its path (``raft/log.py``)."""
    for prefix, name in _BY_PREFIX:
        if path.startswith(prefix):
            return name
    return ELSEWHERE


def of_stack(files: Sequence[str]) -> str:
    """The stage of a stack by the files of its functions, innermost first.

    That of the innermost module of ours: a library works for whoever called it.
    """
    for file in files:
        path = file.removeprefix(ROOT)
        if path.startswith(_OURS):
            return of_module(path)
    return ELSEWHERE


def share(
    cpu_us: Mapping[int, float],
    samples: Mapping[int, Mapping[str, int]],
    resting: Mapping[int, str],
) -> dict[str, float]:
    """The CPU time of threads by stages, in microseconds: the sum is that of ``cpu_us``.

    The time of a thread that was sampled is shared out by its samples; the rest is each counted to
    one stage.

    Args:
        cpu_us: What each thread (its id in the kernel) has spent.
        samples: Of those threads that were sampled, how many fell to each stage.
        resting: Where a thread waits for work: the time of one without samples is counted there.
    """
    found: dict[str, float] = defaultdict(float)
    for thread, spent in cpu_us.items():
        seen = samples.get(thread) or {resting.get(thread, UNSEEN): 1}
        total = sum(seen.values())
        for name, number in seen.items():
            found[name] += spent * number / total
    return dict(found)

"""One node of PySyncObj: a replicated dict, its journal on the disk, and its own load.

PySyncObj has no door for clients, so the load is made in the leader's process. It is told on its
standard input what to do, a word a line, and answers with one line of JSON each:

    status          whether it leads, and how far it has applied its log
    load SECONDS    put in a closed loop for so long; the answer is a ``bench.load.Run``

It ends with its input.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from bench.load import Run
from bench.systems import KEYS, VALUE

UNDER_WAY: Final = 64
STRIDE: Final = 7_919
"""Shares no factor with the number of keys, as in load.lua."""
END_SECONDS_MAX: Final = 30.0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Where a node is."""

    leads: bool
    applied: int
    """The index of its log up to which the dict holds it."""


class Load:
    """So many puts under way at all times: each that is done makes the next.

    ``store.set`` calls back on the thread that runs PySyncObj, which makes the next one there:
    nothing is handed from thread to thread but the first ones.
    """

    def __init__(self, store: Any, seconds: float, success: object) -> None:
        self._store = store
        self._success = success
        self._numbers = itertools.count()
        self._end_s = time.monotonic() + seconds
        self._under_way = UNDER_WAY
        self._refused = 0
        self._times_us: list[int] = []
        self._ended = threading.Event()

    def run(self) -> Run:
        """Do it; a put that is not answered in time is ``broken``."""
        began_s = time.monotonic()
        for _ in range(UNDER_WAY):
            self._put()
        self._ended.wait(self._end_s - began_s + END_SECONDS_MAX)
        times = sorted(self._times_us)
        return Run(
            requests=len(times) + self._refused,
            duration_us=round((time.monotonic() - began_s) * 1e6),
            p50_us=times[len(times) // 2] if times else 0,
            p99_us=times[len(times) * 99 // 100] if times else 0,
            refused=self._refused,
            broken=self._under_way,
        )

    def _put(self) -> None:
        key = f"key-{next(self._numbers) * STRIDE % KEYS:05d}"
        done = functools.partial(self._done, time.monotonic())
        self._store.set(key, VALUE, callback=done)

    def _done(self, began_s: float, result: object, error: object) -> None:
        """One put is committed and applied here, or refused."""
        del result
        now_s = time.monotonic()
        if error == self._success:
            self._times_us.append(round((now_s - began_s) * 1e6))
        else:
            self._refused += 1
        if now_s < self._end_s:
            self._put()
            return
        self._under_way -= 1
        if not self._under_way:
            self._ended.set()


@click.command()
@click.argument("addresses", nargs=-1, required=True)
@click.option("--journal", type=click.Path(path_type=Path), required=True)
@click.option("--at-once", is_flag=True, help="Send each put on at once, not in batches.")
def main(addresses: tuple[str, ...], journal: Path, *, at_once: bool) -> None:
    """Run a node at the first of ADDRESSES (host:port); the others are its peers."""
    library: Any = importlib.import_module("pysyncobj")
    store: Any = importlib.import_module("pysyncobj.batteries").ReplDict()
    settings = library.SyncObjConf(
        journalFile=str(journal),
        # Without a file for it, the dump that replaces a part of the journal is in memory alone:
        # it is compressed between two puts, and the dict is gone with the process.
        fullDumpFile=f"{journal}.dump",
        appendEntriesUseBatch=not at_once,
    )
    node = library.SyncObj(addresses[0], list(addresses[1:]), settings, consumers=[store])
    for line in sys.stdin:
        word, _, seconds = line.strip().partition(" ")
        answer: msgspec.Struct
        if word == "load":
            answer = Load(store, float(seconds), library.FAIL_REASON.SUCCESS).run()
        else:
            leader = node.isReady() and str(node.getStatus()["leader"]) == addresses[0]
            answer = Status(leads=leader, applied=node.raftLastApplied)
        print(msgspec.json.encode(answer).decode(), flush=True)
    node.destroy()


if __name__ == "__main__":
    main()

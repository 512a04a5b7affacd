"""Comes before a member's own code: a wrong wall clock, a slow disk, haste in reading it again.

Python imports ``sitecustomize`` from its path before anything else; a member that is to be
tampered with has this directory there. Nothing of the product knows of it.

``CHAOS_WALL_OFFSET``: seconds by which ``time.time`` is wrong. ``CHAOS_SLOW_DISK``: the name of a
file; while it is there, each sync first takes as many seconds as it says, and the file
``CHAOS_SLOWED_SYNCS`` grows by a byte (those of the log by a thread: the kernel has no room for
them). ``CHAOS_SCRUB_PAUSE``: seconds between two passes over the
disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable

_offset = float(os.environ.get("CHAOS_WALL_OFFSET", "0"))
_slow = os.environ.get("CHAOS_SLOW_DISK", "")
_slowed_syncs = os.environ.get("CHAOS_SLOWED_SYNCS", os.devnull)
_scrub_pause = os.environ.get("CHAOS_SCRUB_PAUSE", "")

if _offset:
    _time, _time_ns = time.time, time.time_ns  # noqa: TID251 - it is the one that is changed
    _offset_ns = int(_offset * 1e9)
    time.time = lambda: _time() + _offset  # noqa: TID251
    time.time_ns = lambda: _time_ns() + _offset_ns


def _slowed(sync: Callable[[int], None]) -> Callable[[int], None]:
    pause = time.sleep

    def slow(descriptor: int) -> None:
        with contextlib.suppress(OSError, ValueError), open(_slow, encoding="ascii") as said:
            pause(float(said.read()))
            with open(_slowed_syncs, "ab") as slowed:
                slowed.write(b".")
        sync(descriptor)

    return slow


if _slow:
    from wal.aio import Calls

    _submit_sync = Calls.submit_sync

    def _refuse(calls: Calls, context: int, descriptor: int, signal: int, number: int) -> None:
        if os.path.exists(_slow):
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        _submit_sync(calls, context, descriptor, signal, number)

    Calls.submit_sync = _refuse  # type: ignore[method-assign,assignment]
    os.fdatasync = _slowed(os.fdatasync)  # type: ignore[assignment]
    os.fsync = _slowed(os.fsync)  # type: ignore[assignment]

if _scrub_pause:
    from kvstore.server import scrub

    scrub.PAUSE_SECONDS = float(_scrub_pause)

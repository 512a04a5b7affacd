"""Comes before a member's own code: it hears late that the kernel has synced something.

Python imports ``sitecustomize`` from its path before anything else. ``LATE_SYNCS_SECONDS``: how
late. Everything else goes on meanwhile, as with a slow disk.
"""

from __future__ import annotations

import asyncio
import os

from wal import aio, files

_seconds = float(os.environ["LATE_SYNCS_SECONDS"])
_on_signal = aio.KernelSync._on_signal


def _late(syncs: aio.KernelSync) -> None:
    syncs._readers.remove_reader(syncs._signal)

    def go_on() -> None:
        if syncs.is_busy:
            syncs._readers.add_reader(syncs._signal, syncs._on_signal)
            _on_signal(syncs)

    asyncio.get_running_loop().call_later(_seconds, go_on)


aio.KernelSync._on_signal = _late  # type: ignore[method-assign,assignment]
# Or the thread would be trusted with what is slow.
files.SLOW_SYNC_SECONDS = 10 * _seconds  # type: ignore[misc]

"""Can this system sync a file without a thread?"""

from __future__ import annotations

from wal.aio import Calls


def why_not() -> str:
    """What it lacks; empty if it can."""
    try:
        calls = Calls()
        calls.destroy(calls.setup())
    except OSError as error:
        return f"the kernel lets us have no asynchronous I/O: {error}"
    return ""

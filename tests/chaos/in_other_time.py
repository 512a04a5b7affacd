"""``python -m tests.chaos.in_other_time SECONDS COMMAND…``: run it with another monotonic clock.

The command takes this process's place, so it keeps its id. Linux only (time_namespaces(7)); needs
the right to make namespaces.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

CLONE_NEWTIME: Final = 0x80


def enter(seconds: int) -> None:
    """Let this process's monotonic clock be so many seconds ahead.

    Raises:
        OSError: The machine does not allow it.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(CLONE_NEWTIME):
        raise OSError(ctypes.get_errno(), "no time namespace")
    offsets = f"monotonic {seconds} 0\nboottime {seconds} 0\n"
    Path("/proc/self/timens_offsets").write_text(offsets)
    # The new namespace is that of children; a process with one thread may enter it itself.
    with Path("/proc/self/ns/time_for_children").open("rb") as namespace:
        if library.setns(namespace.fileno(), CLONE_NEWTIME):
            raise OSError(ctypes.get_errno(), "the time namespace cannot be entered")


if __name__ == "__main__":
    enter(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])

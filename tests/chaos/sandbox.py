"""Namespaces of the kernel: networks, mounts and processes that vanish with the run.

A run puts itself into namespaces of its own before it begins, where the machine allows it. In
there each member has a machine's network of its own, whose link can go down, and small disks that
fill up; whatever happens to the run, nothing of it stays behind. Elsewhere the run goes on without
them, and says what it leaves out.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

INSIDE: Final = "CHAOS_INSIDE"
PROBE_SECONDS: Final = 10.0
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a run before its time, in good order."""
BRIDGE: Final = "chaos0"
NETWORK: Final = "10.77.0"
OUR_HOST: Final = f"{NETWORK}.1"
FIRST_HOST: Final = 10
SMALL_DISK_BYTES: Final = 48 * 1024 * 1024

# Whoever is killed takes along what it started: the process outside takes unshare, which takes the
# first process inside, with which the kernel ends all others there.
_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")
_UNSHARE: Final = (
    "unshare",
    "--mount",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)
# Names of networks are files below /run: with a file system of our own there, they are only ours.
_PREPARE: Final = "mount -t tmpfs chaos /run && ip link set lo up"


def _works(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def enter(arguments: Sequence[str]) -> None:
    """Run this module's command again inside, and end as it ends; returns if it cannot be."""
    if INSIDE in os.environ:
        return
    for user in ((), ("--map-root-user",)):
        into = (*_WITH_US, *_UNSHARE, *user)
        if _works([*into, "sh", "-c", _PREPARE]):
            sys.exit(_lead([*into, sys.executable, "-m", "tests.chaos", *arguments]))


def _lead(command: Sequence[str]) -> int:
    """Run the command, and hand on what it is told; returns how it ended.

    ``unshare`` itself is deaf to all but SIGKILL, and what is inside is not in our terminal's
    group, so that it hears each signal once.
    """
    process: subprocess.Popen[bytes] | None = None

    def hand_on(number: int, _: FrameType | None) -> None:
        if process is None:
            raise SystemExit(128 + number)
        with contextlib.suppress(OSError, ValueError):
            inside = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(inside[0]) if inside else process.pid, signal.SIGTERM)

    for number in ENDING:
        signal.signal(number, hand_on)
    process = subprocess.Popen(
        command, env={**os.environ, INSIDE: "1"}, start_new_session=True, stdin=subprocess.DEVNULL
    )
    return process.wait()


def is_inside() -> bool:
    """Whether this process is in namespaces of its own."""
    return INSIDE in os.environ


def can_change_clocks() -> bool:
    """Whether a member can be given another monotonic clock."""
    return _works([sys.executable, "-m", "tests.chaos.in_other_time", "1000", "true"])


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=PROBE_SECONDS)


def prepare() -> None:
    """Make the network that all members' networks are linked with."""
    _run("sh", "-c", _PREPARE)
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{OUR_HOST}/24", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")


def make_network(name: str, number: int) -> str:
    """A network for one member; returns its address."""
    host = f"{NETWORK}.{FIRST_HOST + number}"
    _run("ip", "netns", "add", name)
    _run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    _run("ip", "link", "set", name, "master", BRIDGE, "up")
    _run("ip", "-n", name, "link", "set", "lo", "up")
    _run("ip", "-n", name, "address", "add", f"{host}/24", "dev", "eth0")
    _run("ip", "-n", name, "link", "set", "eth0", "up")
    return host


def set_link(name: str, *, up: bool) -> None:
    """Plug a member's network cable in, or pull it out."""
    _run("ip", "link", "set", name, "up" if up else "down")


def make_small_disk(directory: Path) -> None:
    """Give a directory a file system of its own that is soon full."""
    directory.mkdir(parents=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "chaos", str(directory))


def remove_small_disk(directory: Path) -> None:
    """Take it away, with all that is on it."""
    _run("umount", "--lazy", str(directory))

"""Who runs while the prototype is measured? Nodes with a door for workers, and groups of workers.

One node serves all: its own port is today's single process, and each group of workers has a port of
its own. Whoever is not asked costs nothing, so that turns may alternate between them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from bench.figures import BenchError
from bench.parts import say
from bench.scaling.worker import HOST
from bench.systems import System
from kvstore.cli.processes import Child, stop_all
from kvstore.client import Client
from kvstore.version import KVSTORE_VERSION

FIRST_PORT: Final = 20_000
PORTS_A_RIG: Final = 400
READY_SECONDS: Final = 20.0


class Rig:
    """So many nodes, and groups of workers in front of the one that leads.

    Args:
        base_dir: Where data and logs go.
        nodes: How many; 1 or 3.
        groups: How many workers each group has.
        number: Which rig of this run: each has ports of its own.
    """

    def __init__(
        self, base_dir: Path, *, nodes: int = 1, groups: tuple[int, ...] = (), number: int = 0
    ) -> None:
        first_port = FIRST_PORT + number * PORTS_A_RIG
        self._base_dir = base_dir / f"rig-{number}"
        # Not beside the data: the path of a Unix socket has 107 bytes at most.
        self._sockets = tempfile.TemporaryDirectory(prefix="kvstore-scaling-")
        program = [sys.executable, "-m", "bench.scaling.replica", self._sockets.name]
        version = f"kvstore {KVSTORE_VERSION}"
        self.system = System("kvstore", version, program, first_port, nodes=nodes)
        self._ports = {size: first_port + 50 + size for size in groups}
        self._workers: dict[int, list[Child]] = {}

    def start(self) -> None:
        """Start and fill the nodes, and the workers once their node is there.

        Raises:
            BenchError: One does not come up.
        """
        say(f"starting {len(self.system.peer_ports)} node(s) and {sum(self._ports)} workers")
        self.system.start(self._base_dir)
        self._wait(lambda: all(path.exists() for path in self._paths()), "node")
        self.system.fill()
        leads = self.socket(self.system.leader())
        for size, port in self._ports.items():
            command = [sys.executable, "-m", "bench.scaling.worker", str(leads), str(port)]
            self._workers[size] = [
                Child(f"worker {size}.{number}", command, self._base_dir / f"{size}.{number}.log")
                for number in range(size)
            ]
        for size in self._ports:
            self._wait(partial(self._is_open, size), "worker")

    def _paths(self) -> list[Path]:
        return [self.socket(position) for position in range(len(self.system.peer_ports))]

    def socket(self, position: int) -> Path:
        """Where a node serves workers."""
        return Path(self._sockets.name, f"node{position + 1}")

    def url(self, workers: int) -> str:
        """Where so many workers serve clients; 0: the node itself."""
        return f"http://{HOST}:{self._ports[workers]}" if workers else self.system.leader_url()

    def worker_pids(self, workers: int) -> list[int]:
        """The processes of a group; none of 0 workers."""
        return [child.pid for child in self._workers.get(workers, [])]

    @property
    def pids(self) -> list[int]:
        """All processes: nodes and workers."""
        return [
            *self.system.pids,
            *(pid for size in self._workers for pid in self.worker_pids(size)),
        ]

    def compact(self) -> None:
        """Forget the history, or the later rounds would be of a larger store."""
        with Client([self.system.leader_url()]) as client:
            header = client.get(b"key-00000").header
            if header is not None:
                client.compact(header.revision, physical=True)

    def stop(self) -> None:
        """Stop the workers, then the nodes."""
        stop_all(child for group in self._workers.values() for child in group)
        self.system.stop()
        self._sockets.cleanup()

    def _is_open(self, size: int) -> bool:
        """Whether each worker of a group listens: its connections are dealt out by chance."""
        for child in self._workers[size]:
            if not child.is_alive():
                raise BenchError(f"{child.name} {child.ended_how()}:\n{child.last_words()}")
        return listeners(Path("/proc/net/tcp").read_text(), self._ports[size]) == size

    def _wait(self, is_there: Callable[[], bool], who: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not is_there():
            self.system.check_alive()
            if time.monotonic() > deadline:
                raise BenchError(f"no {who} is ready after {READY_SECONDS:.0f} s")
            time.sleep(0.05)


def listeners(table: str, port: int) -> int:
    """How many sockets listen on a port, by the text of ``/proc/net/tcp``."""
    wanted = f":{port:04X}"
    count = 0
    for line in table.splitlines()[1:]:
        fields = line.split()
        count += len(fields) > 3 and fields[1].endswith(wanted) and fields[3] == "0A"
    return count

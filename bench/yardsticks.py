"""How are the stores started and loaded that promise something else? Redis and PySyncObj."""

from __future__ import annotations

import csv
import importlib.metadata
import importlib.util
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

import msgspec

from bench.figures import BenchError
from bench.load import Run
from bench.pysyncobj_node import END_SECONDS_MAX, Status
from bench.systems import KEYS, VALUE
from kvstore.cli.cluster_nodes import HOST
from kvstore.cli.processes import Child, stop_all

CONNECTIONS: Final = 64
READY_SECONDS: Final = 30.0
SLOWER_MAX: Final = 10
WARM_PUTS: Final = 5_000

_SET_CALLS: Final = re.compile(r"cmdstat_set:calls=(\d+)")
_FAILED: Final = re.compile(r"cmdstat_set:.*?rejected_calls=(\d+),failed_calls=(\d+)")
_APPLIED_AND_CUT: Final = "truncating already-applied log entries"


class Redis:
    """One server that syncs its append-only file before it answers."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._children: list[Child] = []
        self._per_second = 0.0
        self.version = f"Redis {_redis_version()}"

    @property
    def pids(self) -> list[int]:
        """The one process."""
        return [child.pid for child in self._children]

    def start(self, base_dir: Path) -> None:
        """Start it on empty data, and find out about how fast it is.

        Raises:
            BenchError: It does not come up, or would not sync each write.
        """
        directory = base_dir / "redis"
        directory.mkdir()
        options = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        place = ["--bind", HOST, "--port", str(self._port), "--dir", str(directory.absolute())]
        arguments = ["redis-server", *place, *options]
        self._children = [Child("redis", arguments, base_dir / "redis.log")]
        deadline = time.monotonic() + READY_SECONDS
        while "aof_enabled:1" not in self._try_ask("INFO persistence"):
            if not self._children[0].is_alive() or time.monotonic() > deadline:
                words = self._children[0].last_words()
                raise BenchError(f"Redis does not come up on port {self._port}:\n{words}")
            time.sleep(0.05)
        if "always" not in self._ask("CONFIG GET appendfsync"):
            raise BenchError("Redis does not sync each write (CONFIG GET appendfsync)")
        self._per_second = self._put(WARM_PUTS, READY_SECONDS).rate

    def put(self, seconds: int) -> Run:
        """Put from 64 connections for about so long: redis-benchmark counts puts, not seconds.

        Raises:
            BenchError: redis-benchmark failed, or Redis did not write what it answered.
        """
        puts = max(round(self._per_second * seconds), CONNECTIONS)
        # As many as it did in the turn before take longer where the machine has become slower.
        found = self._put(puts, SLOWER_MAX * seconds + READY_SECONDS)
        self._per_second = found.rate
        return found

    def _put(self, puts: int, seconds_max: float) -> Run:
        before = self._ask("INFO commandstats")
        options = [*("-t", "set"), *("-d", str(len(VALUE))), *("-r", str(KEYS)), "--csv"]
        place = [*("-h", HOST), *("-p", str(self._port)), *("-c", str(CONNECTIONS))]
        answer = subprocess.run(
            ["redis-benchmark", *place, *options, "-n", str(puts), "--precision", "3"],
            capture_output=True,
            text=True,
            timeout=seconds_max,
            check=False,
        )
        found = parse_redis(answer.stdout, puts)
        if answer.returncode != 0 or found is None:
            raise BenchError(f"redis-benchmark failed: {answer.stderr or answer.stdout}")
        after = self._ask("INFO commandstats")
        if sets_done(after) - sets_done(before) < puts:
            raise BenchError(f"redis-benchmark counted {puts} puts, Redis fewer")
        return found

    def _ask(self, command: str) -> str:
        """The answer to a command, as it comes; no argument may hold a blank."""
        with socket.create_connection((HOST, self._port), timeout=READY_SECONDS) as connection:
            connection.sendall(f"{command}\r\nQUIT\r\n".encode())
            with connection.makefile("rb") as answers:
                return answers.read().decode(errors="replace")

    def _try_ask(self, command: str) -> str:
        try:
            return self._ask(command)
        except OSError:
            return ""

    def stop(self) -> None:
        """End it."""
        stop_all(self._children)


def redis() -> str | None:
    """The path of redis-server, if it and redis-benchmark are installed."""
    return shutil.which("redis-server") and shutil.which("redis-benchmark")


def _redis_version() -> str:
    answer = subprocess.run(
        ["redis-server", "--version"], capture_output=True, text=True, check=True
    )
    found = re.search(r"v=(\S+)", answer.stdout)
    return found[1] if found else "of an unknown version"


def parse_redis(output: str, puts: int) -> Run | None:
    """What ``redis-benchmark --csv`` printed as a run; None if it is something else."""
    rows = list(csv.DictReader(output.splitlines()))
    try:
        (row,) = rows
        return Run(
            requests=puts,
            duration_us=round(puts / float(row["rps"]) * 1e6),
            p50_us=round(float(row["p50_latency_ms"]) * 1e3),
            p99_us=round(float(row["p99_latency_ms"]) * 1e3),
            refused=0,
            broken=0,
        )
    except (ValueError, KeyError, ZeroDivisionError):
        return None


def sets_done(stats: str) -> int:
    """How many SETs ``INFO commandstats`` counts as done.

    Raises:
        BenchError: Some were refused, or failed.
    """
    calls, failed = _SET_CALLS.search(stats), _FAILED.search(stats)
    if failed is not None and failed.groups() != ("0", "0"):
        raise BenchError(f"Redis refused puts: {failed[0]}")
    return int(calls[1]) if calls else 0


class PySyncObj:
    """Three nodes of the library, each a process of ours around it."""

    def __init__(self, first_port: int, *, at_once: bool) -> None:
        self._addresses = [f"{HOST}:{first_port + number}" for number in range(3)]
        self._at_once = at_once
        self._processes: list[subprocess.Popen[str]] = []
        self._logs: list[Path] = []
        self.version = f"PySyncObj {importlib.metadata.version('pysyncobj')}"

    @property
    def pids(self) -> list[int]:
        """The processes of the nodes."""
        return [process.pid for process in self._processes]

    def start(self, base_dir: Path) -> None:
        """Start the nodes on empty journals and wait for a leader.

        Raises:
            BenchError: They do not find one.
        """
        directory = base_dir / f"pysyncobj-{self._at_once}"
        directory.mkdir()
        for number, address in enumerate(self._addresses):
            others = [other for other in self._addresses if other != address]
            command = [
                *(sys.executable, "-m", "bench.pysyncobj_node", address, *others),
                f"--journal={directory / f'journal-{number}'}",
                *(["--at-once"] if self._at_once else []),
            ]
            self._logs.append(directory / f"log-{number}")
            with self._logs[-1].open("w") as log:
                self._processes.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        text=True,
                        # It imports this package.
                        cwd=Path(__file__).parents[1],
                    )
                )
        self.leader()

    def leader(self) -> int:
        """Which node leads, as its position.

        Raises:
            BenchError: None does, or one has ended.
        """
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            for number in range(len(self._processes)):
                if self._status(number).leads:
                    return number
            time.sleep(0.05)
        raise BenchError(f"{self.version} has no leader after {READY_SECONDS:.0f} s")

    def put(self, seconds: int) -> Run:
        """Keep 64 puts under way on the leader for so long.

        Raises:
            BenchError: A node has ended, or what was answered is not in the logs.
        """
        leader = self.leader()
        before = self._status(leader).applied
        run = msgspec.json.decode(
            self._tell(leader, f"load {seconds}", seconds + END_SECONDS_MAX), type=Run
        )
        grown = self._status(leader).applied - before
        if grown < run.succeeded:
            raise BenchError(f"{self.version}: {run.succeeded} puts were answered, {grown} done")
        moved = self.leader() != leader
        return msgspec.structs.replace(run, leader_moved=moved)

    def _status(self, number: int) -> Status:
        return msgspec.json.decode(self._tell(number, "status"), type=Status)

    def _tell(self, number: int, words: str, seconds: float = 0.0) -> str:
        process = self._processes[number]
        stdin, stdout = _pipe(process.stdin), _pipe(process.stdout)
        answer = ""
        try:
            stdin.write(f"{words}\n")
            stdin.flush()
            # A question has one line of answer, so none is left in the buffer behind our back.
            if select.select([stdout], [], [], seconds + READY_SECONDS)[0]:
                answer = stdout.readline()
        except OSError as error:
            raise BenchError(f"node {number} of {self.version} has ended: {error}") from error
        if not answer:
            raise BenchError(f"node {number} of {self.version} does not answer: see its log")
        return answer

    def applied_and_cut(self) -> int:
        """How often its nodes have logged that they cut entries off which they had applied."""
        return sum(log.read_text().count(_APPLIED_AND_CUT) for log in self._logs)

    def stop(self) -> None:
        """End the nodes."""
        for process in self._processes:
            process.kill()
            process.communicate()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "asked for when the process was started"
    return pipe


def pysyncobj() -> Path | None:
    """Where the library's source is, if it is installed."""
    found = importlib.util.find_spec("pysyncobj")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a library does not promise, and what in its source shows it."""

    says: str
    file: str
    text: str
    there: bool
    """Whether the text must be in the file, or must not be."""


PYSYNCOBJ_CLAIMS: Final = (
    Claim(
        says="an answered put survives a loss of power: the journal is mapped memory, and what "
        "would sync it is never called while a node runs",
        file="syncobj.py",
        text="flush",
        there=False,
    ),
    Claim(
        says="term and vote survive a loss of power: they are written before they are told, and "
        "not synced",
        file="journal.py",
        text="fsync",
        there=False,
    ),
    Claim(
        says="damage to the journal is noticed: there are no checksums",
        file="journal.py",
        text="crc",
        there=False,
    ),
    Claim(
        says="bytes from the network are only data: they are unpickled, anybody's unless a "
        "password is set",
        file="tcp_connection.py",
        text="pickle.loads(",
        there=True,
    ),
)
"""Read in version 0.3.17."""


def hold(source: Path, claims: Sequence[Claim] = PYSYNCOBJ_CLAIMS) -> list[Claim]:
    """Those that the source that is installed still shows: of another version others may."""
    found = []
    for claim in claims:
        path = source / claim.file
        if path.is_file() and (claim.text in path.read_text()) == claim.there:
            found.append(claim)
    return found

"""The processes of a run: how each is started, who leads, and what they must be like in the end."""

from __future__ import annotations

import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from kvstore.cli.cluster_nodes import Node
from kvstore.errors import KvError
from tests.chaos import sandbox
from tests.chaos.wires import Wires
from tests.checking.violation import ViolationError
from tests.e2e.cluster import HOST, free_ports
from tests.e2e.processes import READY_LINE, Member, wait_for

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parents[2]
TAMPERED: Final = Path(__file__).parent / "tampered"
READY_SECONDS: Final = 60.0
"""Generous: the machine may have other work."""
SETTLE_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.2
FLAGS: Final = (
    # Small, so that segments and snapshots come and go within a round.
    "--snapshot-count=1500",
    "--snapshot-catchup-entries=200",
    "--wal-segment-bytes=1048576",
    "--corrupt-check-time=2s",
    "--watch-progress-notify-interval=1s",
)
SCRUB_PAUSE_SECONDS: Final = 3.0
"""Between two passes of a member over its own disk; in production it is a minute."""
TRACEBACK: Final = "Traceback (most recent call last)"


class Slot(msgspec.Struct, frozen=True):
    """Where a member lives. ``network``: the name of its own, "" if it shares the machine's."""

    node: Node
    host: str
    relay: tuple[str, int]
    network: str
    small_disk: bool

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def client_url(self) -> str:
        """Where clients reach it."""
        return f"http://{self.host}:{self.node.client_port}"

    @property
    def peer_url(self) -> str:
        """Where the others reach it: by way of the relay."""
        return "http://{}:{}".format(*self.relay)


class ChaosMember(Member):
    """A member whose surroundings can be changed between its lives.

    Attributes:
        expected: Whether it is meant to run: whoever ends it says so before.
        wall_offset_seconds: By how much its wall clock is wrong, from the next start on.
        monotonic_ahead_seconds: And its monotonic one.
        joins: Whether it is started to join a cluster that is there.
        replaces_itself: Whether it is started with ``--replace-damaged-member``.
        closed: Whether the run is over, and it is not to be started again.
        member_id: As it last said.
    """

    def __init__(self, slot: Slot, founders: Sequence[Slot], workshop: Path) -> None:
        super().__init__(slot.node, [slot.node])
        self.slot = slot
        self.client_url = slot.client_url
        self.expected = False
        self.wall_offset_seconds = 0.0
        self.monotonic_ahead_seconds = 0
        self.joins = False
        self.replaces_itself = False
        self.closed = False
        self.member_id = 0
        self.slow_disk = workshop / f"{slot.name}.slow"
        self.slowed_syncs = workshop / f"{slot.name}.slowed"
        """Grows by a byte with each sync that was slow."""
        self._cluster = list(founders)

    def start(self) -> None:
        """Start a process; ``wait_ready`` waits until it serves."""
        if self.closed:
            raise RuntimeError(f"{self.name} is not started: the run is over")
        self._arguments = self._command()
        super().start()
        self.expected = True

    def _command(self) -> list[str]:
        slot = self.slot
        cluster = [*self._cluster, *([] if slot in self._cluster else [slot])]
        into = ["nsenter", f"--net=/run/netns/{slot.network}", "--"] if slot.network else []
        ahead = self.monotonic_ahead_seconds
        launcher = [sys.executable, "-m", "tests.chaos.in_other_time", str(ahead)] if ahead else []
        peers = f"http://{slot.host}:{slot.node.peer_port}"
        return [
            *into,
            "env",
            f"PYTHONPATH={TAMPERED}:{ROOT}",
            f"CHAOS_WALL_OFFSET={self.wall_offset_seconds}",
            f"CHAOS_SLOW_DISK={self.slow_disk}",
            f"CHAOS_SLOWED_SYNCS={self.slowed_syncs}",
            f"CHAOS_SCRUB_PAUSE={SCRUB_PAUSE_SECONDS}",
            *launcher,
            *(sys.executable, "-m", "kvstore.cli", "serve", f"--name={slot.name}"),
            f"--data-dir={slot.node.data_dir}",
            f"--listen-client-urls={slot.client_url}",
            f"--advertise-client-urls={slot.client_url}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={slot.peer_url}",
            f"--initial-cluster={','.join(f'{one.name}={one.peer_url}' for one in cluster)}",
            f"--initial-cluster-state={'existing' if self.joins else 'new'}",
            *FLAGS,
            *(["--replace-damaged-member"] if self.replaces_itself else []),
        ]

    def empty(self) -> None:
        """Leave nothing of its data; the directory may be a mount, so it stays."""
        for path in sorted(self.data_dir.glob("*")):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until its newest process says that it serves."""
        if not self.wait_ready_or_end(seconds):
            raise ViolationError("no surprise", f"{self.name} ended at its start:\n{self.log(12)}")

    def wait_ready_or_end(self, seconds: float = READY_SECONDS) -> bool:
        """Wait until it serves (True), or has refused to and ended (False)."""

        def look() -> str:
            if not self.is_running:
                return "ended"
            return "ready" if READY_LINE in self._log_bytes() else ""

        return wait_for(f"{self.name} is ready or has ended", look, seconds) == "ready"

    def end_by(self, end: Callable[[], object]) -> None:
        """End its process on purpose, in whichever way."""
        self.expected = False
        end()

    def last_life(self) -> str:
        """What its newest process logged."""
        return self._log_bytes().decode(errors="replace")

    def learn_id(self) -> int:
        """Ask it who it is."""
        header = self.status().header
        assert header is not None
        self.member_id = header.member_id
        return self.member_id


class World:
    """All members, the network between them, and who is just being hurt.

    Args:
        directory: For everything that the run leaves behind.
        size: How many found the cluster; there is room for one more.
        seed: Of the relay.
    """

    def __init__(self, directory: Path, size: int, seed: int) -> None:
        self.directory = directory
        self._slots = _plan(directory, size)
        self.members = [ChaosMember(slot, self._slots[:size], directory) for slot in self._slots]
        self.spare = self.members.pop()
        self._seed = seed
        self._claims = threading.Lock()
        self._claimed: set[str] = set()
        self.revision_seen: Callable[[], int] = lambda: 0
        """Up to which revision the truth of the present round is known."""
        self.compactions: list[int] = []
        """The revisions to which history was compacted."""
        self.notes: Counter[str] = Counter()
        """What came of faults that may end in several ways."""
        self.wires: Wires

    @property
    def size(self) -> int:
        """How many members there are."""
        return len(self.members)

    @property
    def everybody(self) -> list[ChaosMember]:
        """All members, and the one that comes and goes."""
        return [*self.members, self.spare]

    def start(self) -> None:
        """Found the cluster."""
        names = [slot.name for slot in self._slots]
        self.wires = Wires(names, self._seed, self.directory / "relay.log")
        for slot in self._slots:
            self.wires.open(slot.name, slot.relay, (slot.host, slot.node.peer_port))
        for member in self.members:
            member.start()
        for member in self.members:
            member.wait_ready()
        self.learn_names()

    def learn_names(self) -> None:
        """Tell the relay who is who; due whenever a member has come."""
        running = [member for member in self.everybody if member.is_running]
        self.wires.tell_names({member.learn_id(): member.name for member in running})
        # Whoever dialled before it was known comes again by its name, so that it can be cut off.
        self.wires.cut(self.wires.unnamed())

    def close(self) -> None:
        """End every process."""
        for member in self.everybody:
            # A fault under way in its own thread must not start it once more.
            member.closed = True
        for member in self.everybody:
            member.end_by(member.discard)
        if hasattr(self, "wires"):
            self.wires.close()

    # --- whom to hurt -----------------------------------------------------------------------------

    @contextmanager
    def claim(self, *wanted: ChaosMember) -> Iterator[bool]:
        """Whether these members are this fault's alone; if so, until the end of the block."""
        names = {member.name for member in wanted}
        with self._claims:
            free = not names & self._claimed
            if free:
                self._claimed |= names
        try:
            yield free
        finally:
            if free:
                with self._claims:
                    self._claimed -= names

    def leader(self, seconds: float = SETTLE_SECONDS) -> ChaosMember:
        """Who leads, by the word of the one with the newest term.

        Raises:
            ViolationError: Nobody, for so long.
        """

        def look() -> ChaosMember | None:
            best: tuple[int, ChaosMember] | None = None
            for member in self.members:
                try:
                    answer = member.status()
                except KvError:
                    continue
                leads = answer.header is not None and answer.header.member_id == answer.leader
                if leads and (best is None or answer.raftTerm > best[0]):
                    best = (answer.raftTerm, member)
            return best[1] if best is not None else None

        return in_time("there is a leader", look, seconds)

    def follower(self, rng: random.Random) -> ChaosMember:
        """Any but the leader."""
        leader = self.leader()
        return rng.choice([member for member in self.members if member is not leader])

    # --- what must be -----------------------------------------------------------------------------

    def check_running(self) -> None:
        """See that nobody ended who was not made to.

        Raises:
            ViolationError: Somebody did.
        """
        for member in self.everybody:
            if member.expected and not member.is_running:
                raise ViolationError(
                    "no surprise", f"{member.name} ended by itself:\n{member.log(12)}"
                )

    def check_logs(self) -> None:
        """See that nothing raised.

        Raises:
            ViolationError: Something did.
        """
        for member in self.everybody:
            if not member.node.log_path.exists():
                continue
            log = member.node.log_path.read_text(errors="replace")
            where = log.find(TRACEBACK)
            if where >= 0:
                raise ViolationError(
                    "no surprise",
                    f"{member.name} logged\n{log[max(where - 300, 0) : where + 2500]}",
                )

    def settle(self, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until every member serves linearizable reads and no alarm is raised.

        Raises:
            ViolationError: Not within the time, though nothing is broken any more.
        """
        for member in self.members:
            in_time(f"{member.name} serves again", partial(self._serves, member), seconds)

    def _serves(self, member: ChaosMember) -> bool:
        self.check_running()
        try:
            with member.client(2.0) as client:
                client.check_health()
                return not client.alarm_list().alarms
        except KvError:
            return False

    def check_equal(self, seconds: float = SETTLE_SECONDS) -> int:
        """See that all members hold the same; returns the revision at which they were compared.

        Raises:
            ViolationError: They do not.
        """
        revision = 0
        with self.members[0].client() as client:
            header = client.get(b"\0", limit=1).header
            revision = header.revision if header is not None else 0
        hashes: dict[str, tuple[int, int]] = {}

        def look() -> bool:
            for member in self.members:
                try:
                    with member.client() as client:
                        found = client.hash_kv(revision)
                except KvError:
                    return False  # It has not got there yet.
                hashes[member.name] = (found.compact_revision, found.hash)
            # A compaction is swept when there is time for it.
            return len({compacted for compacted, _ in hashes.values()}) == 1

        in_time(f"all members have revision {revision}", look, seconds)
        if len({hashed for _, hashed in hashes.values()}) != 1:
            raise ViolationError("equality", f"at revision {revision}: {hashes}")
        return revision


def in_time(what: str, look: Callable[[], T | None], seconds: float) -> T:
    """As ``wait_for``; what does not come in time is a violation.

    Raises:
        ViolationError: It did not.
    """
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() >= deadline:
            raise ViolationError("liveness", f"not within {seconds:.0f} s: {what}")
        threading.Event().wait(LOOK_SECONDS)
    return found


def _plan(directory: Path, size: int) -> list[Slot]:
    inside = sandbox.is_inside()
    ports = free_ports(3 * (size + 1))
    slots = []
    for number in range(size + 1):
        name = f"node{number + 1}"
        data_dir = directory / name
        # A majority keeps its data on the real disk: what it costs to sync shall be felt.
        small = inside and number < size and number > size // 2
        if small:
            sandbox.make_small_disk(data_dir)
        slots.append(
            Slot(
                node=Node(
                    name=name,
                    client_port=ports[3 * number],
                    peer_port=ports[3 * number + 1],
                    data_dir=data_dir,
                    log_path=directory / f"{name}.log",
                ),
                host=sandbox.make_network(name, number) if inside else HOST,
                relay=(sandbox.OUR_HOST if inside else HOST, ports[3 * number + 2]),
                network=name if inside else "",
                small_disk=small,
            )
        )
    return slots

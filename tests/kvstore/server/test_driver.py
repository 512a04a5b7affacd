"""The order of a turn's duties, and how long apply gives way to an acknowledgement."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kvstore.server.driver import APPLY_DELAY_SECONDS, Driver
from raft.effects import Effects
from raft.events import Applied, Persisted, Propose
from raft.types import Index, Seq


class _Timer:
    def __init__(self, when: float, callback: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.when = when
        self.callback: Callable[..., None] | None = callback
        self.args = args

    def cancel(self) -> None:
        self.callback = None


class _Loop:
    """Time passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.soon: deque[Callable[[], None]] = deque()
        self.timers: list[_Timer] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def call_later(self, seconds: float, callback: Callable[..., None], *args: Any) -> _Timer:
        self.timers.append(_Timer(self.now + seconds, callback, args))
        return self.timers[-1]

    def run(self, seconds: float = 0.0) -> None:
        self.now += seconds
        for timer in [timer for timer in self.timers if timer.when <= self.now]:
            self.timers.remove(timer)
            if timer.callback is not None:
                timer.callback(*timer.args)
        while self.soon:
            self.soon.popleft()()


class _Raft:
    """Wants what it was told to want, and remembers what it was told."""

    is_commit_untold = False
    applied_index = 0

    def __init__(self) -> None:
        self.wanted: deque[Effects] = deque()
        self.events: list[object] = []

    def step(self, event: object) -> None:
        self.events.append(event)

    def take_effects(self) -> Effects | None:
        return self.wanted.popleft() if self.wanted else None


class _Applier:
    """Applies one entry a run if it is slow, and all otherwise."""

    def __init__(self, happened: list[str]) -> None:
        self.happened = happened
        self.queue: list[int] = []
        self.machine = SimpleNamespace(applied_index=0)
        self.is_slow = False
        self.wake: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self.queue)

    def enqueue(self, entries: list[int]) -> None:
        self.queue += entries

    def run(self) -> None:
        while self.queue:
            index = self.queue.pop(0)
            self.machine.applied_index = index
            self.happened.append(f"apply {index}")
            if self.is_slow:
                self.wake()
                return


class _Member:
    """A driver between neighbours that write down what happens."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.loop = _Loop()
        self.raft = _Raft()
        self.proposals: list[int] = []
        self.reads: list[int] = []
        self.writes = _Waiting(self.proposals)
        self.failures: list[BaseException] = []
        loop: Any = self.loop
        raft: Any = self.raft
        self.driver = Driver(loop, raft, 0.1, self.failures.append)
        self.applier = _Applier(self.happened)
        self.applier.wake = self.driver.wake
        self.driver.wire(
            wal=SimpleNamespace(persist=self._persist),  # type: ignore[arg-type]
            peers=SimpleNamespace(send=self.happened.append),  # type: ignore[arg-type]
            applier=self.applier,  # type: ignore[arg-type]
            proposals=self.writes,  # type: ignore[arg-type]
            reads=_Waiting(self.reads),  # type: ignore[arg-type]
            send_snapshot=lambda _member, _term: None,
            install_snapshot=lambda _meta: None,
        )

    def _persist(self, seq: Seq, *_what: object) -> None:
        self.happened.append(f"write {seq}")

    def turn(
        self, seq: int, committed: list[int], *, writes: bool = True, says_so: bool = True
    ) -> None:
        """One turn, in which there is something to keep, and somebody to tell of that; or not."""
        self.raft.wanted.append(
            Effects(
                seq=Seq(seq),
                hard_state=None,
                entries=[seq] if writes else [],  # type: ignore[list-item]
                snapshot=None,
                messages=[],
                messages_after_sync=[f"ack {seq}"] if says_so else [],  # type: ignore[list-item]
                committed=committed,  # type: ignore[arg-type]
                accepted=[],
                rejected=[],
                reads=[],
                reads_rejected=[],
                role_change=None,
            )
        )
        self.driver.wake()
        self.loop.run()

    def persisted(self, seq: int) -> None:
        self.driver.persisted(Seq(seq))
        self.loop.run()


class _Waiting:
    """Proposals and reads: how many wait is all that matters here."""

    def __init__(self, waiting: list[int]) -> None:
        self._waiting = waiting
        self.unsent_count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def take_unsent(self) -> list[Any]:
        unsent, self.unsent_count = list(range(self.unsent_count)), 0
        return unsent

    def take_context(self) -> None:
        return None


@pytest.fixture
def member() -> _Member:
    return _Member()


def test_an_acknowledgement_leaves_before_what_is_committed_is_applied(member: _Member) -> None:
    member.turn(1, [1, 2])
    assert member.happened == ["write 1"]
    member.persisted(1)
    assert member.happened == ["write 1", "ack 1", "apply 1", "apply 2"]
    assert member.raft.events == [Persisted(Seq(1)), Applied(Index(2))]
    # What is past leaves nothing behind that would come too early the next time.
    member.turn(2, [3])
    member.loop.run(APPLY_DELAY_SECONDS / 2)
    assert member.happened[-1] == "write 2"
    assert not member.failures


def test_without_an_acknowledgement_that_waits_apply_does_not_wait(member: _Member) -> None:
    member.turn(1, [1], writes=False)
    assert member.happened == ["ack 1", "apply 1"]
    # As on a leader: it writes, and nothing that it has to say waits for that.
    member.turn(2, [2], says_so=False)
    assert member.happened[2:] == ["write 2", "apply 2"]


def test_a_disk_that_hangs_holds_up_apply_for_two_milliseconds(member: _Member) -> None:
    member.applier.is_slow = True
    member.turn(1, [1, 2, 3])
    member.loop.run(APPLY_DELAY_SECONDS / 2)
    member.turn(2, [4])
    assert member.happened == ["write 1", "write 2"]
    member.loop.run(APPLY_DELAY_SECONDS / 2)
    # From then on without a pause, until nothing is left.
    assert member.happened[2:] == ["apply 1", "apply 2", "apply 3", "apply 4"]
    member.turn(3, [5])
    assert member.happened[-1] == "write 3"
    member.loop.run(APPLY_DELAY_SECONDS)
    assert member.happened[-1] == "apply 5"


def test_acknowledgements_that_follow_each_other_do_not_put_off_apply_for_ever(
    member: _Member,
) -> None:
    member.turn(1, [1])
    for seq in range(2, 6):
        member.turn(seq, [])
        member.loop.run(APPLY_DELAY_SECONDS / 4)
        member.persisted(seq - 1)
    assert member.happened.index("apply 1") < member.happened.index("ack 4")
    assert member.happened.index("apply 1") > member.happened.index("ack 3")


@pytest.mark.parametrize("waiting", ["proposals", "reads"])
def test_whoever_has_clients_waiting_applies_at_once(member: _Member, waiting: str) -> None:
    getattr(member, waiting).append(1)
    member.turn(1, [1])
    assert member.happened == ["write 1", "apply 1"]


def test_who_has_stopped_applies_nothing_later(member: _Member) -> None:
    member.turn(1, [1])
    member.driver.stop()
    member.loop.run(APPLY_DELAY_SECONDS)
    assert member.happened == ["write 1"]


def test_proposals_do_not_wait_for_others_where_there_is_still_much_to_apply(
    member: _Member,
) -> None:
    member.applier.is_slow = True
    member.applier.enqueue([1, 2])
    member.writes.unsent_count = 2
    member.driver.wake()
    member.loop.run()
    proposed = Propose([0, 1])  # type: ignore[list-item]
    assert member.raft.events == [proposed, Applied(Index(1)), Applied(Index(2))]
    # With nothing to apply they wait for a look that brings no more.
    member.raft.events.clear()
    member.writes.unsent_count = 2
    member.driver.wake()
    member.loop.soon.popleft()()
    assert member.raft.events == []
    member.loop.run()
    assert member.raft.events == [proposed]

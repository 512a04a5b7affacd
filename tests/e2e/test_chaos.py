"""No acknowledged write is lost, whatever is killed or paused.

``CHAOS_ROUNDS`` sets how many random rounds there are, ``CHAOS_SEED`` which.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable

import pytest

from kvstore.types import KeyValue
from tests.e2e.cluster import Cluster
from tests.e2e.commands import log_is_clean
from tests.e2e.conftest import FigureMaker
from tests.e2e.recorder import Recorder, check_everywhere

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "4"))
SEED = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().getrandbits(32))
PAUSE_SECONDS = 5.0
STARTING_SECONDS = 10.0
ROUND_SECONDS_MAX = 60.0

Fault = Callable[[Cluster, Recorder], None]


def kill_leader(cluster: Cluster, recorder: Recorder) -> None:
    """SIGKILL; the other two go on, and it comes back."""
    victim = cluster.leader()
    victim.kill()
    recorder.wait_progress()
    victim.start()
    victim.wait_ready()


def kill_all(cluster: Cluster, recorder: Recorder) -> None:
    """SIGKILL of all three at once; what the disks hold is all there is."""
    for member in cluster.members:
        member.kill_nowait()
    for member in cluster.members:
        member.wait_end()
    cluster.start()
    recorder.wait_progress()


def pause_leader(cluster: Cluster, recorder: Recorder) -> None:
    """SIGSTOP for 5 s; the other two go on, and it comes back believing that it leads."""
    victim = cluster.leader()
    victim.pause()
    try:
        until = time.monotonic() + PAUSE_SECONDS
        recorder.wait_progress()
        time.sleep(max(until - time.monotonic(), 0.0))
    finally:
        victim.resume()
    recorder.wait_progress()


def stop_leader(cluster: Cluster, recorder: Recorder) -> None:
    """SIGTERM under load: it hands leadership on, keeps its promises and leaves a clean log."""
    leader = cluster.leader()
    assert leader.stop() == 0
    assert log_is_clean(leader.data_dir)
    recorder.wait_progress()
    leader.start()
    leader.wait_ready()


FAULTS: tuple[Fault, ...] = (kill_leader, kill_all, pause_leader)


def _run(cluster: Cluster, faults: list[Fault], name: str, figure: FigureMaker) -> None:
    start = time.monotonic()
    with Recorder(cluster.urls, b"chaos/") as recorder:
        recorder.wait_progress()
        for fault in faults:
            fault(cluster, recorder)
            recorder.wait_progress()
    cluster.leader()
    check_everywhere(cluster, recorder)
    figure(
        f"chaos, {name}: {len(recorder.acknowledged)} writes acknowledged, "
        f"{len(recorder.unknown)} unknown, {len(recorder.refused)} refused, lost=0, "
        f"in {time.monotonic() - start:.0f} s"
    )


@pytest.mark.timeout(3 * ROUND_SECONDS_MAX)
def test_chaos_each_fault_loses_no_acknowledged_write(
    cluster: Cluster, figure: FigureMaker
) -> None:
    _run(cluster, [*FAULTS, stop_leader], "each fault once", figure)


@pytest.mark.timeout(STARTING_SECONDS + ROUNDS * ROUND_SECONDS_MAX)
def test_chaos_random_rounds_lose_no_acknowledged_write(
    cluster: Cluster, figure: FigureMaker
) -> None:
    rng = random.Random(SEED)
    faults = [rng.choice(FAULTS) for _ in range(ROUNDS)]
    names = ", ".join(fault.__name__ for fault in faults)
    # Shown when the test fails: it has to be said before.
    sys.stdout.write(f"CHAOS_SEED={SEED} CHAOS_ROUNDS={ROUNDS}: {names}\n")
    _run(cluster, faults, f"{ROUNDS} rounds of seed {SEED} ({names})", figure)


def _recorded() -> Recorder:
    """A record made by hand: one write acknowledged, one unknown."""
    recorder = Recorder([], b"x/", writers=0)
    recorder.acknowledged[b"x/1"] = b"one"
    recorder.unknown[b"x/2"] = b"two"
    return recorder


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "acknowledged writes lost"),
        ([KeyValue(b"x/1", 2, 2, 1, b"other")], "acknowledged writes lost"),
        ([KeyValue(b"x/1", 2, 3, 2, b"one")], "applied more than once"),
        ([KeyValue(b"x/1", 2, 2, 1, b"one"), KeyValue(b"x/3", 3, 3, 1, b"?")], "nobody made"),
    ],
)
def test_the_comparison_of_chaos_sees(found: list[KeyValue], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        _recorded().check(found)


def test_the_comparison_of_chaos_takes_an_unknown_write_either_way() -> None:
    one, two = KeyValue(b"x/1", 2, 2, 1, b"one"), KeyValue(b"x/2", 3, 3, 1, b"two")
    _recorded().check([one])
    _recorded().check([one, two])

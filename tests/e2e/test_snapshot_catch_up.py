"""A follower that was away until the log it needs is gone comes back through a snapshot."""

from __future__ import annotations

import time

from tests.e2e.conftest import ClusterMaker, FigureMaker
from tests.e2e.processes import wait_for
from tests.e2e.recorder import Recorder, check_everywhere

SNAPSHOT_COUNT = 200
CATCH_UP_ENTRIES = 100
FLAGS = (
    f"--snapshot-count={SNAPSHOT_COUNT}",
    f"--snapshot-catchup-entries={CATCH_UP_ENTRIES}",
    "--wal-segment-bytes=65536",
)
INSTALLED = "kvstore_snapshots_installed_total"
TAKEN = "kvstore_snapshots_taken_total"
SECONDS = 20.0
AWAY_SECONDS = 4.0
"""After two to three election timeouts the leader keeps no log for who is silent."""


def test_a_follower_below_the_log_comes_back_through_a_snapshot_while_writes_go_on(
    new_cluster: ClusterMaker, figure: FigureMaker
) -> None:
    cluster = new_cluster(flags=FLAGS)
    follower = cluster.followers()[0]
    others = [member for member in cluster.members if member is not follower]
    with Recorder(cluster.urls, b"snap/") as recorder:
        recorder.wait_progress()
        follower.kill()
        before = len(recorder.acknowledged)
        time.sleep(AWAY_SECONDS)
        enough = len(recorder.acknowledged) + 2 * SNAPSHOT_COUNT + CATCH_UP_ENTRIES
        wait_for("writes", lambda: len(recorder.acknowledged) >= enough, SECONDS)
        taken = sum(member.metrics()[TAKEN] for member in others)
        missed = len(recorder.acknowledged) - before

        follower.start()
        follower.wait_ready()
        wait_for("the snapshot", lambda: follower.metrics()[INSTALLED] >= 1, SECONDS)
        recorder.wait_progress()
        cluster.wait_caught_up(follower)
    assert taken >= len(others)
    check_everywhere(cluster, recorder)

    # What it was sent is on its own disk: it starts from there once more, without being sent
    # anything.
    follower.kill()
    follower.start()
    follower.wait_ready()
    assert follower.metrics()[INSTALLED] == 0
    check_everywhere(cluster, recorder)
    figure(
        f"snapshot: a follower missed {missed} writes and "
        "came back through a snapshot while writes went on"
    )

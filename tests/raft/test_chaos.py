"""Whole clusters under crashes, loss, delay, reordering and repetition, from a seed.

After every step every node's invariants and Raft's safety properties (Raft figure 3) are checked;
in the end all must agree, and reads must have been current.
"""

# Ids, terms and indexes are written as plain numbers here.
# mypy: disable-error-code="arg-type,assignment"

import pytest

from .chaos import Chaos
from .cluster import Cluster, voters

SMALL = {
    "append_bytes_max": 200,
    "inflight_appends_max": 3,
    "inflight_bytes_max": 1000,
    "uncommitted_bytes_max": 4000,
    "committed_bytes_max": 300,
    "tail_entries_max": 8,
    "tail_bytes_max": 4000,
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [3, 5])
def test_raft_figure_3_holds_under_crashes_and_loss(count, seed):
    cluster = Cluster(count, seed=seed)
    chaos = Chaos(cluster)
    chaos.run(1500)
    chaos.finish()
    assert cluster.checker.committed_index > 10, "the run must have got somewhere"


@pytest.mark.parametrize("seed", range(6))
def test_raft_figure_3_holds_with_small_limits_and_snapshots(seed):
    cluster = Cluster(3, seed=100 + seed, **SMALL)
    chaos = Chaos(cluster)
    chaos.run(2000)
    chaos.finish()
    assert cluster.checker.committed_index > 10


@pytest.mark.parametrize("seed", range(6))
def test_thesis_s4_3_holds_while_the_membership_changes(seed):
    cluster = Cluster(voters(3), seed=200 + seed, spare=[4, 5])
    chaos = Chaos(cluster, membership=True)
    chaos.run(2000)
    chaos.finish()

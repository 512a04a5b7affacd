"""A member whose files were damaged while it was down comes back by itself."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import ClusterMaker
from tests.e2e.processes import Member, wait_for
from tests.e2e.recorder import Recorder, check_everywhere

FLAGS = ("--wal-segment-bytes=65536",)
REBUILT = "kvstore_rebuilt_total"
SECONDS = 20.0


def _damage_first_segment(member: Member) -> Path:
    """Garble a sector in the middle of what was written first."""
    path = member.segments()[0]
    content = bytearray(path.read_bytes())
    content[20480:20992] = bytes(range(256)) * 2
    path.write_bytes(content)
    return path


def test_a_member_with_a_damaged_log_is_rebuilt_while_writes_go_on(
    new_cluster: ClusterMaker,
) -> None:
    cluster = new_cluster(flags=FLAGS)
    victim = cluster.followers()[0]
    with Recorder(cluster.urls, b"disk/") as recorder:
        wait_for("writes", lambda: len(recorder.acknowledged) >= 600, SECONDS)
        victim.kill()
        path = _damage_first_segment(victim)
        victim.start()
        victim.wait_ready(SECONDS)
        assert victim.metrics()[REBUILT] == 1
        recorder.wait_progress()
        cluster.wait_caught_up(victim)
    assert "this member votes for nobody" in victim.log(1000)
    assert "this member takes part again" in victim.log(1000)
    wait_for("the damaged file is gone", lambda: not path.exists(), SECONDS)
    check_everywhere(cluster, recorder)
    # It needs nobody's help any more.
    victim.kill()
    victim.start()
    victim.wait_ready()
    assert victim.metrics()[REBUILT] == 0
    check_everywhere(cluster, recorder)

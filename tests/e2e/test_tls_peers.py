"""Members that speak TLS with each other elect, replicate, are killed, and let nobody else in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import ClusterMaker
from tests.e2e.processes import Member, wait_for
from tests.e2e.recorder import Recorder, check_everywhere
from tests.support.certificates import Authority

SNAPSHOT_COUNT = 200
INSTALLED = "kvstore_snapshots_installed_total"
SECONDS = 30.0
NOT_OURS = "certificate is refused: unable to get local issuer certificate"


def flags_of(authority: Authority, name: str, trusted: str) -> list[str]:
    cert, key = authority.pair(name, "member")
    return [
        f"--cert-file={cert}",
        f"--key-file={key}",
        f"--peer-cert-file={cert}",
        f"--peer-key-file={key}",
        f"--peer-trusted-ca-file={trusted}",
        "--peer-client-cert-auth",
        "--peer-cert-allowed-cn=member",
    ]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secure(new_cluster: ClusterMaker, authority: Authority) -> Cluster:
    return new_cluster(
        flags=(
            f"--snapshot-count={SNAPSHOT_COUNT}",
            "--snapshot-catchup-entries=100",
            "--wal-segment-bytes=65536",
        ),
        own_flags=lambda name: flags_of(authority, name, authority.file),
        tls=authority.client("client"),
        peers_too=True,
    )


def complaints(members: list[Member]) -> str:
    return "\n".join(member.log(100_000) for member in members)


def test_members_replicate_over_tls_refuse_a_strangers_certificate_and_send_a_snapshot(
    secure: Cluster, authority: Authority, tmp_path: Path
) -> None:
    follower = secure.followers()[0]
    others = [member for member in secure.members if member is not follower]
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    strange = flags_of(Authority(directory), "stranger", authority.file)
    with Recorder(secure.urls, b"tls/", tls=secure.tls) as recorder:
        recorder.wait_progress()
        follower.kill()

        # It comes back with a certificate that somebody else signed: nobody links with it.
        mine = list(follower._arguments)
        follower._arguments += strange
        follower.start()
        wait_for("the refusal", lambda: NOT_OURS in complaints(others), SECONDS)
        enough = len(recorder.acknowledged) + 3 * SNAPSHOT_COUNT
        wait_for("writes", lambda: len(recorder.acknowledged) >= enough, SECONDS)
        assert follower.is_running
        follower.kill()

        follower._arguments = mine
        follower.start()
        follower.wait_ready()
        wait_for("a snapshot", lambda: follower.metrics()[INSTALLED] >= 1, SECONDS)
        recorder.wait_progress()
        secure.wait_caught_up(follower)
    check_everywhere(secure, recorder)
    assert "Traceback" not in complaints(secure.members)

    # Who has lost its directory asks the others, by TLS as well, and hears who it was.
    follower.kill()
    shutil.rmtree(follower.data_dir)
    follower.start()
    assert follower.wait_end() == 1
    assert "is known to its cluster" in follower.log()

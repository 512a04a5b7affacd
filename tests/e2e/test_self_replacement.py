"""A real member loses its directory, or a byte of it, and is well again without an operator."""

from __future__ import annotations

import shutil
from functools import partial

from kvstore.client import Client, prefix_end
from kvstore.errors import KvError
from tests.e2e.conftest import ClusterMaker, FigureMaker
from tests.e2e.processes import Member, wait_for
from tests.e2e.recorder import Recorder, check_everywhere

FLAGS = ("--snapshot-count=300", "--snapshot-catchup-entries=100", "--wal-segment-bytes=65536")
REPLACED_SECONDS = 60.0
PREFIX = b"replaced/"


def _id_of(member: Member) -> int:
    header = member.status().header
    assert header is not None
    return header.member_id


def _votes_as_another(client: Client, old_id: int) -> bool:
    try:
        members = client.member_list(linearizable=True).members
    except KvError:
        return False
    whole = len(members) == 3 and not any(row.isLearner or not row.name for row in members)
    return whole and not any(old_id == row.ID for row in members)


def _serves(client: Client, key: bytes, value: bytes) -> bool:
    try:
        return client.get(key).kvs[0].value == value
    except KvError:
        # Its own vote is news that it may hear last.
        return False


def test_a_member_that_lost_its_data_is_well_again_by_itself(
    new_cluster: ClusterMaker, figure: FigureMaker
) -> None:
    cluster = new_cluster(flags=(*FLAGS, "--replace-damaged-member"))
    with cluster.client() as client, Recorder(cluster.urls, PREFIX, writers=2) as recorder:
        recorder.wait_progress()
        wiped, damaged = cluster.followers()
        for member in (wiped, damaged):
            old_id = _id_of(member)
            if member is wiped:
                member.kill()
                shutil.rmtree(member.data_dir)
            else:
                member.stop()
                member.garble_tail()
            member.start()
            wait_for(
                f"{member.name} votes as another",
                partial(_votes_as_another, client, old_id),
                REPLACED_SECONDS,
            )
            member.wait_ready()
            recorder.wait_progress()
    check_everywhere(cluster, recorder)
    with cluster.client(30.0) as client:
        assert client.get(PREFIX, prefix_end(PREFIX)).kvs
    assert sorted(path.name for path in wiped.data_dir.iterdir()) == ["member"]
    assert sorted(path.name for path in damaged.data_dir.iterdir()) == [
        "member",
        "member.damaged-1",
    ]
    figure(
        f"replacement: two members of three replaced themselves, with "
        f"{len(recorder.acknowledged)} acknowledged writes and none lost"
    )


def test_who_comes_up_empty_and_alone_is_replaced_in_the_same_process(
    new_cluster: ClusterMaker,
) -> None:
    cluster = new_cluster(flags=(*FLAGS, "--replace-damaged-member"))
    with cluster.client() as client:
        client.put(b"k", b"v")
        wiped = cluster.followers()[0]
        old_id = _id_of(wiped)
        for member in cluster.members:
            member.stop()
        shutil.rmtree(wiped.data_dir)
        wiped.start()
        wait_for(
            "it founds its cluster once more", lambda: "new data" in wiped.log(), REPLACED_SECONDS
        )
        pid = wiped.pid
        for member in cluster.members:
            if member is not wiped:
                member.start()
        wait_for(
            f"{wiped.name} votes as another",
            partial(_votes_as_another, client, old_id),
            REPLACED_SECONDS,
        )
        wiped.wait_ready()
        assert wiped.is_running
        assert wiped.pid == pid
    with wiped.client() as own:
        wait_for("it serves", partial(_serves, own, b"k", b"v"), REPLACED_SECONDS)

"""The members of a real cluster are replaced, every one, while clients write and watch."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from kvstore.cli.cluster_nodes import Node
from kvstore.client import Client, prefix_end
from kvstore.client.watch import Watch
from kvstore.errors import KvError
from tests.e2e.cluster import Cluster, free_ports
from tests.e2e.commands import Foreground, kvstore
from tests.e2e.conftest import ClusterMaker, FigureMaker
from tests.e2e.processes import Member, wait_for
from tests.e2e.recorder import Recorder, check_everywhere

EXIT_REMOVED = 5
CHANGE_SECONDS = 30.0
RETRY_SECONDS = 0.2
FLAGS = ("--snapshot-count=300", "--snapshot-catchup-entries=100", "--wal-segment-bytes=65536")
PREFIX = b"change/"


def _nodes(directory: Path, count: int) -> list[Node]:
    ports = free_ports(2 * count)
    return [
        Node(
            name=f"new{number + 1}",
            client_port=ports[number],
            peer_port=ports[count + number],
            data_dir=directory / f"new{number + 1}",
            log_path=directory / f"new{number + 1}.log",
        )
        for number in range(count)
    ]


def _joiner(node: Node, cluster: Cluster) -> Member:
    others = [member.node for member in cluster.members if member.is_running]
    return Member(node, [*others, node], [*FLAGS, "--initial-cluster-state=existing"])


class Watcher:
    """Watches the prefix on whichever member it finds, and keeps each event's key in order."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._client = Client(urls, 3.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._watch: Watch | None = None
        self._revision = 1
        self.keys: list[bytes] = []
        self.errors: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._watch is not None:
            self._watch.close()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                end = prefix_end(PREFIX)
                with self._client.watch(
                    PREFIX, end, start_revision=self._revision + 1, idle_seconds=1.0
                ) as watch:
                    self._watch = watch
                    for response in watch:
                        for pair in [event.kv for event in response.events]:
                            assert pair is not None, "an event without a key"
                            self._take(pair.key, pair.mod_revision)
                        if self._stop.is_set():
                            return
            except KvError:
                # Nobody takes it at the moment, or it was a learner that was asked.
                self._stop.wait(RETRY_SECONDS)

    def _take(self, key: bytes, revision: int) -> None:
        if revision <= self._revision:
            self.errors.append(f"revision {revision} follows {self._revision}")
        self._revision = revision
        self.keys.append(key)


class Operator:
    """Changes members by way of the command line, on whichever member answers."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def run(self, *arguments: str) -> str:
        """Run ``kvstore member ...`` until it succeeds."""
        deadline = time.monotonic() + CHANGE_SECONDS
        while True:
            urls = [member.client_url for member in self._cluster.members if member.is_running]
            done = kvstore("member", *arguments, f"--endpoints={','.join(urls)}")
            if done.returncode == 0:
                return done.stdout.decode()
            words = done.stderr.decode()
            assert time.monotonic() < deadline, f"member {' '.join(arguments)}: {words}"
            time.sleep(RETRY_SECONDS)

    def add(self, node: Node) -> Member:
        """Let it in as a learner, start it, and promote it."""
        printed = self.run("add", node.name, f"--peer-urls={node.peer_url}", "--learner")
        assert "--initial-cluster-state=existing" in printed
        member_id = printed.split()[1]
        member = _joiner(node, self._cluster)
        self._cluster.members.append(member)
        member.start()
        member.wait_ready()
        self.run("promote", member_id)
        return member

    def remove(self, member: Member) -> None:
        """Take it out; its process ends by itself."""
        header = member.status().header
        assert header is not None
        self.run("remove", f"{header.member_id:x}")
        assert member.wait_end() == EXIT_REMOVED, member.log()
        assert "was removed from cluster" in member.log()
        self._cluster.members.remove(member)


def test_three_become_five_and_three_others_under_writes(
    new_cluster: ClusterMaker, figure: FigureMaker, tmp_path: Path
) -> None:
    cluster = new_cluster(flags=FLAGS)
    originals = list(cluster.members)
    nodes = _nodes(tmp_path, 3)
    urls = [*cluster.urls, *(node.client_url for node in nodes)]
    operator = Operator(cluster)
    began = time.monotonic()
    with Watcher(urls) as watcher, Recorder(urls, PREFIX, writers=2) as recorder:
        recorder.wait_progress()
        for node in nodes[:2]:
            operator.add(node)
        for original in originals[:2]:
            operator.remove(original)
            recorder.wait_progress()
        operator.add(nodes[2])
        operator.remove(originals[2])
        recorder.wait_progress()
    took = time.monotonic() - began
    assert {member.name for member in cluster.members} == {node.name for node in nodes}
    check_everywhere(cluster, recorder)
    with cluster.client(30.0) as client:
        found = client.get(PREFIX, prefix_end(PREFIX)).kvs
    assert watcher.errors == []
    in_order = [pair.key for pair in sorted(found, key=lambda pair: pair.mod_revision)]
    assert in_order[: len(watcher.keys)] == watcher.keys, "a gap in the watch"
    assert len(watcher.keys) > len(in_order) / 2
    figure(
        f"membership: 3 became 5 and 3 others in {took:.0f} s, with {len(recorder.acknowledged)} "
        "acknowledged writes and none lost"
    )


def test_a_member_that_lost_its_directory_is_replaced_by_one_command(
    new_cluster: ClusterMaker, tmp_path: Path
) -> None:
    cluster = new_cluster(flags=FLAGS)
    with cluster.client() as client:
        client.put(b"k", b"v")
    lost = cluster.followers()[0]
    lost.kill()
    shutil.rmtree(lost.data_dir)
    lost.start()
    assert lost.wait_end() == 1
    assert f"kvstore member replace {lost.name}" in lost.log()
    others = [member for member in cluster.members if member is not lost]
    endpoints = f"--endpoints={','.join(member.client_url for member in others)}"
    # A member that is well is not replaced by mistake.
    mistake = kvstore("member", "replace", others[0].name, endpoints)
    assert mistake.returncode == 1
    assert b"it is not lost, and nothing was changed" in mistake.stderr
    # Interrupted before the new one is started: run again as it says, it goes on.
    first = kvstore("member", "replace", lost.name, endpoints, "--wait=1")
    assert first.returncode == 1
    command = ["member", "replace", lost.name, f"--peer-urls={lost.node.peer_url}"]
    assert f"run kvstore {' '.join(command)}".encode() in first.stderr
    again = Foreground([*command, endpoints], tmp_path / "replace.log")
    try:
        again.wait_output("--initial-cluster-state=existing")
        renewed = _joiner(lost.node, cluster)
        cluster.members[cluster.members.index(lost)] = renewed
        renewed.start()
        renewed.wait_ready()
        assert again.process.wait(CHANGE_SECONDS) == 0, again.output()
        assert "has caught up and votes now" in again.output()
    finally:
        again.discard()
    with renewed.client() as client:
        # The leader said so; the new one itself hears of it in the same millisecond or the next.
        wait_for("the new one knows it", lambda: not client.status().isLearner, CHANGE_SECONDS)
        assert client.get(b"k").kvs[0].value == b"v"
        members = client.member_list(linearizable=True).members
    assert sorted(row.name for row in members) == ["node1", "node2", "node3"]
    assert not any(row.isLearner for row in members)
    wait_for("the new one is counted", lambda: cluster.leader() is not None, CHANGE_SECONDS)

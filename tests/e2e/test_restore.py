"""Three nodes are lost with their disks, and come back as three others from a file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from kvstore.client import Client
from kvstore.errors import KvError
from kvstore.types import PermissionType, ResponseHeader
from tests.e2e.cluster import Cluster
from tests.e2e.commands import kvstore

pytestmark = pytest.mark.e2e

ETCDCTL: Final = shutil.which("etcdctl")
LEASE: Final = 77
USAGE: Final = 2


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path / "old")
    yield cluster
    cluster.close()


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path / "new")
    yield cluster
    cluster.close()


def root(cluster: Cluster) -> Client:
    return Client(cluster.urls, 10.0, user="root", password="top")


def header_of(client: Client) -> ResponseHeader:
    header = client.get(b"x").header
    assert header is not None
    return header


def furnish(cluster: Cluster) -> None:
    """Keys with a history, a lease, and users."""
    with cluster.client() as client:
        client.put(b"config/db", b"first")
        client.put(b"config/db", b"second")
        client.put(b"config/gone", b"soon")
        client.delete(b"config/gone")
        client.lease_grant(600, LEASE)
        client.put(b"service/web", b"10.0.0.7", lease=LEASE)
        for name in ("root", "ann"):
            client.user_add(name, "top")
        client.role_add("root")
        client.user_grant_role("root", "root")
        client.role_add("reader")
        client.role_grant_permission("reader", PermissionType.READ, b"config/", b"config0")
        client.user_grant_role("ann", "reader")
        client.auth_enable()


def check_furnished(cluster: Cluster) -> None:
    with root(cluster) as client:
        kvs = client.get(b"\0", b"\0").kvs
        assert [(kv.key, kv.value) for kv in kvs] == [
            (b"config/db", b"second"),
            (b"service/web", b"10.0.0.7"),
        ]
        assert client.get(b"config/db", revision=2).kvs[0].value == b"first"
        assert client.get(b"config/gone", revision=4).kvs[0].value == b"soon"
        left = client.lease_time_to_live(LEASE, keys=True)
        assert (left.grantedTTL, left.keys) == (600, [b"service/web"])
    with Client(cluster.urls, 10.0, user="ann", password="top") as client:
        assert client.get(b"config/db").kvs[0].value == b"second"
        with pytest.raises(KvError, match="permission denied"):
            client.put(b"config/db", b"by ann")


def restore(file: Path, cluster: Cluster, number: int, *more: str) -> tuple[int, str]:
    """Make a member's directory; returns the exit code and all that was said."""
    member = cluster.members[number]
    everybody = ",".join(f"{one.name}={one.node.peer_url}" for one in cluster.members)
    done = kvstore(
        "snapshot", "restore", str(file), f"--data-dir={member.data_dir}", f"--name={member.name}",
        f"--initial-cluster={everybody}", "--initial-cluster-token=second-life",
        f"--initial-advertise-peer-urls={member.node.peer_url}", *more,
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).decode()


def saved_by_etcdctl(cluster: Cluster, file: Path) -> None:
    assert ETCDCTL is not None
    command = [ETCDCTL, f"--endpoints={cluster.urls[0]}", "--user=root:top", "snapshot", "save"]
    environ = dict(os.environ) | {"ETCDCTL_API": "3"}
    done = subprocess.run(
        [*command, str(file)], env=environ, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_cluster_that_lost_every_disk_comes_back_from_a_file(
    old: Cluster, new: Cluster, tmp_path: Path
) -> None:
    old.start()
    furnish(old)
    file = tmp_path / "backup"
    environ = {"KVSTORE_ENDPOINTS": old.urls[1], "KVSTORE_USER": "root", "KVSTORE_PASSWORD": "top"}
    assert kvstore("snapshot", "save", str(file), environ=environ).returncode == 0
    files = [file]
    if ETCDCTL is not None:
        files.append(tmp_path / "etcdctl")
        saved_by_etcdctl(old, files[-1])
    with root(old) as client:
        before = header_of(client)
        client.put(b"config/db", b"after the backup")
    revision = before.revision
    for member in old.members:
        member.kill()
        shutil.rmtree(member.data_dir)

    for saved in files:
        status = json.loads(kvstore("snapshot", "status", str(saved), "-w", "json").stdout)
        assert (status["revision"], status["totalKey"]) == (revision, 2)
        assert status["totalSize"] == saved.stat().st_size
    for number in range(3):
        code, said = restore(files[-1], new, number)
        assert code == 0, said
        assert f"revision {revision} with 2 keys" in said
    new.start()
    check_furnished(new)
    with root(new) as client:
        after = header_of(client)
        assert (after.revision, after.cluster_id != before.cluster_id) == (revision, True)
        client.put(b"config/db", b"third")
        assert header_of(client).revision == revision + 1
        assert len(client.member_list().members) == 3


def test_a_damaged_file_is_refused_and_what_is_refused_leaves_nothing(
    old: Cluster, new: Cluster, tmp_path: Path
) -> None:
    old.start()
    file, damaged = tmp_path / "backup", tmp_path / "damaged"
    with old.client() as client:
        client.put(b"k", b"v" * 2_000)
        with file.open("wb") as sink:
            client.save_snapshot(sink.write)
    content = bytearray(file.read_bytes())
    content[1_000] ^= 0x10
    damaged.write_bytes(content)
    checked = kvstore("snapshot", "status", str(damaged))
    assert (checked.returncode, checked.stdout) == (1, b"")
    assert b"damaged at byte " in checked.stderr
    code, said = restore(damaged, new, 0, "--skip-hash-check")
    assert code == 1
    assert "damaged at byte " in said
    assert not new.members[0].data_dir.exists()

    assert restore(file, new, 0, "--bump-revision=5")[0] == USAGE
    raised = ("--bump-revision=1000000", "--mark-compacted")
    for number in range(2):
        code, said = restore(file, new, number, *raised)
        assert code == 0, said
    assert "revision 1000002" in said
    code, said = restore(file, new, 1, *raised)
    assert code == USAGE
    assert "is not empty" in said
    # The third is of another revision: it finds no place among the others.
    assert restore(file, new, 2)[0] == 0
    for member in new.members:
        member.start()
    for member in new.members[:2]:
        member.wait_ready()
    with new.members[0].client() as client:
        assert client.get(b"k").kvs[0].value == b"v" * 2_000
        client.put(b"k", b"w")
        assert header_of(client).revision == 1_000_003
    assert "restore all members from the same file" in "".join(log for _, log in new.logs())

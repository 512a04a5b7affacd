"""A machine's own configuration goes in, the leader dies in the middle, and all of it comes out."""

from __future__ import annotations

import http.client
import threading
from pathlib import Path

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import FigureMaker
from tests.e2e.load_tree import (
    TOO_LARGE,
    differing,
    load,
    read_files,
    reason,
    regular_files,
)

FILES_MIN = 2_000
BYTES_MIN = 20_000_000
REQUEST_BYTES_MAX = 1_572_864
ENVELOPE_BYTES_MAX = 64
"""Less than this is what key lengths and framing add to a request."""


def _configuration() -> dict[bytes, bytes]:
    """All of /etc, and of /usr/share as much as it takes, one file over the limit included."""
    files = dict(read_files(regular_files(Path("/etc"))))
    size = sum(map(len, files.values()))
    large: dict[bytes, bytes] = {}
    for key, value in read_files(regular_files(Path("/usr/share"))):
        if len(value) > REQUEST_BYTES_MAX:
            large = large or {key: value}
        elif len(files) < FILES_MIN or size < BYTES_MIN:
            files[key] = value
            size += len(value)
        elif large:
            break
    assert len(files) >= FILES_MIN, f"this machine has only {len(files)} files"
    assert size >= BYTES_MIN, f"this machine has only {size} bytes"
    return files | (large or {b"/no/such/file": bytes(REQUEST_BYTES_MAX + 1)})


def test_every_file_of_etc_survives_the_leader_s_death(
    cluster: Cluster, figure: FigureMaker
) -> None:
    files = _configuration()
    victim = cluster.leader()
    killed = threading.Event()

    def kill_halfway(count: int) -> None:
        if count == FILES_MIN // 2:
            victim.kill()
            killed.set()

    loaded = load(files, cluster.urls, on_stored=kill_halfway)

    assert killed.is_set()
    too_large = {key for key, value in files.items() if len(key) + len(value) > REQUEST_BYTES_MAX}
    assert (
        too_large
        <= set(loaded.refused)
        <= {
            key
            for key, value in files.items()
            if len(key) + len(value) > REQUEST_BYTES_MAX - ENVELOPE_BYTES_MAX
        }
    )
    assert {reason(answer) for answer in loaded.refused.values()} == {TOO_LARGE}
    assert {answer.status for answer in loaded.refused.values()} == {http.client.BAD_REQUEST}
    assert loaded.stored == set(files) - set(loaded.refused)

    victim.start()
    victim.wait_ready()
    for member in cluster.members:
        assert differing(files, loaded.stored, [member.client_url]) == [], member.name
    size = sum(len(files[key]) for key in loaded.stored)
    figure(
        f"configuration tree: {len(loaded.stored)} files, {size:,} bytes stored and read back from "
        f"each node, leader killed in the middle, {len(loaded.refused)} over the limit refused"
    )


def test_a_file_that_differs_is_noticed(calm_cluster: Cluster) -> None:
    # The comparison above is worth something only if it can fail.
    files = {b"/tree/%d" % number: b"%d" % number for number in range(3)}
    assert load(files, calm_cluster.urls).stored == set(files)
    changed = {**files, b"/tree/1": b"other"}
    assert differing(changed, changed, calm_cluster.urls[:1]) == [b"/tree/1"]

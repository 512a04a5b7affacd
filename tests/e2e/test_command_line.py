"""The cluster by hand: put, get, del, watch, leases, status, and the exit codes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, free_ports
from tests.e2e.commands import Foreground, kvstore

Run = Callable[..., subprocess.CompletedProcess[bytes]]

INTERRUPTED = 130
REFUSED, USAGE, UNREACHABLE = 1, 2, 4


@pytest.fixture
def environ(calm_cluster: Cluster) -> dict[str, str]:
    return {"KVSTORE_ENDPOINTS": ",".join(calm_cluster.urls)}


@pytest.fixture
def run(environ: dict[str, str]) -> Run:
    def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return kvstore(*arguments, environ=environ, stdin=stdin)

    return run


def test_put_get_del(run: Run) -> None:
    assert run("put", "hand/a", "one").stdout == b"OK\n"
    assert run("put", "hand/b", "-", stdin=b"from\0stdin").returncode == 0
    assert run("get", "hand/a").stdout == b"hand/a\none\n"
    assert run("get", "--prefix", "hand/").stdout == b"hand/a\none\nhand/b\nfrom\0stdin\n"
    assert run("get", "--prefix", "hand/", "--keys-only").stdout == b"hand/a\nhand/b\n"
    answer = json.loads(run("get", "hand/a", "-w", "json").stdout)
    assert answer["kvs"][0]["value"] == "b25l"
    old = answer["header"]["revision"]
    assert run("put", "hand/a", "two").returncode == 0
    assert run("get", "hand/a", f"--rev={old}", "--print-value-only").stdout == b"one\n"
    assert run("del", "--prefix", "hand/").stdout == b"2\n"
    assert run("get", "--prefix", "hand/").stdout == b""


def test_watch(run: Run, environ: dict[str, str], tmp_path: Path) -> None:
    answer = json.loads(run("put", "seen/a", "one", "-w", "json").stdout)
    first = answer["header"]["revision"]
    watch = Foreground(
        ["watch", "--prefix", "seen/", f"--rev={first}"], tmp_path / "seen", environ=environ
    )
    try:
        watch.wait_output("PUT\nseen/a\none\n")
        run("put", "seen/b", "two")
        run("del", "seen/a")
        watch.wait_output("PUT\nseen/a\none\nPUT\nseen/b\ntwo\nDELETE\nseen/a\n")
        assert watch.end(signal.SIGINT) == INTERRUPTED
    finally:
        watch.discard()


def test_leases(run: Run) -> None:
    granted = run("lease", "grant", "60").stdout.decode()
    match = re.fullmatch(r"lease ([0-9a-f]{16}) granted with TTL\(60s\)\n", granted)
    assert match, granted
    lease = match[1]
    assert run("put", "leased", "x", f"--lease={lease}").returncode == 0
    assert b"attached keys([leased])" in run("lease", "timetolive", lease, "--keys").stdout
    assert b"keepalived with TTL(60)" in run("lease", "keep-alive", lease, "--once").stdout
    assert lease.encode() in run("lease", "list").stdout
    assert run("lease", "revoke", lease).returncode == 0
    assert run("get", "leased").stdout == b""
    assert run("lease", "revoke", lease).returncode == REFUSED


def test_status_and_members(run: Run, calm_cluster: Cluster) -> None:
    status = run("status").stdout.decode()
    members = run("member", "list").stdout.decode()
    for member in calm_cluster.members:
        assert member.client_url in status
        assert member.client_url in members
        assert member.name in members


def test_exit_codes_tell_errors_apart(run: Run) -> None:
    refused = run("get", "x", "--rev=1000000000")
    assert refused.returncode == REFUSED
    assert b"required revision is a future revision" in refused.stderr
    assert run("get").returncode == USAGE
    nobody = run("get", "x", f"--endpoints=127.0.0.1:{free_ports(1)[0]}")
    assert nobody.returncode == UNREACHABLE
    assert b"Connection refused" in nobody.stderr

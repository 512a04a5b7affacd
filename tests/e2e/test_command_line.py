"""The cluster by hand: keys, watches, leases, locks, users, upkeep, and the exit codes."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, free_ports
from tests.e2e.commands import Foreground, kvstore
from tests.e2e.processes import wait_for

Run = Callable[..., subprocess.CompletedProcess[bytes]]

INTERRUPTED = 130
WAIT_SECONDS = 30.0
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


def test_a_transaction(run: Run) -> None:
    typed = b'create("txn/a") = "0"\n\nput txn/a mine\n\nget txn/a\n\n'
    assert run("txn", stdin=typed).stdout == b"SUCCESS\n\nOK\n"
    assert run("txn", stdin=typed).stdout == b"FAILURE\n\ntxn/a\nmine\n"


def test_a_lock_is_held_by_one_at_a_time(run: Run, environ: dict[str, str], tmp_path: Path) -> None:
    holder = Foreground(["lock", "locks/one"], tmp_path / "holder", environ=environ)
    try:
        holder.wait_output("locks/one/")
        waiter = Foreground(
            ["lock", "locks/one", "sh", "-c", "echo got $KVSTORE_LOCK_KEY"],
            tmp_path / "waiter",
            environ=environ,
        )
        try:
            wait_for("two that want it", lambda: run_count(run, "locks/one/") == 2, WAIT_SECONDS)
            assert waiter.output() == ""
            assert holder.end(signal.SIGTERM) == 0
            waiter.wait_output("got locks/one/")
            assert waiter.process.wait(WAIT_SECONDS) == 0
        finally:
            waiter.discard()
    finally:
        holder.discard()
    assert run_count(run, "locks/one/") == 0


def run_count(run: Run, prefix: str) -> int:
    return int(run("get", "--prefix", prefix, "--count-only").stdout)


def test_an_election(run: Run, environ: dict[str, str], tmp_path: Path) -> None:
    listener = Foreground(["elect", "--listen", "votes"], tmp_path / "listener", environ=environ)
    leader = Foreground(["elect", "votes", "me"], tmp_path / "leader", environ=environ)
    try:
        leader.wait_output("\nme\n")
        listener.wait_output("\nme\n")
        assert leader.end(signal.SIGINT) == 0
        assert listener.end(signal.SIGINT) == INTERRUPTED
    finally:
        leader.discard()
        listener.discard()


def test_upkeep(run: Run, calm_cluster: Cluster, tmp_path: Path) -> None:
    run("put", "kept", "x")
    assert run("endpoint", "health").stdout.count(b"is healthy") == len(calm_cluster.members)
    wait_for("equal hashes", lambda: len(hashes(run)) == 1, WAIT_SECONDS)
    file = tmp_path / "backup"
    saved = run("snapshot", "save", str(file))
    assert saved.stdout == f"Snapshot saved at {file}\n".encode()
    assert hashlib.sha256(file.read_bytes()).hexdigest().encode() in saved.stderr
    revision = json.loads(run("get", "kept", "-w", "json").stdout)["header"]["revision"]
    assert run("compaction", str(revision), "--physical").returncode == 0
    assert run("get", "kept", "--rev=1").returncode == REFUSED
    assert run("defrag").returncode == 0

    ids = {line.split(b", ")[0] for line in run("member", "list").stdout.splitlines()}
    status = run("endpoint", "status", "--cluster").stdout.splitlines()
    leaders = {row.split(b", ")[1] for row in status if row.split(b", ")[8] == b"true"}
    (target, *_) = sorted(ids - leaders)
    moved = run("move-leader", target.decode())
    assert moved.stdout.endswith(b" to " + target + b"\n"), moved.stderr


def hashes(run: Run) -> set[bytes]:
    rows = run("endpoint", "hashkv").stdout.splitlines()
    return {row.partition(b", ")[2] for row in rows}


def test_users(run: Run, environ: dict[str, str]) -> None:
    root = {"KVSTORE_USER": "root", "KVSTORE_PASSWORD": "top"}
    ann = {"KVSTORE_USER": "ann", "KVSTORE_PASSWORD": "ann's"}

    def as_user(user: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return kvstore(*arguments, environ=environ | user)

    for name, password in (("root", b"top\n"), ("ann", b"ann's\n")):
        assert run("user", "add", name, "--password-stdin", stdin=password).returncode == 0
    for words in (
        "role add root", "user grant-role root root", "role add reader",
        "role grant-permission reader read --prefix hand/", "user grant-role ann reader",
        "put hand/c 1", "auth enable",
    ):  # fmt: skip
        assert run(*words.split()).returncode == 0, words
    try:
        assert b"hint: authentication is on" in run("get", "hand/c").stderr
        assert as_user(ann, "get", "hand/c").stdout == b"hand/c\n1\n"
        assert b"permission denied" in as_user(ann, "put", "hand/c", "2").stderr
        assert b"permission denied" in as_user(ann, "watch", "other").stderr
        assert b"invalid user ID or password" in as_user(root | {"KVSTORE_PASSWORD": "x"}, "get",
                                                         "a").stderr  # fmt: skip
        assert as_user(root, "user", "get", "ann").stdout == b"User: ann\nRoles: reader\n"
        assert b"is healthy" in as_user(ann, "endpoint", "health").stdout
    finally:
        assert as_user(root, "auth", "disable").returncode == 0
    for words in ("user delete ann", "user delete root", "role delete reader", "role delete root"):
        assert run(*words.split()).returncode == 0, words


def test_exit_codes_tell_errors_apart(run: Run) -> None:
    refused = run("get", "x", "--rev=1000000000")
    assert refused.returncode == REFUSED
    assert b"required revision is a future revision" in refused.stderr
    assert run("get").returncode == USAGE
    nobody = run("get", "x", f"--endpoints=127.0.0.1:{free_ports(1)[0]}")
    assert nobody.returncode == UNREACHABLE
    assert b"Connection refused" in nobody.stderr

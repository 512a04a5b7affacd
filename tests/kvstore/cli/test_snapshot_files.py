"""``kvstore snapshot status`` and ``restore``: on files, without asking anybody."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kvstore.types import AlarmAction, AlarmRequest, AlarmType
from tests.kvstore.apply.support import captured
from tests.kvstore.server.test_backup import PLAIN, SAVED, SENT, rig, snapshot_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "backup"
    path.write_bytes(SAVED)
    # As on a medium that is kept safe.
    path.chmod(0o400)
    return path


def test_status_says_what_a_file_holds(run, file: Path):
    code, out, err = run("snapshot", "status", str(file), "-w", "json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told.pop("hash") > 0
    assert told == {"revision": 3, "totalKey": 2, "totalSize": len(SAVED), "version": ""}


def test_status_in_a_line_and_in_a_table(run, file: Path):
    value = json.loads(run("snapshot", "status", str(file), "-w", "json")[1])["hash"]
    assert run("snapshot", "status", str(file)) == (
        0,
        f"{value:x}, 3, 2, {len(SAVED)} B, \n".encode(),
        "",
    )
    lines = run("snapshot", "status", str(file), "-w", "table")[1].decode().splitlines()
    shown = [" ".join(line.split()) for line in (lines[1], lines[3])]
    assert shown == [
        "| HASH | REVISION | TOTAL KEYS | TOTAL SIZE | VERSION |",
        f"| {value:x} | 3 | 2 | {len(SAVED)} B | |",
    ]


@pytest.mark.parametrize("offset", [9, len(PLAIN) // 2, len(PLAIN) - 1, len(SENT) - 1, len(SENT)])
@pytest.mark.parametrize("command", [["status"], ["restore", "--data-dir=made"]])
def test_a_damaged_file_is_refused_with_the_place(
    run, tmp_path: Path, monkeypatch, command: list[str], offset: int
):
    monkeypatch.chdir(tmp_path)
    content = bytearray(SAVED)
    content[offset] ^= 1
    Path("backup").write_bytes(content)
    code, out, err = run("snapshot", *command, "backup")
    assert (code, out) == (1, b"")
    assert err.lower().startswith("error: backup: damaged at byte ")
    assert os.listdir() == ["backup"]


@pytest.mark.parametrize("command", ["status", "restore"])
def test_a_file_that_is_not_there_is_named(run, tmp_path: Path, monkeypatch, command: str):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("snapshot", command, "nowhere")
    assert (code, err) == (1, "Error: nowhere: No such file or directory\n")
    assert run("snapshot", command, str(tmp_path))[2] == f"Error: {tmp_path}: Is a directory\n"
    assert os.listdir() == []


def test_a_member_is_restored_and_its_flags_are_taken_from_nowhere_else(
    run, file: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("KVSTORE_NAME", "of-another")
    monkeypatch.setenv("ETCD_INITIAL_CLUSTER", "x=http://x:1")
    made = tmp_path / "n1"
    flags = (
        f"--data-dir={made}",
        "--name=n1",
        "--initial-cluster=n1=http://a:2380,n2=http://b:2380",
        "--initial-cluster-token=t",
    )
    code, out, err = run("snapshot", "restore", str(file), *flags)
    assert code == 0, err
    assert f"Restored {file}, revision 3 with 2 keys, as member " in out.decode()
    assert f"start it: kvstore serve --name=n1 --data-dir={made} --initial-cluster=n1=" in err
    assert sorted(path.name for path in (made / "member").iterdir()) == ["snap", "wal"]
    code, _, err = run("snapshot", "restore", str(file), *flags)
    assert code == 2
    assert "is not empty" in err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--bump-revision=5"], "are given together"),
        (["--mark-compacted"], "are given together"),
        (["--bump-revision=-1", "--mark-compacted"], "is not in the range"),
        (["--name=c"], "does not name this member"),
        (["--initial-advertise-peer-urls=http://c:1"], "--initial-advertise-peer-urls says"),
        (["--initial-cluster=a"], "--initial-cluster"),
    ],
)
def test_flags_that_do_not_go_together_are_refused_first(
    run, tmp_path: Path, flags: list[str], words: str
):
    made = tmp_path / "made"
    given = [f"--data-dir={made}", "--name=a", "--initial-cluster=a=http://a:2380", *flags]
    code, _, err = run("snapshot", "restore", str(tmp_path / "backup"), *given)
    assert code == 2
    assert words in err
    assert not made.exists()


def test_a_wrong_digest_can_be_passed_over_and_what_goes_is_told(run, tmp_path: Path):
    made = rig()
    made.run(AlarmRequest(AlarmAction.ACTIVATE, 0xAB, AlarmType.NOSPACE))
    content = snapshot_file(captured(made.machine))
    content += bytes(-len(content) % 512) + bytes(32)
    file = tmp_path / "backup"
    file.write_bytes(content)
    flags = [f"--data-dir={tmp_path / 'made'}", "--bump-revision=7", "--mark-compacted"]
    code, _, err = run("snapshot", "restore", str(file), *flags)
    assert code == 1
    assert "SHA-256" in err
    code, out, err = run("snapshot", "restore", str(file), *flags, "--skip-hash-check")
    assert code == 0
    assert "revision 10 with 2 keys" in out.decode()
    assert "the alarm NOSPACE of member ab has gone with the old cluster" in err

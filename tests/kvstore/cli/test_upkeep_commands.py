"""Commands of an operator: health, status, hashes, snapshots, compaction, leadership."""

from __future__ import annotations

import json
import stat

import pytest

from kvstore.client import UnreachableError
from kvstore.client.maintenance import SavedSnapshot
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.types import (
    AlarmMember,
    AlarmResponse,
    AlarmType,
    CompactionResponse,
    DefragmentResponse,
    DowngradeAction,
    DowngradeInfo,
    DowngradeResponse,
    HashKVResponse,
    Member,
    MemberListResponse,
    MoveLeaderResponse,
    ResponseHeader,
    StatusResponse,
)

TWO = "--endpoints=a:1,b:2"
NOBODY = UnreachableError(Code.UNAVAILABLE, "nobody there")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("kvstore.cli.endpoint.took_text", lambda _: "1ms")
    monkeypatch.setattr("kvstore.cli.upkeep.took_text", lambda _: "1ms")


def test_health_is_said_of_each_endpoint(fake, run, quick):
    fake.answers.update(check_health=[None, NOBODY], alarm_list=AlarmResponse())
    code, out, err = run("endpoint", "health", TWO)
    assert code == 1
    assert out == b"http://a:1 is healthy: successfully committed proposal: took = 1ms\n"
    assert err.startswith(
        "http://b:2 is unhealthy: failed to commit proposal: nobody there\nerror: unhealthy cluster"
    )


def test_health_with_an_alarm_is_none(fake, run, quick):
    raised = [AlarmMember(7, AlarmType.NOSPACE), AlarmMember(8, AlarmType.NOSPACE)]
    fake.answers.update(check_health=None, alarm_list=AlarmResponse(alarms=raised))
    code, out, _ = run("endpoint", "health", "-w", "json")
    assert code == 1
    assert json.loads(out) == [
        {
            "endpoint": "http://127.0.0.1:2379",
            "health": False,
            "took": "1ms",
            "error": "Active Alarm(s): NOSPACE",
        }
    ]


def test_all_members_are_asked_on_request(fake, run, quick):
    members = [Member(1, "n1", (), ("http://c:1", "http://c:2")), Member(2, "n2", (), ())]
    fake.answers.update(
        member_list=MemberListResponse(members=members),
        check_health=None,
        alarm_list=AlarmResponse(),
    )
    code, out, _ = run("endpoint", "health", "--cluster")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [b"http://c:1", b"http://c:2"]
    fake.answers["member_list"] = MemberListResponse(members=[Member(2)])
    assert run("endpoint", "health", "--cluster")[0] == 1


def test_endpoint_status_has_etcdctls_columns(fake, run):
    answer = StatusResponse(
        ResponseHeader(1, 0x2A, 3, 4), "3.7.1", 2_500_000, 0x2A, 9, 4, 8, ["x", "y"],
        1_250_000, False, "3.7.0", 2_000_000_000, DowngradeInfo(True, "3.6.0"),
    )  # fmt: skip
    fake.answers["status"] = answer
    assert run("endpoint", "status") == (
        0,
        b"http://127.0.0.1:2379, 2a, 3.7.1, 3.7.0, 2.5 MB, 1.2 MB, 50%, 2.0 GB, true, false, "
        b"4, 9, 8, x, y, 3.6.0, true\n",
        "",
    )
    (shown,) = json.loads(run("endpoint", "status", "-w", "json")[1])
    assert shown["Endpoint"] == "http://127.0.0.1:2379"
    assert shown["Status"]["dbSizeInUse"] == 1_250_000


def test_hashes(fake, run):
    fake.answers["hash_kv"] = [HashKVResponse(None, 77, -1, 5), NOBODY]
    code, out, err = run("endpoint", "hashkv", "--rev=5", TWO)
    assert (code, out, err) == (1, b"http://a:1, 77, 5\n", "error: http://b:2: nobody there\n")
    assert [call[1][0] for call in fake.calls if call[0] == "hash_kv"] == [5, 5]


def test_rows_can_be_shown_as_a_table(fake, run, quick):
    fake.answers.update(
        hash_kv=[HashKVResponse(None, 77, -1, 5), HashKVResponse(None, 7, -1, 5), NOBODY],
        status=StatusResponse(),
        check_health=[None, NOBODY],
        alarm_list=AlarmResponse(),
    )
    assert run("endpoint", "hashkv", TWO, "-w", "table")[1].decode() == (
        "+------------+------+---------------+\n"
        "| ENDPOINT   | HASH | HASH_REVISION |\n"
        "+------------+------+---------------+\n"
        "| http://a:1 | 77   | 5             |\n"
        "| http://b:2 | 7    | 5             |\n"
        "+------------+------+---------------+\n"
    )
    assert run("endpoint", "hashkv", "-w", "table")[1].count(b"\n") == 3
    assert b"DOWNGRADE ENABLED" in run("endpoint", "status", "-w", "table")[1]
    out = run("endpoint", "health", TWO, "-w", "table")[1].decode()
    assert "| http://b:2 | false  | 1ms  | nobody there |\n" in out


def test_compaction(fake, run):
    fake.answers["compact"] = CompactionResponse()
    assert run("compaction", "9", "--physical") == (0, b"compacted revision 9\n", "")
    assert fake.calls[-1] == ("compact", (9,), {"physical": True})


def test_defrag_asks_each(fake, run, quick):
    fake.answers["defragment"] = [NOBODY, DefragmentResponse()]
    code, out, err = run("defrag", TWO)
    assert code == 1
    assert out == b"Finished defragmenting member[http://b:2]. took 1ms\n"
    assert err == "error: failed to defragment member[http://a:1]: nobody there\n"


def test_move_leader_asks_the_leader(fake, run):
    leader = object()
    fake.answers.update(
        member_list=MemberListResponse(members=[Member(1, "n1", (), ("http://c:1",))]),
        leader_endpoint=[leader, None],
        status=StatusResponse(leader=0x2A),
        move_leader=MoveLeaderResponse(),
    )
    assert run("move-leader", "2b") == (0, b"Leadership transferred from 2a to 2b\n", "")
    assert fake.calls[-1] == ("move_leader", (0x2B, leader), {})
    code, _, err = run("move-leader", "2b")
    assert code == 1
    assert "no leader answers" in err
    code, _, err = run("move-leader", "node1")
    assert code == 2
    assert "member list" in err


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["validate", "3.6.0"], (DowngradeAction.VALIDATE, "3.6.0")),
        (["enable", "3.6"], (DowngradeAction.ENABLE, "3.6")),
        (["cancel"], (DowngradeAction.CANCEL, "")),
    ],
)
def test_downgrade(fake, run, arguments, asked):
    fake.answers["downgrade"] = DowngradeResponse(version="3.7")
    words = f"Downgrade {arguments[0]} success, cluster version 3.7\n"
    assert run("downgrade", *arguments) == (0, words.encode(), "")
    assert fake.calls[-1][1] == asked


# --- Snapshots ------------------------------------------------------------------------------------


def given(*pieces, error=None):
    """A client that saves these pieces, then fails or not."""

    def save_snapshot(self, write, *, progress):
        for piece in pieces:
            write(piece)
            progress(100, 50)
        if error is not None:
            raise error
        return SavedSnapshot(1500, "abc", "3.7.0")

    return save_snapshot


def test_a_snapshot_is_saved(fake, run, tmp_path, monkeypatch):
    monkeypatch.setattr(fake, "save_snapshot", given(b"12", b"34"), raising=False)
    file = tmp_path / "backup"
    code, out, err = run("snapshot", "save", str(file))
    assert (code, out) == (0, f"Snapshot saved at {file}\n".encode())
    assert err == "1.5 kB, SHA-256 abc\nServer version 3.7.0\n"
    assert file.read_bytes() == b"1234"
    assert list(tmp_path.iterdir()) == [file]


def test_a_snapshot_can_be_read_by_nobody_else(fake, run, tmp_path, monkeypatch):
    monkeypatch.setattr(fake, "save_snapshot", given(b"12", b"34"), raising=False)
    file = tmp_path / "backup"
    left = tmp_path / "backup.part"
    left.write_bytes(b"of another try")
    left.chmod(0o666)
    assert run("snapshot", "save", str(file))[0] == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_snapshot_that_fails_leaves_the_file_of_before(fake, run, tmp_path, monkeypatch):
    broken = KvError(Code.DATA_LOSS, "damaged")
    monkeypatch.setattr(fake, "save_snapshot", given(b"12", error=broken), raising=False)
    file = tmp_path / "backup"
    file.write_bytes(b"before")
    code, out, err = run("snapshot", "save", str(file))
    assert (code, out, err) == (1, b"", "error: damaged\n")
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_snapshot_that_cannot_be_written_says_where(fake, run, tmp_path, monkeypatch):
    monkeypatch.setattr(fake, "save_snapshot", given(), raising=False)
    code, _, err = run("snapshot", "save", str(tmp_path / "no" / "backup"))
    assert code == 1
    assert "No such file" in err


def test_progress_is_shown_on_a_terminal_only_when_it_grows(capsys, monkeypatch):
    from kvstore.cli.snapshot import _Progress

    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = _Progress()
    for left in (990, 989, 500, 0):
        progress(1000, left)
    assert capsys.readouterr().err == "\r  1 % of 1.0 kB\r 50 % of 1.0 kB\r100 % of 1.0 kB\n"


def test_the_words_of_the_server_reach_the_operator(fake, run):
    fake.answers["compact"] = ErrorKind.FUTURE_REVISION.error()
    assert run("compaction", "1") == (1, b"", f"error: {ErrorKind.FUTURE_REVISION.message}\n")

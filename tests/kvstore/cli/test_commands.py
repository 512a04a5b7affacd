"""What the commands ask of the cluster, what they print, and their exit codes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import pytest

from kvstore.cli.main import COMMANDS
from kvstore.client import UnreachableError
from kvstore.errors import Code, ConfigError, ErrorKind
from kvstore.types import (
    AlarmMember,
    AlarmResponse,
    AlarmType,
    DeleteRangeResponse,
    Event,
    EventType,
    KeyValue,
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseLeasesResponse,
    LeaseRevokeResponse,
    LeaseStatus,
    LeaseTimeToLiveResponse,
    Member,
    MemberListResponse,
    PutResponse,
    RangeResponse,
    ResponseHeader,
    SortOrder,
    SortTarget,
    StatusResponse,
    WatchResponse,
)

A = KeyValue(b"a", 1, 3, 2, b"\xff\x00", 0)
B = KeyValue(b"b", 2, 2, 1, b"2", 0)


class FakeStream:
    def __init__(self, responses):
        self.responses = responses

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def __iter__(self):
        return iter(self.responses)


def test_get_prints_keys_and_values_as_they_are(fake, run):
    fake.answers["get"] = RangeResponse(kvs=[A, B], count=2)
    assert run("get", "a", "--prefix") == (0, b"a\n\xff\x00\nb\n2\n", "")
    assert fake.calls[-1][1] == (b"a", b"b")
    assert run("get", "a", "--print-value-only")[1] == b"\xff\x00\n2\n"
    assert run("get", "a", "--keys-only")[1] == b"a\nb\n"
    assert run("get", "a", "--count-only")[1] == b"2\n"


def test_get_passes_its_options_on(fake, run):
    fake.answers["get"] = RangeResponse()
    code, out, _ = run(
        "get", "--from-key", "", "--rev=4", "--limit=3", "--order=descend", "--sort-by=modify",
        "--consistency=s",
    )  # fmt: skip
    assert (code, out) == (0, b"")
    _, args, kwargs = fake.calls[-1]
    assert args == (b"\0", b"\0")
    assert kwargs["revision"] == 4
    assert kwargs["limit"] == 3
    assert kwargs["sort_order"] is SortOrder.DESCEND
    assert kwargs["sort_target"] is SortTarget.MOD
    assert kwargs["serializable"] is True


def test_json_is_the_whole_answer(fake, run):
    fake.answers["get"] = RangeResponse(ResponseHeader(1, 2, 3, 4), [B], False, 1)
    code, out, _ = run("get", "b", "-w", "json")
    assert code == 0
    assert json.loads(out) == {
        "header": {"cluster_id": 1, "member_id": 2, "revision": 3, "raft_term": 4},
        "kvs": [
            {"key": "Yg==", "create_revision": 2, "mod_revision": 2, "version": 1, "value": "Mg=="}
        ],
        "count": 1,
    }


@pytest.mark.parametrize("arguments", [["k", "-"], ["k"]])
def test_put_reads_standard_input(fake, run, monkeypatch, arguments):
    fake.answers["put"] = PutResponse(prev_kv=B)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n")))
    assert run("put", *arguments, "--prev-kv", "--lease=2a") == (0, b"OK\nb\n2\n", "")
    _, args, kwargs = fake.calls[-1]
    assert args == (b"k", b"\xff\n")
    assert kwargs["lease"] == 42


def test_put_with_ignore_value_takes_none(fake, run):
    fake.answers["put"] = PutResponse()
    assert run("put", "k", "--ignore-value")[0] == 0
    assert fake.calls[-1][1] == (b"k", b"")
    code, _, err = run("put", "k", "v", "--ignore-value")
    assert code == 2
    assert "leave VALUE out" in err


def test_del_prints_how_many(fake, run):
    fake.answers["delete"] = DeleteRangeResponse(deleted=2, prev_kvs=[B])
    assert run("del", "a", "c", "--prev-kv") == (0, b"2\nb\n2\n", "")
    assert fake.calls[-1][1] == (b"a", b"c")


def test_a_range_has_one_end(fake, run):
    code, _, err = run("del", "a", "c", "--prefix")
    assert code == 2
    assert "exclude each other" in err


def test_watch_prints_events(fake, run):
    fake.answers["watch"] = FakeStream(
        [
            WatchResponse(events=[Event(EventType.PUT, B), Event(EventType.DELETE, A)]),
            WatchResponse(header=ResponseHeader(revision=9)),
        ]
    )
    expected = b"PUT\nb\n2\nDELETE\na\nprogress notify: 9\n"
    assert run("watch", "--prefix", "", "--rev=3", "--progress-notify") == (0, expected, "")
    assert fake.calls[-1][1] == (b"\0", b"\0")
    assert fake.calls[-1][2]["start_revision"] == 3


def test_lease_commands(fake, run, monkeypatch):
    fake.answers.update(
        lease_grant=LeaseGrantResponse(ID=0x2A, TTL=60),
        lease_revoke=LeaseRevokeResponse(),
        lease_keep_alive=LeaseKeepAliveResponse(ID=0x2A, TTL=60),
        lease_time_to_live=[
            LeaseTimeToLiveResponse(ID=0x2A, TTL=59, grantedTTL=60, keys=[b"b", b"a"]),
            LeaseTimeToLiveResponse(ID=0x2A, TTL=-1),
        ],
        lease_list=LeaseLeasesResponse(leases=[LeaseStatus(0x2A)]),
    )
    name = b"lease 000000000000002a "
    assert run("lease", "grant", "60")[1] == name + b"granted with TTL(60s)\n"
    assert run("lease", "revoke", "2a")[1] == name + b"revoked\n"
    assert run("lease", "keep-alive", "2a", "--once")[1] == name + b"keepalived with TTL(60)\n"
    assert run("lease", "timetolive", "2a", "--keys")[1] == (
        name + b"granted with TTL(60s), remaining(59s), attached keys([a b])\n"
    )
    assert run("lease", "timetolive", "2a")[1] == name + b"already expired\n"
    assert run("lease", "list")[1] == b"found 1 leases\n000000000000002a\n"
    code, _, err = run("lease", "revoke", "xyz")
    assert code == 2
    assert "hexadecimal" in err


def test_keep_alive_goes_on_until_the_lease_is_lost(fake, run, monkeypatch):
    fake.answers["lease_keep_alive"] = [
        LeaseKeepAliveResponse(ID=1, TTL=6),
        LeaseKeepAliveResponse(ID=1, TTL=6),
        ErrorKind.LEASE_NOT_FOUND.error(),
    ]
    pauses: list[float] = []
    monkeypatch.setattr("kvstore.cli.lease.time.sleep", pauses.append)
    code, out, err = run("lease", "keep-alive", "1")
    assert (code, out.count(b"keepalived"), pauses) == (1, 2, [2.0, 2.0])
    assert "lease not found" in err


def test_status_asks_each_endpoint_and_fails_if_one_does(fake, run):
    fake.answers["status"] = [
        StatusResponse(ResponseHeader(1, 0x2A, 3, 4), "3.7.1", 2_500_000, 0x2A, 9, 4, 8),
        UnreachableError(Code.UNAVAILABLE, "nobody there"),
    ]
    code, out, err = run("status", "--endpoints=a:1,http://b:2")
    assert code == 1
    assert out == b"http://a:1, 2a, 3.7.1, 2.5 MB, leader, term 4, index 9, applied 8\n"
    assert err == "error: http://b:2: nobody there\n"


def test_member_list(fake, run):
    fake.answers["member_list"] = MemberListResponse(
        members=[Member(0x2A, "n1", ("http://p:1",), ("http://c:1", "http://d:1")), Member(0x2B)]
    )
    assert run("member", "list")[1] == (
        b"2a, started, n1, http://p:1, http://c:1,http://d:1, false\n2b, unstarted, , , , false\n"
    )
    assert b"| 2b | unstarted | " in run("member", "list", "-w", "table")[1]


def test_alarm_list_prints_one_a_line(fake, run):
    raised = [AlarmMember(7, AlarmType.NOSPACE), AlarmMember(8, AlarmType.CORRUPT)]
    fake.answers["alarm_list"] = AlarmResponse(alarms=[*raised, AlarmMember(9, 99)])
    assert run("alarm", "list") == (
        0, b"memberID:7 alarm:NOSPACE\nmemberID:8 alarm:CORRUPT\nmemberID:9 alarm:99\n", ""
    )  # fmt: skip
    fake.answers["alarm_list"] = AlarmResponse()
    assert run("alarm", "list") == (0, b"", "")


def test_alarm_disarm_clears_each_alarm_by_its_own_member_and_type(fake, run):
    raised = [AlarmMember(7, AlarmType.NOSPACE), AlarmMember(8, AlarmType.NOSPACE)]
    fake.answers["alarm_list"] = AlarmResponse(alarms=raised)
    fake.answers["alarm_disarm"] = [
        AlarmResponse(ResponseHeader(revision=3), [raised[0]]),
        AlarmResponse(ResponseHeader(revision=4), [raised[1]]),
    ]
    code, out, _ = run("alarm", "disarm", "-w", "json")
    assert code == 0
    assert json.loads(out) == {
        "header": {"revision": 4},
        "alarms": [{"memberID": 7, "alarm": "NOSPACE"}, {"memberID": 8, "alarm": "NOSPACE"}],
    }
    assert [args for name, args, _ in fake.calls if name == "alarm_disarm"] == [
        (raised[0],),
        (raised[1],),
    ]


def test_alarm_disarm_without_an_alarm_does_nothing(fake, run):
    fake.answers["alarm_list"] = AlarmResponse()
    assert run("alarm", "disarm") == (0, b"", "")
    assert [call[0] for call in fake.calls] == ["connect", "alarm_list"]


def test_endpoints_come_from_the_environment(fake, run, monkeypatch):
    fake.answers["get"] = RangeResponse()
    monkeypatch.setenv("KVSTORE_ENDPOINTS", "a:1, b:2")
    monkeypatch.setenv("KVSTORE_TIMEOUT", "3")
    assert run("get", "k")[0] == 0
    assert fake.calls[0] == ("connect", ("a:1", "b:2"), 3.0)


def test_endpoints_that_are_none_are_wrong_usage(run):
    code, _, err = run("get", "k", "--endpoints=ftp://a:1")
    assert code == 2
    assert "http://host:port" in err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ErrorKind.NO_SPACE.error(), 1, "error: etcdserver: mvcc: database space exceeded"),
        (ErrorKind.TIMEOUT.unknown_outcome(), 3, "error: outcome unknown: "),
        (UnreachableError(Code.UNAVAILABLE, "no endpoint"), 4, "error: no endpoint"),
    ],
)
def test_exit_codes_tell_refused_from_unknown_from_unreachable(fake, run, error, code, words):
    fake.answers["put"] = error
    found, out, err = run("put", "k", "v")
    assert (found, out) == (code, b"")
    assert err.startswith(words)
    assert [line for line in err.splitlines()[1:] if not line.startswith("hint: ")] == []


def test_an_error_is_followed_by_what_to_do_next(fake, run):
    fake.answers["put"] = [ErrorKind.USER_EMPTY.error(), ErrorKind.KEY_NOT_FOUND.error()]
    _, _, err = run("put", "k", "v")
    assert err == (
        "error: etcdserver: user name is empty\n"
        "hint: authentication is on: say who you are with --user or KVSTORE_USER\n"
    )
    assert run("put", "k", "v")[2] == "error: etcdserver: key not found\n"


def test_hints_name_commands_and_options_that_exist(run):
    from kvstore.cli.main import HINTS

    for hint in HINTS.values():
        for words in re.findall(r"'kvstore ([a-z-]+(?: [a-z-]+)?)", hint):
            assert run(*words.split(), "--help")[0] == 0, words


def test_every_command_of_the_table_exists_and_helps(run):
    for name in COMMANDS:
        code, out, _ = run(name, "--help")
        assert code == 0
        assert out.startswith(f"Usage: kvstore {name} ".encode())
    assert run("nonsense")[0] == 2
    assert run("--help")[0] == 0


def test_serve_help_names_every_setting_and_its_variable(run):
    from kvstore.config import settings
    from kvstore.config_sources import variables

    _, out, _ = run("serve", "--help")
    text = "".join(out.decode().split())
    for flag in settings():
        assert f"--{flag}" in text
        assert variables(flag)[0] in text


def test_serve_refuses_a_wrong_setting(run):
    code, _, err = run("serve", "--heartbeat-interval=x")
    assert code == 2
    assert "--heartbeat-interval: must be a whole number" in err


def test_serve_takes_the_flags_of_etcd_that_it_does_not_have(run, monkeypatch):
    """With a value or, where Go knows a switch, without; shown in no help."""
    from kvstore.cli import serve
    from kvstore.config_absent import ABSENT

    seen = []

    def note_and_refuse(flags, *_):
        seen.append(flags)
        raise ConfigError("seen")

    monkeypatch.setattr(serve, "load", note_and_refuse)
    assert run("serve", "--enable-pprof", "--wal-dir=/w", "--experimental-memory-mlock=x")[0]
    assert seen.pop() == {"enable-pprof": "true", "wal-dir": "/w", "memory-mlock": "x"}
    assert run("serve", "--strict-reconfig-check", "--max-learners=2")[0]
    assert seen.pop() == {"strict-reconfig-check": "true", "max-learners": "2"}
    for flag in ABSENT:
        run("serve", f"--{flag}=x")
        assert seen.pop() == {flag: "x"}
    assert b"--enable-pprof" not in run("serve", "--help")[1]


def test_serve_refuses_half_a_certificate_and_a_flag_that_nobody_knows(run):
    code, _, err = run("serve", "--client-cert-auth", "--cert-file", "a.pem")
    assert code == 2
    assert "--cert-file: needs --key-file" in err
    code, _, err = run("serve", "--nonsense=1")
    assert code == 2
    assert "No such option" in err


def test_asking_imports_no_server():
    """So that `kvstore get` starts in a fraction of the time that aiohttp alone takes."""
    script = (
        "import sys; from kvstore.cli.main import main; main(['get', '--help']); "
        "heavy = {'aiohttp', 'asyncio', 'rich', 'yaml', 'uvloop', 'kvstore.config'}; "
        "sys.exit(str(sorted(heavy & set(sys.modules)) if heavy & set(sys.modules) else ''))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert answer.stderr.strip() == ""


def test_serve_refuses_to_run_without_its_asserts():
    arguments = [sys.executable, "-O", "-m", "kvstore.cli", "serve"]
    answer = subprocess.run(arguments, capture_output=True, text=True, timeout=30)
    assert answer.returncode == 2
    assert "-O" in answer.stderr

"""Locks and elections at the command line: what is held, for how long, and how it is given back."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from kvstore.cli import lock as lock_commands
from kvstore.cli import session as session_room
from kvstore.errors import ErrorKind
from kvstore.types import (
    CampaignResponse,
    KeyValue,
    LeaderKey,
    LeaderResponse,
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseRevokeResponse,
    LockResponse,
    RangeResponse,
    ResignResponse,
    UnlockResponse,
)

KEY = KeyValue(b"lock/4d", 9, 9, 1, b"", 0x4D)
SHOW = "import os; print(os.environ['{0}_LOCK_KEY'], os.environ['{0}_LOCK_REV'], flush=True)"
LEADER = LeaderKey(b"e", b"e/4d", 9, 0x4D)


@pytest.fixture
def held(fake):
    """A cluster that gives everything at once."""
    fake.answers.update(
        lease_grant=LeaseGrantResponse(ID=0x4D, TTL=10),
        lease_keep_alive=LeaseKeepAliveResponse(ID=0x4D, TTL=10),
        lease_revoke=LeaseRevokeResponse(),
        lock=LockResponse(key=KEY.key),
        unlock=UnlockResponse(),
        campaign=CampaignResponse(leader=LEADER),
        resign=ResignResponse(),
        get=RangeResponse(kvs=[KEY]),
    )
    return fake


@pytest.fixture
def beating(monkeypatch):
    """The lease is renewed, or found lost, at once."""
    monkeypatch.setattr(session_room, "BEATS_PER_TTL", 10_000)


class Interrupted:
    def wait(self):
        raise KeyboardInterrupt


@pytest.fixture
def interrupted(monkeypatch):
    """Ctrl-C as soon as there is nothing to do but to hold."""
    hold = lock_commands._hold
    held: Any = SimpleNamespace(lost=Interrupted())
    monkeypatch.setattr(lock_commands, "_hold", lambda session: hold(held))


def names(fake):
    return [call[0] for call in fake.calls if call[0] not in ("connect", "lease_keep_alive")]


@pytest.mark.parametrize("prefix", ["KVSTORE", "ETCD"])
def test_a_command_runs_under_the_lock_and_hears_its_key_and_fence(held, run, prefix):
    code, out, err = run("lock", "lock", sys.executable, "-c", SHOW.format(prefix))
    assert (code, out, err) == (0, b"lock/4d 9\n", "")
    assert names(held) == ["lease_grant", "lock", "get", "lease_revoke"]
    assert next(call for call in held.calls if call[0] == "lock")[1] == (b"lock", 0x4D)


def test_the_exit_code_of_the_command_is_ours(held, run):
    assert run("lock", "--ttl=5", "lock", sys.executable, "-c", "exit(7)")[0] == 7
    assert next(call for call in held.calls if call[0] == "lease_grant")[1] == (5,)
    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run("lock", "lock", sys.executable, "-c", script)[0] == 128 + 9
    assert held.calls[-1][0] == "lease_revoke"


def test_a_command_that_is_none_gives_the_lock_back(held, run):
    code, _, err = run("lock", "lock", "no-such-command")
    assert (code, held.calls[-1][0]) == (1, "lease_revoke")
    assert "no-such-command: No such file" in err
    code, _, err = run("lock", "lock", "--ttl=5")
    assert code == 2
    assert "options go before NAME" in err


def test_a_command_is_ended_when_the_lease_is_lost(held, run, beating):
    held.answers["lease_keep_alive"] = ErrorKind.LEASE_NOT_FOUND.error()
    script = "import threading; threading.Event().wait()"
    code, _, err = run("lock", "lock", sys.executable, "-c", script)
    assert code == 1
    assert "lease ran out" in err
    assert "command was ended" in err


def test_a_lock_is_held_until_ctrl_c_and_given_back(held, run, interrupted):
    assert run("lock", "lock") == (0, b"lock/4d\n\n", "")
    assert names(held) == ["lease_grant", "lock", "get", "unlock", "lease_revoke"]


def test_a_lock_whose_lease_is_lost_is_said_to_be(held, run, beating):
    held.answers["lease_keep_alive"] = ErrorKind.LEASE_NOT_FOUND.error()
    code, out, err = run("lock", "lock")
    assert (code, out) == (1, b"lock/4d\n\n")
    assert "may be somebody else's" in err
    held.answers["get"] = RangeResponse()
    assert run("lock", "lock")[0] == 1


def test_a_lock_that_fails_leaves_no_lease(held, run):
    held.answers["lock"] = ErrorKind.NO_LEADER.error()
    code, _, err = run("lock", "lock")
    assert (code, err) == (1, "error: etcdserver: no leader\n")
    assert names(held) == ["lease_grant", "lock", "lease_revoke"]


def test_ctrl_c_while_waiting_for_the_lock_leaves_no_lease(held, run):
    def wait(self, *_):
        raise KeyboardInterrupt

    held.lock = wait
    assert run("lock", "lock")[0] == 130
    assert names(held) == ["lease_grant", "lease_revoke"]


def test_a_leader_leads_until_ctrl_c_and_resigns(held, run, interrupted):
    held.answers["get"] = RangeResponse(kvs=[KeyValue(b"e/4d", 9, 9, 1, b"v", 0x4D)])
    assert run("elect", "e", "v") == (0, b"e/4d\nv\n", "")
    assert names(held) == ["lease_grant", "campaign", "get", "resign", "lease_revoke"]
    assert next(call for call in held.calls if call[0] == "campaign")[1] == (b"e", b"v", 0x4D)
    assert next(call for call in held.calls if call[0] == "resign")[1] == (LEADER,)


def test_a_listener_prints_each_leader(fake, run):
    fake.answers["observe"] = [
        iter([LeaderResponse(kv=KeyValue(b"e/1", 2, 2, 1, value, 1)) for value in (b"v", b"w")])
    ]
    assert run("elect", "--listen", "e") == (0, b"e/1\nv\ne/1\nw\n", "")
    assert names(fake) == ["observe"]


def test_a_candidate_has_something_to_say_and_a_listener_has_not(fake, run):
    assert run("elect", "e")[0] == 2
    assert run("elect", "--listen", "e", "v")[0] == 2
    assert names(fake) == []


def test_a_lease_is_kept_alive_meanwhile(held, beating):
    """By a client of its own: one must not be used by two threads."""
    beats = threading.Semaphore(0)
    client = held(["http://a:1"], 1)

    def beat(self, lease):
        assert self is not client
        beats.release()
        return LeaseKeepAliveResponse(ID=lease, TTL=10)

    held.lease_keep_alive = beat
    with session_room.Session(client, 10) as session:
        for _ in range(3):
            assert beats.acquire(timeout=10)
        assert not session.lost.is_set()
    assert not session._thread.is_alive()


def test_a_failed_renewal_loses_the_lease_only_once_its_time_is_over(held, beating, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("kvstore.cli.session.time.monotonic", lambda: now[0])
    tries = threading.Semaphore(0)

    def beat(self, lease):
        tries.release()
        raise ErrorKind.NO_LEADER.error()

    held.lease_keep_alive = beat
    with session_room.Session(held(["http://a:1"], 1), 10) as session:
        for _ in range(3):
            assert tries.acquire(timeout=10)
        assert not session.lost.is_set()
        now[0] = 10.0
        assert session.lost.wait(10)

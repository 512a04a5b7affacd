"""What passwords cost, and what that gives away."""

import random
from typing import Any, cast

import bcrypt
import pytest

from kvstore.auth.passwords import SALT_BYTES, hash_password
from kvstore.errors import ErrorKind
from kvstore.server.secrets import JOBS_MAX, JOBS_PER_NAME_MAX, SecretWork
from wal.files import Lane


class LaneAtOnce:
    """Does each job when it is handed over."""

    def submit(self, job: Any, done: Any) -> None:
        done(job())


def test_a_wrong_login_costs_as_much_for_nobody_as_for_somebody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds: list[str] = []

    def count(name: str) -> None:
        real = getattr(bcrypt, name)

        def counted(*args: bytes) -> Any:
            rounds.append(name)
            return real(*args)

        monkeypatch.setattr(bcrypt, name, counted)

    count("hashpw")
    count("checkpw")
    hashed = hash_password("right", b"s" * SALT_BYTES, 4)
    work = SecretWork(lambda: cast("Lane", LaneAtOnce()), random.Random(1), 4)
    for kept in (None, None, hashed, "", hashed):
        rounds.clear()
        answers: list[Any] = []
        work.check("alice", "wrong", kept, answers.append)
        assert answers == [False]
        assert len(rounds) == 1


class LaneLater:
    """Keeps the jobs until it is told to do them."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Any, Any]] = []

    def submit(self, job: Any, done: Any) -> None:
        self.jobs.append((job, done))

    def do_all(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job, done in jobs:
            done(job())


def test_a_flood_of_one_name_locks_nobody_else_out() -> None:
    hashed = hash_password("right", b"s" * SALT_BYTES, 4)
    lane = LaneLater()
    work = SecretWork(lambda: cast("Lane", lane), random.Random(1), 4)
    flood: list[Any] = []
    others: list[Any] = []
    for _ in range(JOBS_MAX):
        work.check("mallory", "wrong", hashed, flood.append)
    work.check("alice", "right", hashed, others.append)
    refused = JOBS_MAX - JOBS_PER_NAME_MAX
    assert flood == [ErrorKind.TOO_MANY_REQUESTS.error()] * refused
    assert work.refused_total == refused
    lane.do_all()
    assert flood[refused:] == [False] * JOBS_PER_NAME_MAX
    assert others == [True]
    # Whoever flooded may ask again once that is done.
    work.check("mallory", "right", hashed, others.append)
    lane.do_all()
    assert others == [True, True]
    assert work.jobs == 0

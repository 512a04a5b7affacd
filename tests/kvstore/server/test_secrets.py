"""What passwords cost, and what that gives away."""

import random
from typing import Any, cast

import bcrypt
import pytest

from kvstore.auth.passwords import SALT_BYTES, hash_password
from kvstore.server.secrets import SecretWork
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
        work.check("wrong", kept, answers.append)
        assert answers == [False]
        assert len(rounds) == 1

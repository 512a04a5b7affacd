"""What passwords cost, and what that gives away."""

import random

import bcrypt

from kvstore.auth.passwords import SALT_BYTES, hash_password
from kvstore.server.secrets import SecretWork


class LaneAtOnce:
    """Does each job when it is handed over."""

    def submit(self, job, done):
        done(job())


def test_a_wrong_login_costs_as_much_for_nobody_as_for_somebody(monkeypatch):
    rounds = []
    for name in ("hashpw", "checkpw"):
        real = getattr(bcrypt, name)
        monkeypatch.setattr(
            bcrypt, name, lambda *args, real=real, name=name: rounds.append(name) or real(*args)
        )
    hashed = hash_password("right", b"s" * SALT_BYTES, 4)
    work = SecretWork(LaneAtOnce, random.Random(1), 4)
    for kept in (None, None, hashed, "", hashed):
        rounds.clear()
        answers = []
        work.check("wrong", kept, answers.append)
        assert answers == [False]
        assert len(rounds) == 1

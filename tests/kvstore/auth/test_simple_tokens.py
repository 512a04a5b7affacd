"""Simple tokens: whose they are, and until when."""

import random

import pytest

from kvstore.auth.identity import Identity
from kvstore.auth.simple_tokens import SimpleTokens
from kvstore.errors import ErrorKind, KvError

TTL = 300.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tokens(clock: Clock, count_max: int = 100) -> SimpleTokens:
    return SimpleTokens(clock, TTL, random.Random(1), count_max)


def is_known(found: SimpleTokens, token: str) -> bool:
    try:
        found.identify(token, 1)
    except KvError as error:
        return error != ErrorKind.INVALID_AUTH_TOKEN.error()
    return True


def test_a_token_stands_for_its_user_at_the_present_revision() -> None:
    found = tokens(Clock())
    found.assign("alice", "t.1")
    assert found.identify("t.1", 7) == Identity("alice", 7)
    assert found.identify("t.1", 8) == Identity("alice", 8)
    with pytest.raises(KvError, match="invalid auth token"):
        found.identify("t.2", 7)


def test_a_prefix_is_16_letters_and_each_is_another() -> None:
    found = tokens(Clock())
    prefixes = {found.new_prefix() for _ in range(100)}
    assert len(prefixes) == 100
    assert all(len(prefix) == 16 and prefix.isalpha() for prefix in prefixes)


def test_a_token_lasts_while_it_is_used_and_not_longer() -> None:
    clock = Clock()
    found = tokens(clock)
    found.assign("alice", "used.1")
    found.assign("alice", "idle.2")
    clock.now = TTL - 1
    assert is_known(found, "used.1")
    clock.now = TTL
    assert not is_known(found, "idle.2")
    clock.now = 2 * TTL - 2
    assert is_known(found, "used.1")
    clock.now = 3 * TTL - 2
    assert not is_known(found, "used.1")
    assert len(found) == 0


def test_tokens_of_one_user_are_forgotten_together_and_those_of_others_stay() -> None:
    found = tokens(Clock())
    for token, user in [("a.1", "alice"), ("b.2", "bob"), ("a.3", "alice")]:
        found.assign(user, token)
    found.forget_user("alice")
    found.forget_user("nobody")
    assert [is_known(found, token) for token in ("a.1", "b.2", "a.3")] == [False, True, False]
    found.clear()
    assert not is_known(found, "b.2")


def test_when_there_are_too_many_the_one_unused_for_longest_goes() -> None:
    clock = Clock()
    found = tokens(clock, count_max=2)
    found.assign("alice", "x.1")
    clock.now = 1.0
    found.assign("alice", "x.2")
    clock.now = 2.0
    assert is_known(found, "x.1")
    found.assign("alice", "x.3")
    assert [is_known(found, token) for token in ("x.1", "x.2", "x.3")] == [True, False, True]
    assert found.dropped_total == 1


def test_what_was_given_out_before_a_restart_is_not_renewed_by_the_log() -> None:
    found = tokens(Clock())
    found.outlive(7)
    found.assign("alice", "old.7")
    found.assign("alice", "new.8")
    assert not is_known(found, "old.7")
    assert is_known(found, "new.8")

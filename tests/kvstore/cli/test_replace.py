"""``kvstore member replace``, against a cluster that does what it is told."""

from types import SimpleNamespace
from typing import cast

import click
import pytest

from kvstore.cli.replace import Replacement
from kvstore.client import Client
from kvstore.errors import ErrorKind
from kvstore.types import Member, ResponseHeader, StatusResponse

VOTERS = [
    Member(number, f"m{number}", (f"http://m{number}:2380",), (f"http://m{number}:2379",))
    for number in (1, 2)
]
LEARNER = Member(16, "m3", ("http://m3:2380",), ("http://m3:2379",), isLearner=True)


class Told:
    """The client. ``answering`` are the members that run."""

    def __init__(self, members: list[Member], answering: set[int]) -> None:
        self.members = {member.ID: member for member in members}
        self.answering = answering
        self.calls: list[str] = []

    def member_list(self, *, linearizable: bool) -> SimpleNamespace:
        assert linearizable
        return SimpleNamespace(members=[self.members[key] for key in sorted(self.members)])

    def member_remove(self, member: int) -> None:
        self.calls.append(f"remove {member:x}")
        del self.members[member]

    def member_add(self, urls: tuple[str, ...], *, learner: bool) -> SimpleNamespace:
        assert learner
        self.calls.append(f"add {','.join(urls)}")
        # It is started at once.
        added = Member(32, "m3", urls, ("http://new:2379",), isLearner=True)
        self.members[32] = added
        self.answering.add(32)
        return SimpleNamespace(member=added)

    def member_promote(self, member: int) -> None:
        self.calls.append(f"promote {member:x}")

    def another(self, urls: list[str]) -> "Asked":
        (who,) = [row.ID for row in self.members.values() if list(row.clientURLs) == urls]
        return Asked(who, answers=who in self.answering)


class Asked:
    """A client of one member."""

    def __init__(self, member: int, *, answers: bool) -> None:
        self.member = member
        self.answers = answers

    def __enter__(self) -> "Asked":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def status(self) -> StatusResponse:
        if not self.answers:
            raise ErrorKind.TIMEOUT.error()
        return StatusResponse(ResponseHeader(1, self.member, 1, 1), leader=1)


def replace(told: Told, who: str, *urls: str, wait_seconds: float = 60.0) -> None:
    client = cast(Client, told)
    Replacement(client, who, urls, wait_seconds, sleep=lambda _: None, clock=lambda: 0.0).run()


def test_a_lost_voter_is_taken_out_and_its_successor_promoted():
    told = Told([*VOTERS, Member(16, "m3", LEARNER.peerURLs, LEARNER.clientURLs)], {1, 2})
    replace(told, "m3")
    assert told.calls == ["remove 10", "add http://m3:2380", "promote 20"]


def test_a_member_that_answers_is_not_replaced():
    told = Told(VOTERS, {1, 2})
    with pytest.raises(click.ClickException, match="not lost, and nothing was changed"):
        replace(told, "m2")
    assert told.calls == []


def test_a_learner_that_runs_takes_the_place():
    told = Told([*VOTERS, LEARNER], {1, 2, 16})
    replace(told, "m3")
    assert told.calls == ["promote 10"]


def test_a_learner_that_does_not_answer_gets_no_vote():
    told = Told([*VOTERS, LEARNER], {1, 2})
    with pytest.raises(click.ClickException, match=r"kvstore member replace 10$"):
        replace(told, "m3")
    assert told.calls == []


def test_a_lost_learner_is_replaced_by_its_id():
    told = Told([*VOTERS, LEARNER], {1, 2})
    replace(told, "10")
    assert told.calls == ["remove 10", "add http://m3:2380", "promote 20"]


UNSTARTED = Member(33, "", ("http://m4:2380",), (), isLearner=True)


def test_a_mistyped_name_takes_no_learner_that_waits_to_be_started():
    told = Told([*VOTERS, UNSTARTED], {1, 2})
    with pytest.raises(click.ClickException) as refusal:
        replace(told, "m33")
    words = refusal.value.message
    assert "there is no member m33, only 1 (m1, http://m1:2380), 2 (m2, http://m2:2380), " in words
    assert "21 (not started, http://m4:2380)" in words
    assert words.endswith("kvstore member replace m33 --peer-urls=http://m4:2380")
    assert told.calls == []


@pytest.mark.parametrize(("who", "urls"), [("m4", ["http://m4:2380"]), ("21", [])])
def test_a_learner_that_waits_to_be_started_goes_by_its_urls_or_its_id(who, urls, capsys):
    told = Told([*VOTERS, UNSTARTED], {1, 2})
    with pytest.raises(click.ClickException) as late:
        replace(told, who, *urls, wait_seconds=0.0)
    again = f"run kvstore member replace {who} --peer-urls=http://m4:2380"
    assert late.value.message.endswith(again)
    assert f"kvstore serve --name={who} " in capsys.readouterr().out
    assert told.calls == []

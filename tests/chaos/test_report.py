"""The report says what was tried, what came of it, and what is not known."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.members import World
from tests.chaos.report import Report
from tests.chaos.rounds import Deck
from tests.checking.history import Outcome


def _report() -> Report:
    report = Report()
    report.rounds = 2
    report.operations["put", Outcome.OK] = 40
    report.operations["put", Outcome.UNKNOWN] = 2
    report.saw_fault("kill leader", happened=True)
    report.saw_fault("lose packets", happened=False)
    report.saw_outages({"reader": 1.5, "locker": 4.0}, "round 1, kill leader")
    report.saw_outages({"reader": 9.25}, "round 2, split")
    report.saw_outages({"reader": 2.0}, "round 3, split")
    report.doubts.append("round 2: 200000 states were not enough")
    return report


def test_a_fault_of_which_nothing_was_seen_is_none() -> None:
    report = _report()
    rows = [line.split() for line in report.table({}).splitlines()]
    assert ["kill", "leader", "1", "0"] in rows
    assert ["lose", "packets", "0", "1"] in rows
    assert "1 faults of 1 kinds" in report.summary(0)


def test_the_longest_that_a_client_asked_in_vain_is_told_with_its_round() -> None:
    table = _report().table({})
    assert "9.2 s  (round 2, split)" in table
    assert "4.0 s  (round 1, kill leader)" in table
    assert "round 3" not in table


def test_what_could_not_be_decided_is_said() -> None:
    report = _report()
    assert "not decided: round 2: 200000 states were not enough" in report.table({})
    summary = report.summary(0)
    assert "1 undecided, violations 0" in summary
    assert "42 operations (40 ok, 0 refused, 2 unknown)" in summary


def test_what_may_end_in_several_ways_is_told_if_it_did() -> None:
    table = _report().table({"a damaged member was rebuilt": 3, "it never was": 0})
    assert "a damaged member was rebuilt: 3" in table
    assert "it never was" not in table


def test_each_fault_has_its_turn_before_any_has_two() -> None:
    faults = [Fault(fault.run, alone=True) for fault in FAULTS]
    deck = Deck(faults, random.Random(1))
    for _ in range(2):
        drawn = [deck.draw()[0].name for _ in faults]
        assert sorted(drawn) == sorted(fault.name for fault in faults)


def test_a_member_is_not_started_once_the_run_is_over(tmp_path: Path) -> None:
    world = World(tmp_path, 3, 1)
    world.close()
    for member in world.everybody:
        with pytest.raises(RuntimeError, match="the run is over"):
            member.start()

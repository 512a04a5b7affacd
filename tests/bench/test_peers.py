"""Are the yardsticks read right, is what they do not promise checked, and does the load count?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import pysyncobj_node, yardsticks
from bench.figures import BenchError
from bench.load import Run
from bench.parts import Options, peers
from bench.parts.peers import Group, Store
from bench.yardsticks import Claim

CSV = """\
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms",\
"max_latency_ms"
"SET","20000.00","1.2","0.3","1.125","3.0","4.500","9.9"
"""
STATS = "# Commandstats\r\ncmdstat_set:calls={},usec=9,usec_per_call=1.0,rejected_calls={},{}\r\n"


def _run(rate: int, *, moved: bool = False, refused: int = 0) -> Run:
    return Run(
        requests=rate,
        duration_us=1_000_000,
        p50_us=1_500,
        p99_us=9_000,
        refused=refused,
        broken=0,
        cpu_us=rate * 50,
        leader_moved=moved,
    )


class _Loaded:
    pids = ()

    def __init__(self, name: str, order: list[str], rate: int = 100) -> None:
        self._name = name
        self._order = order
        self._rate = rate

    def put(self, seconds: int) -> Run:
        self._order.append(f"{self._name} {seconds}")
        return _run(self._rate)


def _store(name: str, order: list[str], rate: int = 100) -> Store:
    return Store(name=name, how="its way", loaded=_Loaded(name, order, rate))


def test_what_redis_benchmark_prints_is_a_run() -> None:
    run = yardsticks.parse_redis(CSV, 40_000)
    assert run is not None
    assert (run.rate, run.p50_us, run.p99_us, run.errors) == (20_000, 1_125, 4_500, 0)


@pytest.mark.parametrize("output", ["", "Could not connect", CSV + '"GET","1"\n', '"a"\n"b"\n'])
def test_anything_else_is_none(output: str) -> None:
    assert yardsticks.parse_redis(output, 1) is None


def test_puts_that_redis_refused_are_found_out() -> None:
    assert yardsticks.sets_done("# Commandstats\r\n") == 0
    assert yardsticks.sets_done(STATS.format(17, 0, "failed_calls=0")) == 17
    with pytest.raises(BenchError, match="refused"):
        yardsticks.sets_done(STATS.format(17, 0, "failed_calls=2"))


def test_a_claim_holds_only_while_the_source_shows_it(tmp_path: Path) -> None:
    (tmp_path / "journal.py").write_text("os.fsync(descriptor)")
    absent = Claim(says="a", file="journal.py", text="fsync", there=False)
    present = Claim(says="b", file="journal.py", text="fsync", there=True)
    lost = Claim(says="c", file="gone.py", text="fsync", there=False)
    assert yardsticks.hold(tmp_path, [absent, present, lost]) == [present]


def test_who_begins_alternates_and_each_has_its_turn() -> None:
    order: list[str] = []
    group = Group(stores=[_store("a", order), _store("b", order)])
    results = peers.take_turns(group, Options(rounds=2, seconds=3))
    assert order == ["a 3", "b 3", "b 3", "a 3"]
    assert [len(runs) for runs in results.values()] == [2, 2]


def test_nothing_but_errors_is_a_failure() -> None:
    group = Group(stores=[_store("a", [], rate=0)])
    with pytest.raises(BenchError, match="no put was a success"):
        peers.take_turns(group, Options(rounds=1))


def test_rows_are_medians_with_their_spread_and_all_errors() -> None:
    store = _store("a", [])
    runs = [_run(100), _run(300, refused=7), _run(200)]
    table = peers.table("One node", [store], {store.title: runs})
    assert table.header[0] == "One node"
    assert table.rows == [
        ["a, its way", "200", "100 to 293", "1.50", "9.00", "50.0", "7"],
    ]


def test_a_leader_that_moved_is_told() -> None:
    (sentence,) = peers.moved({"a": [_run(1), _run(1, moved=True)], "b": [_run(1)]})
    assert "round 2 of a" in sentence


def test_what_is_not_promised_has_its_rows() -> None:
    table = peers.lacks([["x", "PySyncObj 1", "`a.py`"]])
    assert table.rows[-1] == ["x", "PySyncObj 1", "`a.py`"]
    assert all(len(row) == len(table.header) for row in table.rows)


class _Dict:
    """Calls back at once, as the thread of the library does later; fails every ``failing``-th."""

    def __init__(self, failing: int = 0) -> None:
        self.waiting: list[Any] = []
        self.keys: list[str] = []
        self._failing = failing

    def set(self, key: str, value: bytes, callback: Any) -> None:
        assert len(value) == 256
        self.keys.append(key)
        fails = self._failing and len(self.keys) % self._failing == 0
        callback(None, 1 if fails else 0)


def test_the_load_ends_with_all_that_were_under_way_answered() -> None:
    store = _Dict()
    run = pysyncobj_node.Load(store, 0.0, 0).run()
    assert (run.requests, run.errors) == (pysyncobj_node.UNDER_WAY, 0)
    assert len(set(store.keys)) == pysyncobj_node.UNDER_WAY


def test_puts_that_fail_are_counted_as_refused() -> None:
    run = pysyncobj_node.Load(_Dict(failing=2), 0.0, 0).run()
    assert (run.requests, run.succeeded, run.refused) == (64, 32, 32)

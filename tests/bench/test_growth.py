"""Is what the parts about growth compute from their samples right?"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bench import filling, growth, prober, processes
from bench.figures import BenchError
from bench.load import Run
from bench.parts import curves, failover, memory, revisions
from bench.parts.curves import CURVES, Turn
from bench.parts.failover import Failover
from bench.parts.memory import Grown
from bench.parts.revisions import Course, Sample
from bench.prober import Window
from bench.processes import Memory

STATUS = """\
Name:\tetcd
VmPeak:\t 10747528 kB
VmHWM:\t   60000 kB
VmRSS:\t   54000 kB
RssAnon:\t   30000 kB
RssFile:\t   24000 kB
Threads:\t10
"""


def test_memory_is_read_from_the_kernels_words() -> None:
    assert processes.parse_memory(STATUS) == Memory(
        resident=54_000 * 1024, peak=60_000 * 1024, mapped=24_000 * 1024
    )


def test_a_process_that_has_ended_has_no_memory() -> None:
    with pytest.raises(BenchError, match="has ended"):
        processes.parse_memory("Name:\tetcd\nState:\tZ (zombie)\n")


def test_files_count_as_the_blocks_that_they_take(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    empty = processes.disk_bytes(tmp_path)
    (tmp_path / "below" / "sparse").touch()
    with (tmp_path / "below" / "sparse").open("r+b") as file:
        file.truncate(1 << 30)
    assert processes.disk_bytes(tmp_path) - empty < 1 << 20


def test_only_children_of_our_own_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: killed.append(pid))
    processes.kill_own(os.getpid())
    processes.kill_own(os.getppid())
    assert killed == []


@pytest.mark.parametrize(
    ("share", "found"), [(0.0, 1.0), (0.5, 51.0), (0.99, 100.0), (0.999, 100.0), (1.0, 100.0)]
)
def test_a_percentile_is_a_value_that_was_seen(share: float, found: float) -> None:
    assert growth.percentile([float(value) for value in range(100, 0, -1)], share) == found


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(BenchError, match="nothing was measured"):
        growth.percentile([], 0.5)


def test_growth_is_that_of_the_line_over_the_last_third() -> None:
    x = [float(step) for step in range(301)]
    rising = [1_000.0 + step for step in range(301)]
    assert growth.growth_of_last_third(x, rising) == pytest.approx(100 / 1_250)
    assert growth.growth_of_last_third(x, [7.0] * 301) == 0


def test_what_grew_before_the_last_third_does_not_count() -> None:
    x = [float(step) for step in range(301)]
    assert growth.growth_of_last_third(x, [min(step, 190.0) for step in x]) == 0


def test_a_last_high_sample_is_no_growth_of_its_whole_height() -> None:
    x = [float(step) for step in range(301)]
    assert 0 < growth.growth_of_last_third(x, [100.0] * 300 + [200.0]) < 0.1


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_samples_have_no_slope(count: int) -> None:
    with pytest.raises(BenchError, match="too few samples"):
        growth.growth_of_last_third([1.0] * count, [1.0] * count)


def test_a_goal_without_etcd_is_not_met() -> None:
    goal = growth.goal_of_ratio("memory", "at most twice", 1.0, None, 2.0)
    assert (goal.met, goal.found) == (False, "no etcd to compare with")
    assert growth.goal_of_ratio("memory", "at most twice", 4.0, 2.0, 2.0).met
    assert not growth.goal_of_ratio("memory", "at most twice", 4.1, 2.0, 2.0).met


def test_windows_that_touch_are_one() -> None:
    found = prober.windows([10.0, 10.4, 20.0], [Window(10.8, 12.0)])
    assert found == [Window(9.5, 12.0), Window(19.5, 20.5)]


def test_a_call_that_overlaps_a_window_belongs_to_it() -> None:
    calls = [(0.0, 0.5), (0.9, 0.2), (1.5, 0.1), (1.9, 5.0), (2.0, 0.3)]
    outside, inside = prober.split(calls, [Window(1.0, 2.0)])
    assert outside == [0.5, 0.3]
    assert inside == [0.2, 0.1, 5.0]


def test_snapshots_are_told_from_the_database(tmp_path: Path) -> None:
    (tmp_path / "snap").mkdir()
    (tmp_path / "snap" / "db").write_bytes(b"etcd's")
    (tmp_path / "snap" / "1.snap").write_bytes(b"12")
    (tmp_path / "snap" / "2.snap.part").write_bytes(b"123")
    found = prober._snapshots(tmp_path)
    assert found == {("1.snap", 2), ("2.snap.part", 3)}


def test_keys_are_distinct_and_lie_between_those_of_wrk() -> None:
    numbers = [0, 1, 9_999, 10_000, 999_999]
    keys = [filling.key_of(number) for number in numbers]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {filling.KEY_BYTES}
    assert b"key-00000" < filling.key_of(0) < filling.key_of(10_000) < b"key-00001"


def test_a_fill_puts_each_key_once() -> None:
    bodies = list(filling.transactions(range(250)))
    puts = [[op["request_put"] for op in json.loads(body)["success"]] for body in bodies]
    assert [len(each) for each in puts] == [100, 100, 50]
    keys = [base64.b64decode(put["key"]) for each in puts for put in each]
    assert keys == [filling.key_of(number) for number in range(250)]
    assert {len(base64.b64decode(put["value"])) for put in puts[0]} == {filling.VALUE_BYTES}


def test_watchers_are_spread_over_streams() -> None:
    assert [len(part) for part in filling._parts(25_000)] == [10_000, 10_000, 5_000]


class FakeTransport(asyncio.Transport):
    """Answers each request with the pieces it was given."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self.caller: Any = None
        self.pieces = pieces
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += data
        for piece in self.pieces:
            asyncio.get_running_loop().call_soon(self.caller.data_received, piece)


async def ask(pieces: list[bytes]) -> FakeTransport:
    transport = FakeTransport(pieces)
    transport.caller = filling._Caller(b"POST /v3/kv/put HTTP/1.1\r\nHost: a\r\n")
    transport.caller.connection_made(transport)
    await transport.caller.call(b"{}")
    await transport.caller.call(b"{}")
    return transport


CHUNKED = [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r",
    b"\n{}\r\n0\r\n",
    b"\r\n",
]


async def test_answers_in_pieces_are_whole_answers() -> None:
    transport = await ask(CHUNKED)
    assert transport.written == 2 * (
        b"POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
    )


async def test_a_refusal_says_what_was_answered() -> None:
    with pytest.raises(BenchError, match="503 no leader"):
        await ask([b"HTTP/1.1 503 Unavailable\r\nContent-Length: 9\r\n\r\nno leader"])


async def test_a_connection_that_is_lost_fails_its_call() -> None:
    transport = FakeTransport([])
    caller = filling._Caller(b"")
    caller.connection_made(transport)
    calling = asyncio.ensure_future(caller.call(b"{}"))
    await asyncio.sleep(0)
    caller.connection_lost(None)
    with pytest.raises(BenchError, match="was lost"):
        await calling


def grown(filled: int, restarted: int, ready: float) -> Grown:
    def of(megabytes: int) -> Memory:
        return Memory(resident=megabytes * 10**6, peak=megabytes * 10**6, mapped=0)

    return Grown(
        before=of(50),
        filled=[of(60), of(filled)],
        fill_seconds=1.0,
        disk=10**6,
        quiet_puts=[0.001] * 100,
        busy_puts=[0.0015] * 100,
        quiet_probes=[0.001],
        busy_probes=[0.002, 0.012],
        snapshots=1,
        compaction_seconds=0.5,
        stop_seconds=0.1,
        ready_seconds=ready,
        restarted=of(restarted),
    )


def test_goals_of_memory_take_the_worse_moment() -> None:
    found = {"kvstore": grown(500, 700, 4.0), "etcd": grown(400, 300, 1.5)}
    goals = memory._goals(found, 1_000_000)
    assert [goal.found for goal in goals] == [
        "2.33 times",
        "650 bytes",
        "2.67 times",
        "4.00 s",
        "12.0 ms, seen from outside",
        "1.50 times",
    ]
    assert [goal.met for goal in goals] == [False, True, True, True, False, True]


def test_goals_of_memory_can_do_without_etcd() -> None:
    goals = memory._goals({"kvstore": grown(500, 700, 4.0)}, 1_000_000)
    assert [goal.met for goal in goals] == [False, True, False, True, False, True]


def test_tables_of_memory_have_a_cell_a_system() -> None:
    found = {"kvstore": grown(500, 700, 4.0), "etcd": grown(400, 300, 1.5)}
    for table in (memory._memory_table(found, 1_000_000), memory._load_table(found)):
        assert table.header == ["", "kvstore", "etcd"]
        assert {len(row) for row in table.rows} == {3}


def course(revisions_written: int, residents: list[int]) -> Course:
    step = revisions_written // len(residents)
    samples = [
        Sample(revisions=step * number, resident=resident, disk=10 * resident)
        for number, resident in enumerate(residents, start=1)
    ]
    return Course(samples=samples, revisions=revisions_written, seconds=9.0, cpu=3.0, peak=10**9)


def test_flat_memory_is_no_goal_met_by_half_a_run() -> None:
    flat = [10**8] * 30
    assert revisions._goal(course(3_000, flat), 3_000).met
    cut = revisions._goal(course(1_500, flat), 3_000)
    assert not cut.met
    assert cut.found == "+0.0 %, after 1,500 only"
    rising = revisions._goal(course(3_000, [10**8 + number * 10**6 for number in range(30)]), 3_000)
    assert not rising.met


def turns(costs: list[float]) -> list[Turn]:
    run = Run(requests=10, duration_us=10**6, p50_us=1, p99_us=2, refused=1, broken=0)
    return [Turn(run, cost) for cost in costs]


def test_a_curve_is_held_against_its_start() -> None:
    by_size = {10: turns([20, 21, 90]), 100: turns([30, 30, 1]), 1_000: turns([25])}
    goal = curves._goal(CURVES[0], by_size, 10)
    assert (goal.found, goal.met) == ("1.43 times with 100", True)


def test_what_lies_before_the_start_is_shown_but_not_judged() -> None:
    by_size = {1: turns([80]), 64: turns([20]), 512: turns([19]), 5_000: turns([40])}
    goal = curves._goal(CURVES[-1], by_size, 64)
    assert (goal.found, goal.met) == ("2.00 times with 5,000; with 1 4.00 times", False)


def test_a_table_of_a_curve_counts_errors() -> None:
    by_size = {0: turns([20, 22]), 10: turns([30])}
    table = curves._table(CURVES[1], {"kvstore": by_size, "etcd": by_size}, 0)
    assert {len(row) for row in table.rows} == {len(table.header)}
    assert table.rows[0][:6] == ["0", "21", "20 to 22", "1.00", "9", "2"]


def test_an_axis_from_nought_is_not_logarithmic() -> None:
    figures = curves._figures(CURVES[1], {"kvstore": {0: turns([20]), 10: turns([30])}})
    assert [figure.x_log for figure in figures] == [False, False]
    figures = curves._figures(CURVES[0], {"kvstore": {1: turns([20, 40]), 10: turns([30])}})
    assert [figure.x_log for figure in figures] == [True, True]
    assert figures[0].series[0].y_low == [20, 30]


def test_a_write_that_is_lost_fails_the_fail_over() -> None:
    kept = [Failover(seconds=1.0 + number, kept=True) for number in range(3)]
    theirs = [Failover(seconds=2.0, kept=True)]
    assert all(goal.met for goal in failover._goals({"kvstore": kept, "etcd": theirs}))
    lost = [*kept, Failover(seconds=3.5, kept=False)]
    goals = failover._goals({"kvstore": lost, "etcd": theirs})
    assert [(goal.met, goal.found) for goal in goals] == [
        (False, "1.25 times"),
        (False, "1 lost"),
    ]
    assert failover._figure({"kvstore": lost}).series[0].y == [1.0, 2.0, 3.0, 3.5]

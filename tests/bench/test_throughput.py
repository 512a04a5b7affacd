"""Are medians, ratios and goals those of the runs, and is an answer that is none found out?"""

from __future__ import annotations

import os

import msgspec
import pytest

from bench import grpc_load, load, rounds
from bench.figures import BenchError
from bench.load import Run
from bench.parts import Options, relayed, throughput
from bench.rounds import Case

NAMES = ("kvstore", "etcd")
PUT = Case("put", 64, goal=4)
GET = Case("get", 1)


def _run(rate: int, **changes: int) -> Run:
    plain = Run(
        requests=rate,
        duration_us=1_000_000,
        p50_us=1_500,
        p99_us=9_000,
        refused=0,
        broken=0,
        bytes=rate * 1_000,
        cpu_us=rate * 50,
    )
    return msgspec.structs.replace(plain, **changes)


RESULTS = {
    PUT: {
        "kvstore": [_run(4_000), _run(5_000), _run(9_000)],
        "etcd": [_run(2_000), _run(1_000), _run(1_500)],
    },
    GET: {"kvstore": [_run(100)], "etcd": [_run(200, refused=50, broken=2)]},
}


def test_titles_say_what_was_called() -> None:
    assert PUT.title == "put, 64 connections"
    assert GET.title == "linearizable get, 1 connection"
    assert Case("put", 1, 64).title == "gRPC put, 1 connection × 64 streams"
    assert Case("get", 64, 1).title == "gRPC linearizable get, 64 connections"
    assert len({case.title for case in throughput.CASES}) == len(throughput.CASES)


def test_rates_are_medians_with_spread_ratio_its_spread_and_goal() -> None:
    rates, _ = rounds.tables(RESULTS, NAMES)
    assert rates.header == [
        *("load", "kvstore/s", "spread", "etcd/s", "spread"),
        *("kvstore / etcd", "spread of ratio", "goal"),
    ]
    assert rates.rows[0] == [
        *("put, 64 connections", "5,000", "4,000 to 9,000", "1,500", "1,000 to 2,000"),
        *("**3.33**", "2.00 to 6.00", "4"),
    ]
    assert rates.rows[1][-1] == rounds.NONE


def test_only_successes_count_and_errors_are_shown() -> None:
    rates, costs = rounds.tables(RESULTS, NAMES)
    assert rates.rows[1][3] == "150"
    assert costs.rows[1][-1] == "52"


def test_costs_are_latency_and_cpu_of_each_answer() -> None:
    _, costs = rounds.tables(RESULTS, NAMES)
    assert costs.header[:5] == [
        *("load", "kvstore p50 ms", "kvstore p99 ms", "kvstore CPU µs", "kvstore errors")
    ]
    assert costs.rows[0][:5] == ["put, 64 connections", "1.50", "9.00", "50", "0"]


def test_a_system_alone_has_no_ratio_and_no_goal() -> None:
    alone = {PUT: {"kvstore": [_run(4_000)]}}
    rates, _ = rounds.tables(alone, ["kvstore"])
    assert rates.header == ["load", "kvstore/s", "spread"]
    assert rounds.goals(alone, ["kvstore"]) == []


def test_a_goal_is_met_by_the_ratio_itself_not_by_how_it_is_printed() -> None:
    (missed,) = rounds.goals(RESULTS, NAMES, "far: ")
    assert (missed.what, missed.wanted) == ("far: put, 64 connections", "at least 4 times etcd")
    assert (missed.found, missed.met) == ("3.33 times", False)
    almost = {PUT: {"kvstore": [_run(39_999)], "etcd": [_run(10_000)]}}
    assert [(goal.found, goal.met) for goal in rounds.goals(almost, NAMES)] == [
        ("4.00 times", False)
    ]
    reached = {PUT: {"kvstore": [_run(40_000)], "etcd": [_run(10_000)]}}
    assert [goal.met for goal in rounds.goals(reached, NAMES)] == [True]


def test_the_picture_is_of_one_call_in_the_order_of_its_connections() -> None:
    results = {
        Case("put", 64): RESULTS[PUT],
        Case("put", 1): {name: [_run(10), _run(30), _run(20)] for name in NAMES},
        Case("put", 1, 64): {name: [_run(7)] for name in NAMES},
        GET: RESULTS[GET],
    }
    figure = rounds.against_clients("puts", "Puts", "put", results)
    assert [series.name for series in figure.series] == list(NAMES)
    assert figure.series[0].x == [1.0, 64.0]
    assert figure.series[0].y == [20.0, 5_000.0]
    assert figure.series[0].y_low == [10.0, 4_000.0]
    assert figure.series[0].y_high == [30.0, 9_000.0]
    assert rounds.against_clients("none", "None", "txn", results).series == []


def test_a_leader_that_moved_is_told() -> None:
    results = {PUT: {"kvstore": [_run(1), _run(1, leader_moved=True)], "etcd": [_run(1)]}}
    (sentence,) = rounds.moved(results)
    assert "kvstore moved in round 2 of put, 64 connections" in sentence


def test_the_section_has_what_was_measured() -> None:
    options = Options(rounds=3, seconds=7)
    section = throughput.section(RESULTS, NAMES, "today", options)
    assert "3 rounds of\n7 s" in section.text
    assert [figure.name for figure in section.figures] == ["throughput-put", "throughput-get"]
    assert [goal.met for goal in section.goals] == [False]
    assert len(section.tables) == 2


def test_the_relay_tells_what_it_burned() -> None:
    results = {PUT: {name: [_run(1_000, relay_cpu_us=200_000)] for name in NAMES}}
    table = relayed.relay_table(results, NAMES)
    assert table.rows == [["put, 64 connections", "200", "20", "200", "20"]]
    assert relayed.section(results, NAMES, "today", Options()).goals[0].what.startswith("2 ms")


def test_loads_are_chosen_by_title_and_an_unknown_one_is_refused() -> None:
    chosen = throughput.chosen(Options(), "gRPC put")
    assert [case.streams for case in chosen] == [1, 64, 1]
    assert all(case.connections < 256 for case in throughput.chosen(Options(quick=True), ""))
    with pytest.raises(BenchError, match="serializable get, 64"):
        throughput.chosen(Options(), "no such")


def test_connections_are_shared_evenly() -> None:
    assert load.shares(64, 3) == [22, 21, 21]
    assert load.shares(64, 1) == [64]


def test_runs_at_once_are_summed_and_the_slowest_tells_the_latency() -> None:
    found = load.combine([_run(100, p99_us=5), _run(200, refused=1), _run(300, broken=2)])
    assert (found.requests, found.refused, found.broken, found.bytes) == (600, 1, 2, 600_000)
    assert (found.p50_us, found.p99_us) == (1_500, 9_000)
    assert found.rate == 599


def test_writes_that_were_answered_and_not_done_are_found_out() -> None:
    load.check(_run(1_000), "put", 64, writes=1_000)
    load.check(_run(1_000, refused=10), "txn", 64, writes=990)
    with pytest.raises(BenchError, match="1000 writes were answered, 999 were done"):
        load.check(_run(1_000), "txn", 64, writes=999)


def test_the_mix_may_end_in_the_middle() -> None:
    load.check(_run(1_000), "mixed", 64, writes=200 - 64)
    with pytest.raises(BenchError, match="writes were answered"):
        load.check(_run(1_000), "mixed", 64, writes=200 - 65)


@pytest.mark.parametrize("call", ["get", "serializable", "range"])
def test_reads_that_bring_no_value_are_found_out(call: str) -> None:
    with pytest.raises(BenchError, match="too few"):
        load.check(_run(1_000, bytes=200_000), call, 64, writes=0)


def test_nothing_but_errors_is_a_failure() -> None:
    with pytest.raises(BenchError, match="no answer was a success"):
        load.check(_run(10, refused=10), "get", 1, writes=0)


def test_cpu_is_that_of_the_process_and_grows() -> None:
    before = load.cpu_seconds([os.getpid()])
    assert 0 < before <= load.cpu_seconds([os.getpid()])
    assert load.cpu_seconds([]) == 0


def test_cpu_of_a_process_that_is_gone_is_an_error() -> None:
    with pytest.raises(BenchError, match="has ended"):
        load.cpu_seconds([2**22 + 1])  # Above the highest id that Linux gives.


H2LOAD = """
finished in 2.01s, 480.60 req/s, 150.01KB/s
requests: 1000 total, 1002 started, 961 done, 960 succeeded, 1 failed, 0 errored, 0 timeout
status codes: 960 2xx, 0 3xx, 1 4xx, 0 5xx
traffic: 293.00KB (300035) total, 9.77KB (10001) headers (space savings 9%), 280.00KB (286720) data
"""


def test_what_h2load_prints_is_a_run() -> None:
    run = grpc_load.parse(H2LOAD, range(100, 0, -1))
    assert run == Run(
        requests=961,
        duration_us=2_010_000,
        p50_us=51,
        p99_us=100,
        refused=1,
        broken=0,
        bytes=286_720,
    )
    assert grpc_load.parse("", [1]) is None
    assert grpc_load.parse(H2LOAD, []) is None

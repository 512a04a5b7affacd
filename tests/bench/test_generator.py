"""Is what the generator prints read as it was meant, and do tables and goals say what it says?"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from bench import generator
from bench.figures import BenchError
from bench.generator import Latency, Leases, Outcome, Puts, Watch
from bench.parts import latency, leases, watch
from bench.parts.watch import Turn

PERCENTS = [1.0, 50.0, 90.0, 99.0, 99.9]
GO_SECONDS_MAX = 240.0


def _latency(p99_us: int, count: int = 2_000) -> Latency:
    values = [p99_us // 8, p99_us // 4, p99_us // 2, p99_us, p99_us * 2]
    return Latency(count=count, max_us=p99_us * 3, percents=PERCENTS, values_us=values)


def _counts(done: int, **changes: int) -> dict[str, int]:
    none = dict.fromkeys(("refused", "broken", "unanswered", "overflowed"), 0)
    return {"due": done, "sent": done, "done": done, **none, **changes}


def _puts(p99_us: int, done: int = 2_000, **changes: int) -> Puts:
    return Puts(
        **_counts(done, **changes),
        elapsed_us=1_000_000,
        latency=_latency(p99_us),
        late=_latency(80),
        own_cpu_us=50_000,
        cpu_us=[200_000, 100_000, 100_000],
    )


def _turn(
    events: int, cpu_us: int, p99_us: int, missing: int = 0, puts: int = 100, watchers: int = 1_000
) -> Turn:
    run = Watch(
        puts=Outcome(**_counts(puts)),
        watchers=watchers,
        events=events,
        missing=missing,
        duplicates=0,
        strange=0,
        ended=0,
        elapsed_us=1_000_000,
        delay=_latency(p99_us),
        own_cpu_us=events,
        cpu_us=[cpu_us // 10, cpu_us, cpu_us // 10],
    )
    return Turn(run=run, leader=1)


def _leases(done: int, wrong: int = 0) -> Leases:
    return Leases(
        **_counts(done),
        leases=10_000,
        wrong=wrong,
        first_bad="status 200: {}" if wrong else "",
        elapsed_us=1_000_000,
        latency=_latency(4_000),
        own_cpu_us=100_000,
        cpu_us=[done * 10, 0, 0],
    )


def test_a_result_is_read_and_anything_else_is_not() -> None:
    text = msgspec.json.encode(_puts(8_000)).decode()
    assert generator.parse(f"RESULT {text}\n", Puts) == _puts(8_000)
    with pytest.raises(BenchError, match="something else"):
        generator.parse(f"RESULT {text}\n", Watch)
    with pytest.raises(BenchError, match="no result"):
        generator.parse("", Puts)


def test_a_percentile_that_is_not_kept_is_an_error() -> None:
    assert _latency(8_000).at(99.0) == 8_000
    with pytest.raises(BenchError, match="not kept"):
        _latency(8_000).at(98.0)
    with pytest.raises(BenchError, match="nothing was measured"):
        _latency(8_000, count=0).at(99.0)


def test_everything_that_was_due_and_not_done_is_an_error() -> None:
    run = _puts(8_000, refused=1, broken=2, unanswered=4, overflowed=8)
    assert run.errors == 15
    # Renewals that are under way when the time is over have done nothing wrong.
    assert _leases(100, wrong=3).errors == 3


def test_without_go_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    with pytest.raises(BenchError, match="apt-get install golang-go"):
        generator.build.__wrapped__()


def test_who_does_not_keep_up_is_named() -> None:
    results = {2_000: {"kvstore": [_puts(8_000)], "etcd": [_puts(8_000, done=1_000)]}}
    (remark,) = latency.remarks(results, [])
    assert remark.startswith("etcd did not keep up with 2,000 puts/s: it answered 1,000/s")
    assert "moved" in latency.remarks({}, ["etcd in round 1"])[0]


def test_the_goal_of_latency_is_the_ratio_of_the_medians() -> None:
    theirs = [_puts(10_000), _puts(20_000), _puts(90_000)]
    met = latency.goal({"kvstore": [_puts(14_000)] * 3, "etcd": theirs})
    assert met.met
    assert met.found == "0.70 times"
    assert not latency.goal({"kvstore": [_puts(14_100)] * 3, "etcd": theirs}).met
    assert not latency.goal({"kvstore": [_puts(1)]}).met
    # Puts that failed are in no percentile, so these say too little.
    failed = latency.goal({"kvstore": [_puts(1_000, refused=2)], "etcd": theirs})
    assert not failed.met
    assert failed.found.endswith(", 2 errors")


def test_a_distribution_leaves_out_what_so_few_puts_cannot_tell() -> None:
    few = [msgspec.structs.replace(_puts(8_000), latency=_latency(8_000, count=500))] * 2
    series = generator.distribution("etcd", [run.latency for run in few])
    assert series.x == pytest.approx([100 / 99, 2, 10, 100])
    assert series.y == [1, 2, 4, 8]
    assert len(generator.distribution("etcd", [_puts(8_000).latency]).x) == len(PERCENTS)


def test_tables_of_latency_have_a_cell_for_each_column() -> None:
    results = {2_000: {"kvstore": [_puts(5_000)], "etcd": [_puts(10_000)]}}
    for table in latency.tables(results):
        assert {len(row) for row in table.rows} == {len(table.header)}
    percentiles, ratios = latency.tables(results)
    assert percentiles.rows[0][-3:] == ["200", "5", "0.08"]
    assert "**0.50**" in ratios.rows[0]
    assert len(latency.tables({2_000: {"kvstore": [_puts(5_000)]}})) == 1


def test_cpu_of_watches_is_that_of_the_leader_and_of_all() -> None:
    turn = _turn(events=100_000, cpu_us=500_000, p99_us=8_000)
    assert turn.leader_cpu_us == 5
    assert turn.all_cpu_us == 6


def test_who_delivers_all_there_is_has_reached_the_goal_of_events() -> None:
    all_of_it = [_turn(events=100_000, cpu_us=500_000, p99_us=8_000)]
    results = {100: {"kvstore": all_of_it, "etcd": all_of_it}}
    events, cpu, delay = watch.goals(results)
    assert (events.met, cpu.met, delay.met) == (True, False, True)
    assert events.found == "1.00 times, all of them"
    assert watch.remarks(results, 0) == ["At 100 puts/s kvstore and etcd kept up in all rounds."]


def test_goals_of_watches_are_ratios_and_a_fault_misses_them_all() -> None:
    theirs = [_turn(events=40_000, cpu_us=1_000_000, p99_us=8_000, missing=60_000)]
    mine = [_turn(events=80_000, cpu_us=900_000, p99_us=8_000)]
    results = {1_000: {"kvstore": mine, "etcd": theirs}}
    assert [goal.met for goal in watch.goals(results)] == [True, True, True]
    assert "nobody kept up" in watch.remarks(results, 1)[1]
    lost = [_turn(events=80_000, cpu_us=900_000, p99_us=8_000, missing=1)]
    goals = watch.goals({1_000: {"kvstore": lost, "etcd": theirs}})
    assert not any(goal.met for goal in goals)
    assert all(goal.found.endswith(", 1 faults") for goal in goals)
    assert not any(goal.met for goal in watch.goals({1_000: {"kvstore": mine}}))


def test_a_leader_that_moved_is_said() -> None:
    turn = msgspec.structs.replace(_turn(events=9, cpu_us=9, p99_us=9), moved=True)
    (moved, *_) = watch.remarks({100: {"kvstore": [turn]}}, 0)
    assert moved.startswith("A leader moved (kvstore in round 1 at 100/s)")


def test_tables_of_watches_have_a_cell_for_each_column() -> None:
    turns = [_turn(events=100_000, cpu_us=500_000, p99_us=8_000, missing=7)] * 2
    results = {100: {"kvstore": turns, "etcd": turns}}
    for table in (watch.deliveries(results), watch.costs(results)):
        assert {len(row) for row in table.rows} == {len(table.header)}
    assert watch.costs(results).rows[0] == [
        *("100", "kvstore", "5.00", "6.00", "1.00"),
        *("0", "0", "14", "0", "0", "0"),
    ]


def test_the_goal_of_leases_counts_wrong_answers() -> None:
    results = {"kvstore": [_leases(30_000)], "etcd": [_leases(10_000)]}
    assert leases.goal(results).met
    assert {len(row) for row in leases.table(results).rows} == {3}
    wrong = leases.goal({**results, "kvstore": [_leases(40_000, wrong=1)]})
    assert not wrong.met
    assert wrong.found == "4.00 times, 1 errors"
    assert not leases.goal({"kvstore": [_leases(30_000)]}).met


@pytest.mark.e2e
@pytest.mark.parametrize("arguments", [["vet", "."], ["test", "."]])
def test_the_generator_itself_is_sound(arguments: list[str]) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed: apt-get install golang-go")
    answer = subprocess.run(
        [go, *arguments],
        cwd=generator.SOURCES,
        capture_output=True,
        text=True,
        timeout=GO_SECONDS_MAX,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_generator_has_no_dependencies() -> None:
    module = Path(generator.SOURCES, "go.mod").read_text()
    assert module.split() == ["module", "generator", "go", "1.19"]

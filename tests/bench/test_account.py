"""Does each module have its stage, and do the rows of the account add up to what was spent?"""

from __future__ import annotations

import faulthandler
import signal
from collections import Counter
from pathlib import Path

import pytest

from bench import profiled_serve, sampler, stages
from bench.figures import BenchError
from bench.load import Run
from bench.parts import Options, account
from bench.parts.account import Node, Turn
from bench.sampler import Seen, Spent

ROOT = Path(__file__).parents[2]
LOG_FILE = ROOT / "wal" / "files.py"
NO_PUT = (
    # The client, reading the configuration, certificates, and markers of packages: none of them is
    # at work while a node answers puts without TLS.
    "kvstore/__init__.py",
    "kvstore/client/",
    "kvstore/config.py",
    "kvstore/config_absent.py",
    "kvstore/config_grpc.py",
    "kvstore/config_sources.py",
    "kvstore/config_tls.py",
    "kvstore/config_values.py",
    "kvstore/tls/",
    "kvstore/version.py",
)


def _modules() -> list[str]:
    return [
        str(path.relative_to(ROOT))
        for room in ("kvstore", "raft", "wal")
        for path in sorted((ROOT / room).rglob("*.py"))
    ]


def test_every_module_has_a_stage_or_no_put_goes_through_it() -> None:
    lost = [
        path
        for path in _modules()
        if stages.of_module(path) == stages.ELSEWHERE and not path.startswith(NO_PUT)
    ]
    assert lost == []


def test_no_exemption_is_in_vain() -> None:
    modules = _modules()
    for prefix in NO_PUT:
        fitting = [path for path in modules if path.startswith(prefix)]
        assert fitting, prefix
        assert {stages.of_module(path) for path in fitting} == {stages.ELSEWHERE}, prefix


def test_every_prefix_of_the_table_fits_a_module() -> None:
    modules = _modules()
    for stage in stages.STAGES:
        for prefix in stage.prefixes:
            assert any(path.startswith(prefix) for path in modules), prefix


def test_names_of_stages_differ_and_none_is_that_of_a_rest() -> None:
    assert len(set(stages.ROWS)) == len(stages.ROWS)


def test_the_longer_of_two_prefixes_decides() -> None:
    assert stages.of_module("kvstore/api/access.py").startswith("calls")
    assert stages.of_module("kvstore/api/lean/heads.py") == "HTTP/1.1"
    assert stages.of_module("kvstore/api/grpc/heads.py") == "HTTP/2"
    assert stages.of_module("kvstore/server/driver.py") == "driver"
    assert stages.of_module("kvstore/server/scrub.py").startswith("upkeep")


def _files(*paths: str) -> list[str]:
    return [path if path.startswith("/") else f"{ROOT}/{path}" for path in paths]


def test_the_innermost_module_of_ours_decides_and_libraries_work_for_it() -> None:
    assert stages.of_stack(_files("raft/log.py", "/x/asyncio/runners.py", "kvstore/run.py")) == (
        "Raft"
    )
    assert stages.of_stack(_files("/x/ctypes/__init__.py", "wal/aio.py", "kvstore/run.py")) == (
        stages.LOG
    )
    assert stages.of_stack(_files("/x/asyncio/runners.py", "kvstore/cli/serve.py")) == stages.LOOP
    assert stages.of_stack(_files("/x/threading.py")) == stages.ELSEWHERE
    assert stages.of_stack([]) == stages.ELSEWHERE


def _stack(*paths: str) -> str:
    """As faulthandler writes it."""
    lines = [f'  File "{file}", line 7 in run' for file in _files(*paths)]
    return "\n".join(["Stack (most recent call first):", *lines, ""])


def test_stacks_are_counted_by_stage_and_those_in_a_collection_apart() -> None:
    main = ("/x/asyncio/runners.py", "kvstore/cli/serve.py")
    text = "".join(
        [
            _stack("raft/log.py", *main),
            _stack(*main),
            "gc start\n",
            _stack("raft/log.py", *main),
            _stack("raft/core.py", *main),
            "gc stop\n",
            _stack("raft/core.py", *main),
            "gc start\ngc stop\n",
            _stack("/x/threading.py"),
            "Stack (most recent call first):\n  <no Python frame>\n",
            _stack("raft/core.py", *main) + "  ...\n",
        ]
    )
    assert sampler.parse(text) == {
        "Raft": 3,
        stages.LOOP: 1,
        stages.COLLECTOR: 2,
        stages.ELSEWHERE: 2,
    }
    assert sampler.parse("") == {}


def test_what_is_no_stack_is_an_error() -> None:
    with pytest.raises(BenchError, match="no stack: 'Fatal"):
        sampler.parse("Fatal Python error: Segmentation fault\n")


def test_faulthandler_writes_what_is_parsed(tmp_path: Path) -> None:
    with (tmp_path / "stacks").open("w+") as file:
        for _ in range(2):
            faulthandler.dump_traceback(file.fileno(), all_threads=False)
        found = sampler.parse((tmp_path / "stacks").read_text())
    assert found == {stages.ELSEWHERE: 2}


def test_shares_add_up_to_what_was_spent_and_threads_are_weighed_by_it() -> None:
    samples = {7: Counter({"Raft": 3, stages.LOOP: 1}), 9: Counter({stages.LOG: 1_000})}
    found = stages.share({7: 400.0, 9: 10.0, 11: 6.0, 13: 4.0}, samples, {11: stages.LOG})
    assert found == {"Raft": 300.0, stages.LOOP: 100.0, stages.LOG: 16.0, stages.UNSEEN: 4.0}


def test_threads_wait_where_they_were_seen_and_the_main_one_in_the_loop() -> None:
    seen = Seen(samples={}, threads={9: stages.LOG})
    assert sampler.resting(7, seen) == {7: stages.LOOP, 9: stages.LOG}


def test_the_kernel_tells_user_and_system_time_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    stat = "812 (a b) c) S " + " ".join(str(number) for number in range(4, 40))
    spent = sampler.parse_stat(stat)
    assert (spent.user_us, spent.system_us, spent.cpu_us) == (140_000, 150_000, 290_000)


def test_a_thread_that_began_meanwhile_counts_from_nothing() -> None:
    before = {7: Spent(user_us=5.0, system_us=1.0), 8: Spent(user_us=9.0, system_us=9.0)}
    after = {7: Spent(user_us=9.0, system_us=2.0), 9: Spent(user_us=3.0, system_us=0.0)}
    found = sampler.since(after, before)
    assert found == {
        7: Spent(user_us=4.0, system_us=1.0),
        9: Spent(user_us=3.0, system_us=0.0),
    }


def test_a_node_that_writes_nothing_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("os.kill", lambda pid, number: None)
    monkeypatch.setattr(sampler, "WRITE_SECONDS_MAX", 0.0)
    with pytest.raises(BenchError, match="process 7 has not said"), sampler.sampling([7], tmp_path):
        pass


def test_what_a_node_wrote_is_read_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent = []

    def kill(pid: int, number: int) -> None:
        sent.append((pid, number))
        if number == profiled_serve.STOP:
            (tmp_path / f"{pid}.stacks").write_text(_stack("raft/log.py") * len(sent))
            (tmp_path / f"{pid}.threads").write_text(f'{{"9": ["/x/queue.py", "{LOG_FILE}"]}}')

    monkeypatch.setattr("os.kill", kill)
    for number in (2, 4):
        with sampler.sampling([7], tmp_path) as found:
            assert found == []
        assert found == [Seen(samples={"Raft": number}, threads={9: stages.LOG})]
        assert [path.read_text() for path in tmp_path.iterdir()] == [""]
    assert sent == [(7, profiled_serve.START), (7, profiled_serve.STOP)] * 2


def test_a_timer_signals_its_thread_when_it_has_worked() -> None:
    timer = profiled_serve.ThreadTimer()
    seen: list[int] = []
    before = signal.signal(signal.SIGPROF, lambda number, frame: seen.append(number))
    try:
        timer.set(profiled_serve.INTERVAL_NS)
        while not seen:
            pass
        timer.set(0)
    finally:
        signal.signal(signal.SIGPROF, before)
    assert set(seen) == {signal.SIGPROF}


def _turn(samples: dict[str, int]) -> Turn:
    spent = {
        7: Spent(user_us=3_000.0, system_us=1_000.0),
        9: Spent(user_us=0.0, system_us=100.0),
    }
    waits = {7: stages.LOOP, 9: stages.LOG}
    run = Run(requests=101, duration_us=1_000_000, p50_us=1, p99_us=2, refused=1, broken=0)
    nodes = {role: account.node(7, spent, samples, waits) for role in account.ROLES}
    return Turn(run=run, nodes=nodes)


def test_rows_add_up_to_the_total_of_a_put() -> None:
    turns = [_turn({stages.LOOP: 3, "Raft": 1}) for _ in range(2)]
    results = {"JSON": {False: [_turn({})], True: turns}}
    by_stage, threads, overhead = account.tables(results)
    assert by_stage.rows == [
        [stages.LOOP, "30.00", "73.2", "30.00", "73.2"],
        ["Raft", "10.00", "24.4", "10.00", "24.4"],
        [stages.LOG, "1.00", "2.4", "1.00", "2.4"],
        ["**total**", "41.00", "100.0", "41.00", "100.0"],
    ]
    assert "200 puts, 8 and 8 samples." in by_stage.caption
    assert threads.rows[:2] == [
        ["JSON", "leader", stages.LOOP, "30.00", "10.00", "40.00"],
        ["JSON", "leader", stages.LOG, "0.00", "1.00", "1.00"],
    ]
    assert overhead.rows == [
        ["JSON", "without", "100", "–", "41.00", "41.00", "1"],
        ["JSON", "with", "100", "+0%", "41.00", "41.00", "2"],
    ]


def test_nobody_sampled_is_no_stage() -> None:
    found = account.node(7, {7: Spent(user_us=1.0, system_us=2.0)}, {}, {})
    assert found == Node(threads={stages.UNSEEN: Spent(user_us=1.0, system_us=2.0)})
    assert found.cpu_us == 3.0


def test_turns_that_are_left_out_are_told() -> None:
    text = account.text(Options(rounds=2, seconds=3), ["JSON in round 1"])
    assert "2 rounds of 3 s" in text
    assert "JSON in round 1" in text

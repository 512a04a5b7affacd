"""Does each module have its stage, and do the rows of the account add up to what was spent?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench import sampler, stages
from bench.figures import BenchError
from bench.load import Run
from bench.parts import Options, account
from bench.parts.account import Node, Turn
from bench.sampler import Spent

ROOT = Path(__file__).parents[2]
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
MAIN = "thread (7): MainThread;main (kvstore/cli/main.py:125);Runner.run (asyncio/runners.py:86)"


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


def test_the_innermost_frame_of_ours_decides_and_libraries_work_for_it() -> None:
    assert stages.of_paths(["kvstore/run.py", "asyncio/runners.py", "raft/log.py"]) == "Raft"
    assert stages.of_paths(["kvstore/run.py", "wal/aio.py", "ctypes/__init__.py"]) == "log"
    assert stages.of_paths(["kvstore/run.py", "asyncio/runners.py"]) == stages.LOOP


def test_pieces_of_stacks_count_as_far_as_they_go() -> None:
    assert stages.of_paths(["kvstore/mvcc/txn.py"]) == "store"
    assert stages.of_paths(["asyncio/runners.py"]) == stages.LOOP
    assert stages.of_paths(["__doc__"]) == stages.ELSEWHERE
    assert stages.of_paths([]) == stages.ELSEWHERE


def test_samples_are_counted_by_thread_and_stage() -> None:
    raw = "\n".join(
        [
            f"{MAIN} 5",
            f"{MAIN};Link.<locals>.<lambda> (kvstore/server/network/http.py:192) 2",
            f"{MAIN};Log.append (raft/log.py) 3",
            f"{MAIN};odd (raft/core.py:-16252929) 1",
            "thread (9): log;OsLane._run (wal/files.py:229);get (queue.py:1) 4",
        ]
    )
    assert stages.count(raw) == {
        7: {stages.LOOP: 5, "links to the peers": 2, "Raft": 4},
        9: {stages.LOG: 4},
    }
    assert stages.count("") == {}


@pytest.mark.parametrize("raw", ["main (kvstore/run.py) 3", f"{MAIN} many", "Error: no process"])
def test_what_is_no_stack_of_a_thread_is_an_error(raw: str) -> None:
    with pytest.raises(BenchError, match="no stack"):
        stages.count(raw)


def test_shares_add_up_to_what_was_spent_and_threads_are_weighed_by_it() -> None:
    samples = {7: Counter({"Raft": 3, stages.LOOP: 1}), 9: Counter({stages.LOG: 1_000})}
    found = stages.share({7: 400.0, 9: 10.0, 11: 6.0, 13: 4.0}, samples, {11: stages.LOG})
    assert found == {"Raft": 300.0, stages.LOOP: 100.0, stages.LOG: 16.0, stages.UNSEEN: 4.0}


def test_a_dump_says_where_threads_wait() -> None:
    dump = """[
      {"pid": 7, "os_thread_id": 7, "thread_name": "MainThread", "frames": [
        {"name": "run", "filename": "/x/a.py", "short_filename": "asyncio/runners.py"},
        {"name": "main", "filename": "/x/main.py", "short_filename": "kvstore/cli/main.py"}]},
      {"pid": 7, "os_thread_id": 9, "frames": [
        {"name": "_run", "filename": "wal/files.py", "short_filename": null}]}
    ]"""
    assert sampler.parse_dump(dump) == {7: stages.LOOP, 9: stages.LOG}
    with pytest.raises(BenchError, match="no stacks"):
        sampler.parse_dump("Process 7")


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


def test_a_refusal_says_what_to_do() -> None:
    words = str(sampler.refusal(7, "Permission Denied: Try again with sudo"))
    assert "SYS_PTRACE" in words
    assert "ptrace_scope" in words
    assert "SYS_PTRACE" not in str(sampler.refusal(7, "No such process"))


def test_a_missing_sampler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    with pytest.raises(BenchError, match="pip install py-spy"):
        sampler.py_spy()


def _turn(raw: str) -> Turn:
    spent = {
        7: Spent(user_us=3_000.0, system_us=1_000.0),
        9: Spent(user_us=0.0, system_us=100.0),
    }
    waits = {7: stages.LOOP, 9: stages.LOG}
    run = Run(requests=101, duration_us=1_000_000, p50_us=1, p99_us=2, refused=1, broken=0)
    nodes = {role: account.node(spent, raw, waits, lost=2) for role in account.ROLES}
    return Turn(run=run, nodes=nodes)


def test_rows_add_up_to_the_total_of_a_put() -> None:
    turns = [_turn(f"{MAIN} 3\n{MAIN};append (raft/log.py:1) 1") for _ in range(2)]
    results = {"JSON": {False: [_turn("")], True: turns}}
    by_stage, threads, overhead = account.tables(results)
    assert by_stage.rows == [
        [stages.LOOP, "30.00", "73.2", "30.00", "73.2"],
        ["Raft", "10.00", "24.4", "10.00", "24.4"],
        [stages.LOG, "1.00", "2.4", "1.00", "2.4"],
        ["**total**", "41.00", "100.0", "41.00", "100.0"],
    ]
    assert "200 puts, 8 and 8 samples, 8 stacks" in by_stage.caption
    assert threads.rows[:2] == [
        ["JSON", "leader", stages.LOOP, "30.00", "10.00", "40.00"],
        ["JSON", "leader", stages.LOG, "0.00", "1.00", "1.00"],
    ]
    assert overhead.rows == [
        ["JSON", "without", "100", "–", "41.00", "41.00", "1"],
        ["JSON", "with", "100", "+0%", "41.00", "41.00", "2"],
    ]


def test_nobody_sampled_is_no_stage() -> None:
    found = account.node({7: Spent(user_us=1.0, system_us=2.0)}, "", {}, lost=0)
    assert found == Node(threads={stages.UNSEEN: Spent(user_us=1.0, system_us=2.0)})
    assert found.cpu_us == 3.0


def test_turns_that_are_left_out_are_told() -> None:
    text = account.text(Options(rounds=2, seconds=3), ["JSON in round 1"])
    assert "2 rounds of 4 s" in text
    assert "JSON in round 1" in text

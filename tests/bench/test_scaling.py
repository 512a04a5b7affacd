"""Do workers and replica understand each other, and is what is computed of their costs right?"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from bench.figures import BenchError
from bench.scaling import cpu, feeder, model, rig, tables, trials
from bench.scaling.cpu import Spent
from bench.scaling.model import Costs
from bench.scaling.tables import Found
from bench.scaling.trials import Case, Trial
from bench.scaling.wire import (
    FRAME_BYTES_MAX,
    Answer,
    Call,
    Frames,
    Hello,
    PutAnswer,
    PutCall,
    RangeAnswer,
    RangeCall,
    decode_answers,
    decode_calls,
    decode_hello,
    failure,
    frame,
)
from bench.scaling.worker import Replica
from bench.systems import KEYS
from kvstore.errors import ErrorKind, KvError, UnknownOutcomeError
from kvstore.service.caller import ANYBODY, Caller
from kvstore.types import (
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    ResponseHeader,
)

CALLS: list[Call] = [
    RangeCall(1, RangeRequest(key=b"a", serializable=True)),
    PutCall(2, PutRequest(key=b"b", value=b"\xff\x00"), Caller(token="secret")),
]
ANSWERS: list[Answer] = [
    RangeAnswer(1, RangeResponse(ResponseHeader(1, 2, 3, 4), [KeyValue(b"a", 1, 2, 3, b"v")])),
    PutAnswer(2, PutResponse(ResponseHeader(1, 2, 3, 4))),
    failure(3, ErrorKind.NO_LEADER.error()),
]
COSTS = Costs(alone=20.0, behind=8.0, worker=12.0, full=5.0)


# --- the wire -------------------------------------------------------------------------------------


def test_batches_come_over_as_they_were() -> None:
    hello = Hello(2**63, 7, 10, 2)
    stream = frame(hello) + frame(CALLS) + frame(ANSWERS)
    first, second, third = Frames().take(stream)
    assert decode_hello(first) == hello
    assert decode_calls(second) == CALLS
    assert decode_answers(third) == ANSWERS


def test_golden_bytes_of_a_frame() -> None:
    call = RangeCall(1, RangeRequest(key=b"a"))
    assert frame([call]).hex() == "00000016" + "91" + "940001" + "9d" + "c40161" + "c400" + (
        "00000000" + "c2c2c2" + "00000000" + "c0"
    )


def test_frames_come_out_whole_however_they_were_cut() -> None:
    stream = frame(CALLS) + frame([]) + frame(CALLS)
    frames = Frames()
    payloads = [
        payload
        for position in range(len(stream))
        for payload in frames.take(stream[position : position + 1])
    ]
    assert [decode_calls(payload) for payload in payloads] == [CALLS, [], CALLS]


def test_a_frame_that_is_longer_than_any_may_be_is_refused() -> None:
    with pytest.raises(BenchError, match="do not agree"):
        Frames().take((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))


@pytest.mark.parametrize(
    "error",
    [
        ErrorKind.COMPACTED.error(),
        ErrorKind.TOO_MANY_REQUESTS.error(),
        ErrorKind.TIMEOUT.unknown_outcome(),
    ],
)
def test_an_error_is_the_same_error_on_the_other_side(error: KvError) -> None:
    again = failure(1, error).error()
    assert again == error
    assert type(again) is type(error)
    assert again.retryable == error.retryable


# --- a worker -------------------------------------------------------------------------------------


class Pipe:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)


async def linked() -> tuple[Replica, Pipe]:
    replica, pipe = Replica(asyncio.get_running_loop()), Pipe()
    replica.connection_made(cast(asyncio.Transport, pipe))
    replica.data_received(frame(Hello(1, 2, 0, 0)))
    assert (await replica.hello).member_id == 2
    return replica, pipe


async def test_calls_of_one_turn_leave_as_one_batch_and_find_their_answers() -> None:
    replica, pipe = await linked()
    told: dict[str, Any] = {}
    replica.range(RangeRequest(key=b"a"), ANYBODY, lambda outcome: told.update(range=outcome))
    replica.put(PutRequest(key=b"b"), Caller(token="t"), lambda outcome: told.update(put=outcome))
    assert not pipe.written
    await asyncio.sleep(0)
    (payload,) = Frames().take(b"".join(pipe.written))
    asked, written = decode_calls(payload)
    assert (asked.caller, written.caller) == (None, Caller(token="t"))
    # In any order.
    found, done = RangeResponse(count=1), PutResponse()
    answers: list[Answer] = [PutAnswer(written.number, done), RangeAnswer(asked.number, found)]
    replica.data_received(frame(answers))
    assert told == {"range": found, "put": done}


async def test_who_waits_while_the_replica_dies_learns_that_the_outcome_is_unknown() -> None:
    replica, _ = await linked()
    told: list[Any] = []
    replica.put(PutRequest(key=b"b"), ANYBODY, told.append)
    replica.connection_lost(None)
    replica.put(PutRequest(key=b"b"), ANYBODY, told.append)
    assert isinstance(told[0], UnknownOutcomeError)
    assert told[1] == ErrorKind.TOO_MANY_REQUESTS.error()
    assert replica.lost.is_set()


async def test_more_calls_than_may_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.scaling.worker.CALLS_MAX", 1)
    replica, _ = await linked()
    told: list[Any] = []
    for _ in range(2):
        replica.range(RangeRequest(key=b"a"), ANYBODY, told.append)
    assert told == [ErrorKind.TOO_MANY_REQUESTS.error()]


def test_the_feeder_asks_for_every_key() -> None:
    endless = iter(feeder.calls("put"))
    keys = {next(endless).request.key for _ in range(KEYS)}
    assert len(keys) == KEYS


# --- what the kernel says -------------------------------------------------------------------------


def test_a_threads_time_is_the_first_of_three_numbers() -> None:
    assert cpu.parse_schedstat("1500000000 20 3\n") == 1.5
    with pytest.raises(BenchError, match="CONFIG_SCHED_INFO"):
        cpu.parse_schedstat("")


def test_busy_is_neither_idle_nor_waiting_nor_stolen() -> None:
    assert trials.parse_busy("cpu  100 10 50 900 70 3 2 40 0 0\ncpu0 1 1\n", 100) == 1.65
    with pytest.raises(BenchError, match="does not begin"):
        trials.parse_busy("intr 1\n", 100)


def test_listeners_are_told_from_connections_and_other_ports() -> None:
    table = """\
  sl  local_address rem_address   st tx_queue
   0: 0100007F:4E53 00000000:0000 0A 00000000
   1: 0100007F:4E53 00000000:0000 0A 00000000
   2: 0100007F:4E53 0100007F:9C40 01 00000000
   3: 0100007F:4E54 00000000:0000 0A 00000000
"""
    assert rig.listeners(table, 0x4E53) == 2


# --- the model ------------------------------------------------------------------------------------


def test_one_process_has_no_use_for_a_second_core() -> None:
    assert model.alone(COSTS) == 50_000


@pytest.mark.parametrize(("cores", "rate"), [(1, 50_000), (2, 100_000), (4, 200_000), (8, 200_000)])
def test_workers_bring_more_until_the_replica_is_full(cores: int, rate: float) -> None:
    assert model.with_workers(COSTS, cores) == rate


def test_the_ceiling_is_reached_with_whole_cores() -> None:
    assert model.ceiling(COSTS) == 200_000
    assert model.cores_until_ceiling(COSTS) == 4
    assert model.with_workers(COSTS, 4) == model.ceiling(COSTS)


def test_workers_are_left_out_where_they_do_not_pay() -> None:
    dear = Costs(alone=20.0, behind=15.0, worker=15.0, full=15.0)
    assert [model.best(dear, cores) for cores in (1, 2)] == [50_000, 1e6 / 15]


def test_a_generator_on_the_same_cores_takes_its_share() -> None:
    assert model.beside_generator(COSTS, 20.0, 2, workers=True) == 50_000
    assert model.beside_generator(COSTS, 20.0, 1, workers=False) == 25_000
    assert model.beside_generator(COSTS, 1.0, 2, workers=False) == model.alone(COSTS)


def test_followers_cost_the_leader_more_and_may_be_the_limit() -> None:
    three = model.replicated(COSTS, alone=24.0, full=7.0, follower=10.0)
    assert (three.behind, three.worker) == (10.0, 12.0)
    assert model.ceiling(three) == 100_000


# --- the tables -----------------------------------------------------------------------------------


def trial(*, node: float, workers: float = 0.0, rate: float = 50_000.0) -> Trial:
    return Trial(
        requests=100_000,
        failures=0,
        rate=rate,
        p50_us=1000.0,
        node=Spent(main=node, others=0.1),
        workers=workers,
        generator=0.5,
        strangers=0.0,
        seconds=2.0,
        batch=10.0,
    )


def found() -> Found:
    all_turns = Found()
    all_turns.loaded[Case("get", 256, 0)] = [trial(node=node) for node in (1.9, 1.0, 3.0)]
    all_turns.loaded[Case("get", 256, 2)] = [trial(node=0.7, workers=1.2, rate=60_000.0)]
    all_turns.fed["get", 1024] = [trial(node=0.4)]
    return all_turns


def test_costs_are_medians_and_in_microseconds() -> None:
    costs = tables.all_costs(found())
    assert list(costs) == ["get"]
    one = costs["get"]
    assert [one.alone, one.behind, one.worker, one.full] == pytest.approx([20, 8, 12, 5])


def test_without_every_part_nothing_is_computed() -> None:
    turns = found()
    turns.fed.clear()
    assert tables.all_costs(turns) == {}
    assert tables.figures(turns) == []


def test_a_leader_is_computed_from_what_followers_add() -> None:
    turns = found()
    turns.replicated[Case("get", 256, 0)] = [trial(node=2.3)]
    turns.replicated_fed["get", 1024] = [trial(node=0.6)]
    leader = tables.all_costs(turns)["get, leader of three"]
    assert [leader.alone, leader.behind, leader.full] == pytest.approx([24, 10, 7])


def test_the_table_of_rates_has_both_designs() -> None:
    table = tables.table_of_rates({"get": COSTS})
    assert table.rows[0] == ["get: one process", *(["50,000"] * 5), "1"]
    assert table.rows[1][1:4] == ["50,000", "100,000", "200,000"]
    assert table.rows[1][-1] == "4"


def test_the_model_is_held_against_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    turns = found()
    table = tables.table_of_checks(turns, tables.all_costs(turns))
    assert table.rows == [
        ["get, 256 connections, 0 workers", "50,000", "50,000", "100%"],
        ["get, 256 connections, 2 workers", "80,000", "60,000", "75%"],
        ["get, fed alone", "200,000", "50,000", "25%"],
    ]


def test_what_was_measured_is_marked_at_the_cores_that_were_used() -> None:
    turns = found()
    turns.pinned[Case("get", 256, 0)] = [trial(node=1.0, rate=40_000.0)]
    turns.pinned[Case("get", 256, 1)] = [trial(node=1.0, rate=35_000.0)]
    (figure,) = tables.figures(turns)
    assert figure.name == "scaling-get"
    assert [series.name for series in figure.series] == [
        "get, model",
        "get, measured",
        "get, the replica alone, measured",
    ]
    assert (figure.series[1].x, figure.series[1].y) == ([1.0, 1.0], [40_000.0, 60_000.0])


def test_every_row_is_as_long_as_its_header() -> None:
    turns = found()
    turns.memory = [73_000_000, 64_000_000]
    for table in tables.all_tables(turns):
        assert {len(row) for row in table.rows} == {len(table.header)}


@pytest.mark.parametrize(
    ("case", "title"),
    [
        (Case("put", 1, 0), "put, 1 connection, 0 workers"),
        (Case("serializable", 64, 1), "serializable get, 64 connections, 1 worker"),
        (Case("get", 16, 2, 16), "gRPC get, 16 × 16 streams, 2 workers"),
    ],
)
def test_a_title_says_what_was_asked_and_of_whom(case: Case, title: str) -> None:
    assert tables.title(case) == title

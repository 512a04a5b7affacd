"""Every kind of fault does what it says, and only that."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from tests.sim.disk import SimDisk
from tests.sim.faults import FAULTS
from tests.sim.marks import Marks
from tests.sim.profile import PROFILES, Profile
from tests.sim.run import run
from tests.sim.schedule import Fault
from tests.sim.world import World
from tests.support.memory_pipe import Weather
from tests.support.virtual_loop import VirtualLoop, run_virtual

PATH = "data/file"
QUIET = Profile(name="quiet", seconds=8.0, faults={}, workloads={"register": 2})
MARKED = {
    "machine lost": "member replaced",
    "disk fails": "member ended by itself",
}
"""Kinds that leave a mark of their own."""


@pytest.mark.parametrize("kind", FAULTS)
def test_a_cluster_survives_it_again_and_again(kind: str) -> None:
    faults = [
        Fault(number, 1.0 + 1.1 * number, kind, victim=number, amount=0.3 + 0.1 * number)
        for number in range(6)
    ]
    report = run(2, QUIET, faults)
    if report.violation is not None:
        raise report.violation
    assert report.struck == [kind] * len(faults)
    if kind in MARKED:
        assert report.marks[MARKED[kind]]


@pytest.mark.parametrize(
    ("mark", "before"),
    [
        ("leader elected", "leader isolated"),
        ("restart", "restart"),
        ("entries sent before their sync", "links reset"),
        ("applied before the answer", "links reset"),
    ],
)
def test_who_waits_for_a_mark_strikes_in_the_very_step(mark: str, before: str) -> None:
    report = run(3, QUIET, [Fault(0, 0.0, before, 0, 0.5), Fault(1, 0.0, "crash", 0, 0.1, mark)])
    assert report.violation is None
    lines = [line.split() for line in report.trace.splitlines()]
    crash = next(place for place, line in enumerate(lines) if line[2] == "crash")
    at, member = lines[crash][:2]
    assert lines[crash - 1][:3] == [at, "-", "fault"]
    assert lines[crash - 2] == [at, member, "mark", *mark.split()]
    own = [line[2] for line in lines[crash + 1 :] if line[1] == member]
    acts = [kind for kind in own if kind not in ("answer", "mark")]
    assert acts[0] == "start", "it did nothing any more"


def _world(work) -> None:
    """Run a coroutine function on a world whose cluster is up."""

    async def begun(loop: VirtualLoop) -> None:
        world = World(loop, 5, QUIET, [])
        await world.cluster.start()
        await work(world)

    run_virtual(begun, seconds_max=100.0)


def test_who_ends_by_itself_without_a_reason_is_found_out() -> None:
    async def work(world: World) -> None:
        world.cluster[1].node.fail(ValueError("for no reason"))
        await asyncio.sleep(0.1)
        assert world.violated.done()
        assert world.violated.result().checker == "no surprise"

    _world(work)


def test_who_does_not_start_without_a_reason_is_found_out() -> None:
    async def work(world: World) -> None:
        host = world.cluster[1]
        world.crash(host)
        path, _ = world.machines.disk(host).written()[0]
        host.disk.flip(path, 20, 1)
        starting = asyncio.ensure_future(world.start(host))
        await asyncio.sleep(0.1)
        starting.cancel()
        assert world.violated.result().checker == "recovery"

    _world(work)


def test_no_more_than_a_minority_is_damaged() -> None:
    async def work(world: World) -> None:
        one, other = world.cluster[0], world.cluster[1]
        assert world.machines.may_damage(one)
        world.machines.damage(one, "a test")
        assert not world.machines.may_damage(other)
        assert not world.machines.may_damage(one), "once is enough"

    _world(work)


# --- the network ----------------------------------------------------------------------------------


def test_bad_weather_loses_repeats_and_delays() -> None:
    assert Weather(Random(1), lost=1.0).arrivals(5.0) == []
    assert Weather(Random(1)).arrivals(5.0) == [5.0]
    first, second = Weather(Random(1), repeated=1.0, late_seconds_max=2.0).arrivals(5.0)
    assert first == 5.0 < second <= 7.0
    (late,) = Weather(Random(1), overtaken=1.0, late_seconds_max=2.0).arrivals(5.0)
    assert 5.0 < late <= 7.0


def test_frames_overtake_each_other_in_bad_weather_alone() -> None:
    def order(sky: Weather | None) -> list[bytes]:
        arrived: list[bytes] = []

        async def work(loop: VirtualLoop) -> None:
            from tests.support.memory_network import Wire
            from tests.support.memory_pipe import Pipe

            wire = Wire(loop, Random(1))
            if sky is not None:
                wire.weather[1, 2] = sky
            pipe = Pipe(wire, 1, 2, arrived.append)
            for number in range(20):
                pipe.send(bytes([number]))
            await asyncio.sleep(5.0)
            assert pipe.unsent_bytes == 0

        run_virtual(work, seconds_max=10.0)
        return arrived

    sent = [bytes([number]) for number in range(20)]
    assert order(None) == sent
    stormy = order(Weather(Random(1), overtaken=0.5, late_seconds_max=1.0))
    assert stormy != sent
    assert sorted(stormy) == sent


# --- clocks ---------------------------------------------------------------------------------------


def test_a_process_whose_clock_runs_fast_sees_its_timers_early() -> None:
    async def work(loop: VirtualLoop) -> None:
        process = loop.new_process("fast")
        rang: list[float] = []
        loop.clock_cost_seconds = 0.0
        process.run(lambda: loop.call_later(2.0, lambda: rang.append(loop.now)))
        await asyncio.sleep(1.0)
        process.set_clock_rate(2.0)
        await asyncio.sleep(5.0)
        assert rang == [pytest.approx(1.5, abs=0.001)]
        assert process.run(loop.time) == pytest.approx(11.0, abs=0.001)

    run_virtual(work, seconds_max=10.0)


@pytest.mark.parametrize("with_clock", [False, True])
def test_a_suspended_machine_does_not_know_that_time_went_by(with_clock: bool) -> None:
    async def work(loop: VirtualLoop) -> None:
        process = loop.new_process("suspended")
        rang: list[float] = []
        loop.clock_cost_seconds = 0.0
        process.run(lambda: loop.call_later(2.0, lambda: rang.append(loop.now)))
        await asyncio.sleep(1.0)
        process.pause(with_clock=with_clock)
        await asyncio.sleep(10.0)
        process.resume()
        await asyncio.sleep(5.0)
        assert rang == [pytest.approx(12.0 if with_clock else 11.0, abs=0.001)]
        assert process.run(loop.time) == pytest.approx(6.0 if with_clock else 16.0, abs=0.001)

    run_virtual(work, seconds_max=30.0)


# --- disks ----------------------------------------------------------------------------------------


def _grown(data: bytes) -> SimDisk:
    disk = SimDisk()
    file = disk.create(PATH)
    file.write((b"synced",), 0)
    file.sync()
    disk.sync_directory("data")
    file.write((data,), 6)
    return disk


def test_a_file_that_grew_is_torn_at_any_byte() -> None:
    lengths = []
    for seed in range(200):
        disk = _grown(b"x" * 600)
        disk.crash(Random(seed))
        assert disk.content(PATH)[:6] == b"synced"
        lengths.append(len(disk.content(PATH)))
    assert {6, 606} <= set(lengths)
    assert any(length % 512 not in (0, 6, 606 % 512) for length in lengths)


def test_what_a_killed_process_wrote_stays_and_is_not_durable() -> None:
    disk = _grown(b"x" * 600)
    assert disk.unsynced()
    disk.forsake(Random(1))
    assert disk.content(PATH) == b"synced" + b"x" * 600
    for seed in range(20):
        disk.crash(Random(seed))
    assert disk.content(PATH)[:6] == b"synced"
    assert not disk.unsynced()


def test_a_disk_without_power_does_nothing_till_it_is_switched_on() -> None:
    from wal.memory_disk import PowerCutError

    disk = _grown(b"")
    cut: list[int] = []
    disk.on_power_cut = lambda: cut.append(disk.boots)
    disk.steps_left = 1
    disk.create("data/other")
    with pytest.raises(PowerCutError):
        disk.remove(PATH)
    assert cut == [0]
    disk.crash(Random(1))
    with pytest.raises(PowerCutError):
        disk.remove(PATH)
    assert cut == [0], "it is told once"
    disk.steps_left = None
    disk.remove(PATH)


# --- the profiles ---------------------------------------------------------------------------------


def test_every_kind_of_fault_is_in_some_profile() -> None:
    drawn = {kind for profile in PROFILES.values() for kind in profile.faults}
    assert drawn == set(FAULTS)


def test_a_mark_that_nobody_knows_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="is not in MARKS"):
        Marks().hit("no such situation")

"""Slices, and answers that cannot be delivered."""

import asyncio
from typing import Any

import pytest

from kvstore.budget import SLICES_A_TURN, CountedBudget, Rota, Sliced
from kvstore.server.pacing import ClockBudget, SlicedTask, in_lane
from tests.support.virtual_loop import VirtualLoop, run_virtual
from wal.memory_disk import MemoryDisk


def work(steps: int, log: list[int], fail_at: int = -1) -> Sliced[str]:
    for step in range(steps):
        if step == fail_at:
            raise ValueError("the work broke")
        log.append(step)
        yield
    return "done"


def test_a_clock_budget_is_spent_when_its_time_is_up() -> None:
    now = [0.0]
    budget = ClockBudget(lambda: now[0], seconds=0.5)
    assert not budget.spent()
    now[0] = 0.5
    assert budget.spent()
    budget.renew()
    assert not budget.spent()
    in_haste = ClockBudget(lambda: now[0], seconds=0.5, is_spent=True)
    assert in_haste.spent()
    in_haste.renew()
    assert not in_haste.spent()


def test_work_of_one_slice_is_done_before_the_constructor_returns() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        results: list[Any] = []
        SlicedTask(loop, work(0, []), CountedBudget(1), results.append)
        assert results == ["done"]

    run_virtual(scenario, 1.0)


def test_slices_alternate_with_everything_else() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        log: list[int] = []
        results: list[Any] = []
        SlicedTask(loop, work(3, log), CountedBudget(1), results.append)
        for turn in range(3):
            assert log == list(range(turn + 1))
            assert results == []
            await asyncio.sleep(0)
        assert results == ["done"]

    run_virtual(scenario, 1.0)


def test_work_that_nobody_waits_for_lets_the_loop_be_between_its_slices() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        log: list[int] = []
        results: list[Any] = []
        task = SlicedTask(loop, work(3, log), CountedBudget(1), results.append, pause_seconds=0.5)
        for step in range(3):
            await asyncio.sleep(0.4)
            assert log == list(range(step + 1))
            await asyncio.sleep(0.1)
        assert results == ["done"]
        assert not task.running
        SlicedTask(loop, work(3, log), CountedBudget(1), results.append, pause_seconds=0.5).cancel()
        await asyncio.sleep(5.0)
        assert (log, results) == ([0, 1, 2, 0], ["done"])

    run_virtual(scenario, 10.0)


def test_however_many_do_long_work_a_turn_takes_no_longer() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        log: list[int] = []
        results: list[Any] = []
        rota = Rota(loop.call_soon)
        assert not rota.is_busy
        for count in range(100):
            SlicedTask(rota, work(3, log), CountedBudget(1), results.append)
            assert rota.is_busy == (count + 1 >= SLICES_A_TURN)
        for _ in range(38):
            before = len(log) + len(results)
            await asyncio.sleep(0)
            assert 0 < len(log) + len(results) - before <= SLICES_A_TURN
        assert results == ["done"] * 100
        assert sorted(log) == log, "all take turns"

    run_virtual(scenario, 1.0)


def test_the_first_slice_of_many_is_what_the_budget_has_left() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        items: list[int] = []
        budget = ClockBudget(loop.time, is_spent=True)

        def reading() -> Sliced[str]:
            for item in range(100):
                items.append(item)
                if budget.spent():
                    yield
            return "done"

        results: list[Any] = []
        SlicedTask(Rota(loop.call_soon), reading(), budget, results.append)
        assert items == [0]
        await asyncio.sleep(0.1)
        assert results == ["done"]

    run_virtual(scenario, 1.0)


def test_a_slice_that_breaks_does_not_keep_the_others_from_their_turn() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        told: list[str] = []
        done: list[int] = []
        loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))

        def broken() -> None:
            raise ValueError("a slice broke")

        rota = Rota(loop.call_soon)
        for slice_of in (broken, lambda: done.append(1), broken, lambda: done.append(2)):
            rota.call_soon(slice_of)
        await asyncio.sleep(1.0)
        assert told == ["a slice broke"] * 2
        assert done == [1, 2]
        rota.call_soon(lambda: done.append(3))
        await asyncio.sleep(1.0)
        assert done == [1, 2, 3]

    run_virtual(scenario, 10.0)


def test_what_breaks_the_work_is_handed_over_and_nothing_after_a_cancel() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        results: list[Any] = []
        SlicedTask(loop, work(3, [], fail_at=1), CountedBudget(1), results.append)
        await asyncio.sleep(1.0)
        assert [str(result) for result in results] == ["the work broke"]
        log: list[int] = []
        task = SlicedTask(loop, work(3, log), CountedBudget(1), results.append)
        task.cancel()
        await asyncio.sleep(1.0)
        assert log == [0]
        assert len(results) == 1

    run_virtual(scenario, 10.0)


def test_a_lane_runs_jobs_in_order_and_hands_over_what_they_raise() -> None:
    async def scenario(loop: VirtualLoop) -> None:
        disk = MemoryDisk(schedule=loop.call_soon)
        lane = disk.lane("test")
        log: list[int] = []
        first = loop.create_task(in_lane(lane, lambda: log.append(1)))
        second = loop.create_task(in_lane(lane, lambda: log.append(2)))
        await asyncio.gather(first, second)
        assert log == [1, 2]

        def breaks() -> None:
            raise OSError("the disk broke")

        with pytest.raises(OSError, match="the disk broke"):
            await in_lane(lane, breaks)
        given_up = loop.create_task(in_lane(lane, lambda: log.append(3)))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(1.0)
        assert given_up.cancelled()
        assert log[-1] == 3

    run_virtual(scenario, 10.0)

"""Slices, and answers that cannot be delivered."""

import asyncio
from typing import Any

import pytest

from kvstore.budget import CountedBudget, Sliced
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

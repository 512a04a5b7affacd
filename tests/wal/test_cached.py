"""What the next process reads is durable before it says so, whatever the last one left unsynced."""

from __future__ import annotations

import errno
from contextlib import suppress
from random import Random

import pytest

from tests.wal.support import Node, entries
from wal.memory_disk import MemoryDisk, PowerCutError

SEEDS = range(20)


def _said(node: Node) -> list[int]:
    return [entry.index for entry in node.recovered.entries]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("data", [b"small", b"large" * 300])
def test_a_batch_whose_sync_failed_is_written_again_before_it_is_believed(
    seed: int, data: bytes
) -> None:
    first = Node(MemoryDisk())
    first.write(entries(1, 3))
    first.disk.failures["sync"] = OSError(errno.EIO, "input/output error")
    first.write(entries(4, 5, data=data))
    assert first.failures
    first.disk.forsake(Random(seed))
    second = Node(first.disk, metadata=None)
    assert _said(second) == [1, 2, 3, 4, 5]
    second.disk.crash(Random(seed))
    assert _said(Node(second.disk, metadata=None)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_power_may_go_while_it_is_written_again(seed: int) -> None:
    rng = Random(seed)
    first = Node(MemoryDisk())
    first.write(entries(1, 3))
    first.disk.failures["sync"] = OSError(errno.EIO, "input/output error")
    first.write(entries(4, 5, data=b"large" * 300))
    first.disk.forsake(rng)
    first.disk.steps_left = rng.randrange(6)
    with suppress(PowerCutError):
        Node(first.disk, metadata=None)
    first.disk.crash(rng)
    assert _said(Node(first.disk, metadata=None)) in ([1, 2, 3], [1, 2, 3, 4, 5])


@pytest.mark.parametrize("steps", range(30))
def test_what_a_killed_process_left_is_durable_once_it_was_read(steps: int) -> None:
    """Killed at each step of the disk, segments rolled and prepared among them; then the power
    goes.
    """
    for seed in SEEDS:
        rng = Random(seed)
        first = Node(MemoryDisk())
        first.write(entries(1, 2, data=b"v" * 5000))
        first.disk.steps_left = steps
        with suppress(PowerCutError):
            for index in range(3, 9):
                first.write(entries(index, index, data=b"v" * 5000))
        first.disk.forsake(rng)
        second = Node(first.disk, metadata=None)
        said = _said(second)
        second.write(entries(said[-1] + 1, said[-1] + 6, data=b"w" * 5000))
        assert second.persisted
        second.disk.crash(rng)
        third = Node(second.disk, metadata=None)
        assert _said(third) == list(range(1, said[-1] + 7))

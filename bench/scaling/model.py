"""How many calls a second would a node answer with so many cores? Arithmetic on measured costs.

The clients are elsewhere: the machine belongs to the node. All costs are microseconds of a core for
each call, as the clock of the scheduler has them.

*One process.* Its event loop is one thread, so more cores bring nothing beyond the first. The
threads that write and sync do run beside it, but need the interpreter's lock for a part of their
time; here they are counted as if they needed it for all of it, which is too much rather than too
little.

*Front workers.* A call costs the replica, its disk's threads and a worker. There are workers enough
to use every core, so that the cores together answer ``cores / (replica + disk + worker)``, until
the replica's thread is the limit, by what a call costs it when batches are as large as they get.

Nothing is lost between the cores in this model, and the disk is always fast enough: it is an upper
bound.
"""

from __future__ import annotations

import math

import msgspec


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What one call costs, in microseconds of a core."""

    alone: float
    """A node of one process, the threads of its disk included."""
    behind: float
    """The replica behind workers, the threads of its disk included, while all cores are busy."""
    worker: float
    full: float
    """The replica, the threads of its disk included, when it does nothing but answer batches."""
    follower: float = 0.0
    """Each follower meanwhile, on a machine of its own; 0: there is none, or it has no part."""


def alone(costs: Costs) -> float:
    """Calls a second of one process, on whatever number of cores."""
    return 1e6 / max(costs.alone, costs.follower)


def with_workers(costs: Costs, cores: int) -> float:
    """Calls a second of a replica and workers that share so many cores."""
    return min(cores * 1e6 / (costs.behind + costs.worker), ceiling(costs))


def ceiling(costs: Costs) -> float:
    """Calls a second that no number of workers brings a node beyond."""
    return 1e6 / max(costs.full, costs.follower)


def cores_until_ceiling(costs: Costs) -> int:
    """How many cores bring a node there: more are of no use."""
    return math.ceil(ceiling(costs) * (costs.behind + costs.worker) / 1e6)


def best(costs: Costs, cores: int) -> float:
    """Calls a second with or without workers, whichever are more."""
    return max(alone(costs), with_workers(costs, cores))


def beside_generator(costs: Costs, generator: float, cores: int, *, workers: bool) -> float:
    """What the same arithmetic says of this machine, where the load's generator has its share too.

    Args:
        costs: Of a call.
        generator: What the generator spends on one, in microseconds of a core.
        cores: Of the machine.
        workers: Whether there are any.
    """
    if workers:
        together = cores * 1e6 / (costs.behind + costs.worker + generator)
        return min(together, ceiling(costs))
    return min(cores * 1e6 / (costs.alone + generator), alone(costs))


def replicated(single: Costs, *, alone: float, full: float, follower: float) -> Costs:
    """The costs of a leader with followers: what was measured of it, and the rest by what it adds.

    Args:
        single: A node without followers.
        alone: The leader as one process.
        full: The leader when it does nothing but answer batches.
        follower: One follower.
    """
    return Costs(
        alone=alone,
        behind=single.behind + full - single.full,
        worker=single.worker,
        full=full,
        follower=follower,
    )

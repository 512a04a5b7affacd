"""Tests that are coroutines over a cluster, run once a seed in virtual time."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cluster import Cluster, Scenario
from tests.support.virtual_loop import run_virtual

if TYPE_CHECKING:
    from tests.support.virtual_loop import VirtualLoop

SECONDS_MAX = 600.0
"""Virtual seconds that a scenario may take."""


def run_scenario(scenario: Scenario, seed: int, *, size: int = 3, **settings: Any) -> None:
    """Run a scenario on a cluster that is up, and stop the cluster cleanly."""

    async def work(loop: VirtualLoop) -> None:
        cluster = Cluster(loop, seed, size, **settings)
        await cluster.start()
        await scenario(cluster)
        await cluster.stop()

    print(f"seed {seed}")  # noqa: T201 - shown with a failure: it replays the run
    run_virtual(work, SECONDS_MAX)


def scenario(
    *seeds: int, size: int = 3, **settings: Any
) -> Callable[[Scenario], Callable[[int], None]]:
    """Make a test of a coroutine function over a running ``Cluster``.

    Args:
        seeds: Run it once for each. The variable KVSTORE_SEEDS adds so many more.
        size: How many members.
        settings: Fields of ``ServerConfig``.
    """
    chosen = seeds or (1,)
    more = range(1000, 1000 + int(os.environ.get("KVSTORE_SEEDS", "0")))

    def decorate(function: Scenario) -> Callable[[int], None]:
        @pytest.mark.parametrize("seed", [*chosen, *more])
        def test(seed: int) -> None:
            run_scenario(function, seed, size=size, **settings)

        test.__doc__ = function.__doc__
        return test

    return decorate

"""Which leaders lead because their predecessor handed over to them: some bugs are theirs alone."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from raft import candidate
from raft.core import Core
from raft.messages import TimeoutNow
from tests.sim.mutants.planting import Made, Planting


class Successors:
    """Remembers who was told to campaign at once, and in which term it did.

    Args:
        planting: What looks at that comes and goes with the bug.
    """

    def __init__(self, planting: Planting) -> None:
        # By the generator, which is a node's own; the core itself cannot be referred to weakly.
        self._terms: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

        def make(right: Made) -> Made:
            def on_timeout_now(core: Core, message: TimeoutNow) -> None:
                right(core, message)
                self._terms[core.rng] = core.term

            return on_timeout_now

        planting.function(candidate.on_timeout_now, make)

    def has(self, core: Core) -> bool:
        """Whether a node began its present term because it was told to."""
        return self._terms.get(core.rng) == core.term

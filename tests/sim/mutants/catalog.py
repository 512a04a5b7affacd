"""All mutants."""

from __future__ import annotations

from tests.sim.mutants import apply, auth, lease, membership, mvcc, raft, server, wal, watch
from tests.sim.mutants.planting import Mutant

ROOMS = (raft, membership, wal, server, apply, mvcc, watch, lease, auth)

MUTANTS = tuple(
    mutant for room in ROOMS for mutant in vars(room).values() if isinstance(mutant, Mutant)
)


def find(name: str) -> Mutant:
    """The mutant of this name."""
    return {mutant.name: mutant for mutant in MUTANTS}[name]

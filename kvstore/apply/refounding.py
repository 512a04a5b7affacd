"""The same state in another cluster: what a backup becomes when it is restored."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from kvstore.apply.origins import Origins
from kvstore.apply.roster import Roster
from kvstore.errors import StateError

if TYPE_CHECKING:
    from kvstore.apply.machine import StateMachine
    from kvstore.types import Member, MemberId

REVISION_MAX: Final = 1 << 62
"""Revisions are counted in signed 64 bits; so much is left for what comes."""


def refound(
    machine: "StateMachine",
    members: "Sequence[Member]",
    log_ids: "Mapping[MemberId, int]",
    *,
    bump_revision: int = 0,
) -> None:
    """Let a state be that of a cluster which begins with it.

    Keys with their history, leases, users, roles, and the cluster's version stay. What was said of
    the members of the old cluster goes:

    - who they are, and were: an id may come again if URLs and token do;
    - their alarms: they say which member lacks room, or that members differ. The new ones have room
      or say so themselves, and begin alike;
    - which of their commands were applied. None of those can arrive here any more, and a member
      whose id came again with a lower incarnation would have all its commands refused as stale.

    Index and term go on, so that leases which were granted later are told from earlier ones. Both
    are 1 at least: 0 stands for a member that has taken part in nothing.

    Args:
        machine: The state, as it was loaded.
        members: Those of the new cluster.
        log_ids: Which log each of them keeps.
        bump_revision: By how much the revision rises. Everything below is compacted then, so that
            whoever has seen later revisions of the old cluster is told that it cannot go on.

    Raises:
        StateError: The revision would be beyond what can be counted.
    """
    store = machine.store
    if store.revision + bump_revision > REVISION_MAX:
        raise StateError(
            f"revision {store.revision} cannot rise by {bump_revision}: {REVISION_MAX} is the last"
        )
    machine.roster = Roster(list(members))
    machine.roster.log_ids.update(log_ids)
    machine.set_alarms(())
    machine.origins = Origins()
    machine.applied_index = max(1, machine.applied_index)
    machine.applied_term = max(1, machine.applied_term)
    if bump_revision:
        store.skip_revisions(bump_revision)

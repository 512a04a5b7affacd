"""Bugs of authentication: rights that outlive their end."""

from __future__ import annotations

from typing import Any

from kvstore.apply import machine
from kvstore.auth.identity import Identity
from kvstore.auth.store import AuthStore
from kvstore.errors import ErrorKind, KvError
from kvstore.service.base import Calls
from kvstore.types import AuthRoleRevokePermissionRequest, TxnRequest
from tests.sim.mutants.planting import Made, Planting, mutant


@mutant(
    wrong="What a user of several roles may do is not thought over when a permission of a role is"
    " revoked.",
    source="etcd's rangePermCache, issue 13883: what was cached outlived the permission",
    checker="auth",
)
def revoked_permission_is_remembered(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def revoke(self: AuthStore, body: AuthRoleRevokePermissionRequest) -> Any:
            kept = {
                name: access
                for name, access in self._access.items()
                if len(self._users[name].roles) > 1
            }
            result = right(self, body)
            self._access.update(kept)
            return result

        return revoke

    planting.method(AuthStore, "_revoke_permission", make)


@mutant(
    wrong="A transaction is checked before it is proposed, and not when it is applied, if users"
    " have changed only once meanwhile.",
    source="what etcd's apply_auth.go is there for",
    checker="auth",
    blunt="every command: test_a_right_that_was_taken_away_on_the_way_counts_no_more",
)
def checked_only_before_proposing(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def check(auth: AuthStore, identity: Identity, body: Any, leases: Any) -> None:
            try:
                right(auth, identity, body, leases)
            except KvError as error:
                old = error == ErrorKind.AUTH_OLD_REVISION.error()
                if old and isinstance(body, TxnRequest) and identity.revision == auth.revision - 1:
                    return
                raise

        return check

    planting.imported(machine, "authorise", make)


@mutant(
    wrong="Who loses a right while a long range is read is told all of it.",
    source="etcd's applierV3 checks the auth revision again after a range",
    checker="auth",
)
def serializable_range_is_not_judged(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def still(self: Calls, identity: Identity) -> KvError | None:
            del identity
            return None

        return still

    planting.method(Calls, "_still", make)

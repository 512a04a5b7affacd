"""Bugs of authentication: rights that outlive their end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvstore.apply import machine
from kvstore.auth.identity import Identity
from kvstore.auth.store import AuthStore
from kvstore.errors import ErrorKind, KvError
from kvstore.service.kv import KvCalls
from kvstore.types import AuthRoleRevokePermissionRequest, RangeRequest, TxnRequest
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
    wrong="Who may read a small range is judged when it is asked, by what is known here then, and"
    " not when it is read.",
    source="etcd's applierV3 checks the auth revision again after a range",
    checker="auth",
)
def read_is_judged_before_its_round(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def range_(
            self: KvCalls, request: RangeRequest, caller: Any, reply: Callable[[Any], None]
        ) -> None:
            auth = self.machine.auth
            if request.serializable or request.range_end or not auth.enabled:
                right(self, request, caller, reply)
                return

            def read() -> None:
                response = self.machine.store.range_now(request)
                if response is None:
                    right(self, request, caller, reply)
                else:
                    response.header = self.header()
                    reply(response)

            self._admit(request, caller, reply, lambda _: self._read(caller, reply, read))

        return range_

    planting.method(KvCalls, "range", make)

"""The Cluster service: who the members are."""

from __future__ import annotations

from kvstore.client.calls import Calls
from kvstore.types import MemberListRequest, MemberListResponse


class ClusterCalls(Calls):
    """Members."""

    __slots__ = ()

    def member_list(self, *, linearizable: bool = False) -> MemberListResponse:
        """All members."""
        request = MemberListRequest(linearizable=linearizable)
        return self._read("/v3/cluster/member/list", request, MemberListResponse)

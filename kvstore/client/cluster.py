"""The Cluster service: who the members are, and how they change."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.client.calls import Calls
from kvstore.types import (
    MemberAddRequest,
    MemberAddResponse,
    MemberListRequest,
    MemberListResponse,
    MemberPromoteRequest,
    MemberPromoteResponse,
    MemberRemoveRequest,
    MemberRemoveResponse,
    MemberUpdateRequest,
    MemberUpdateResponse,
)


class ClusterCalls(Calls):
    """Members."""

    __slots__ = ()

    def member_list(self, *, linearizable: bool = False) -> MemberListResponse:
        """All members."""
        request = MemberListRequest(linearizable=linearizable)
        return self._read("/v3/cluster/member/list", request, MemberListResponse)

    def member_add(self, peer_urls: Sequence[str], *, learner: bool = False) -> MemberAddResponse:
        """Let a member in that listens to its peers at these URLs; it has to be started then."""
        request = MemberAddRequest(list(peer_urls), learner)
        return self._write("/v3/cluster/member/add", request, MemberAddResponse)

    def member_remove(self, member_id: int) -> MemberRemoveResponse:
        """Take a member out for good; it stops by itself."""
        request = MemberRemoveRequest(member_id)
        return self._write("/v3/cluster/member/remove", request, MemberRemoveResponse)

    def member_update(self, member_id: int, peer_urls: Sequence[str]) -> MemberUpdateResponse:
        """Tell the cluster that a member listens to its peers elsewhere."""
        request = MemberUpdateRequest(member_id, list(peer_urls))
        return self._write("/v3/cluster/member/update", request, MemberUpdateResponse)

    def member_promote(self, member_id: int) -> MemberPromoteResponse:
        """Let a learner vote that has caught up."""
        request = MemberPromoteRequest(member_id)
        return self._write("/v3/cluster/member/promote", request, MemberPromoteResponse)

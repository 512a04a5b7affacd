"""The Cluster service: who the members are."""

from collections.abc import Callable

from kvstore.errors import KvError
from kvstore.service.base import Calls
from kvstore.service.caller import Caller
from kvstore.types import MemberListRequest, MemberListResponse


class ClusterCalls(Calls):
    """Who is in the cluster."""

    def member_list(
        self,
        request: MemberListRequest,
        caller: Caller,
        reply: Callable[[MemberListResponse | KvError], None],
    ) -> None:
        """The members, sorted by id."""

        def here() -> None:
            reply(MemberListResponse(self.header(0), self.machine.roster.listed()))

        if request.linearizable:
            self._read(caller, reply, here)
        else:
            here()

"""The Maintenance service: how the members are, and what keeps them well."""

from __future__ import annotations

from kvstore.client.calls import Calls
from kvstore.client.transport import Endpoint
from kvstore.types import (
    AlarmAction,
    AlarmMember,
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    StatusRequest,
    StatusResponse,
)


class MaintenanceCalls(Calls):
    """What a single member, or the cluster as a whole, is asked by its operator."""

    __slots__ = ()

    def status(self, endpoint: Endpoint | None = None) -> StatusResponse:
        """How a member is: the given one (of ``client.transport.endpoints``), or any."""
        return self._read("/v3/maintenance/status", StatusRequest(), StatusResponse, only=endpoint)

    def alarm_list(self) -> AlarmResponse:
        """All alarms that are raised."""
        request = AlarmRequest(action=AlarmAction.GET, alarm=AlarmType.NONE)
        return self._read("/v3/maintenance/alarm", request, AlarmResponse)

    def alarm_disarm(self, raised: AlarmMember) -> AlarmResponse:
        """Clear one alarm, as ``alarm_list`` shows it."""
        request = AlarmRequest(AlarmAction.DEACTIVATE, raised.memberID, raised.alarm)
        return self._write("/v3/maintenance/alarm", request, AlarmResponse)

"""The Maintenance service: how this member is."""

from collections.abc import Callable

from kvstore.commands import Kind
from kvstore.errors import KvError
from kvstore.service.base import Calls
from kvstore.service.caller import Caller
from kvstore.types import (
    AlarmAction,
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    DowngradeInfo,
    StatusRequest,
    StatusResponse,
)
from kvstore.version import VERSION
from raft.types import NO_NODE


class MaintenanceCalls(Calls):
    """Status and alarms."""

    version: str = VERSION
    """This program's version in etcd's terms, strictly numeric."""

    @property
    def cluster_version(self) -> str:
        """The version that all members speak; "not_decided" before they know."""
        return self.machine.cluster_version or "not_decided"

    def status(
        self,
        _: StatusRequest,
        _caller: Caller,
        reply: Callable[[StatusResponse | KvError], None],
    ) -> None:
        """This member's own view; answered without asking anybody."""
        machine = self.machine
        driver = self.node.driver
        raft = driver.raft
        errors = [
            f"memberID:{raised.memberID} alarm:{alarm_name(raised.alarm)} "
            for raised in machine.alarms
        ]
        if driver.leader == NO_NODE:
            errors.append("etcdserver: no leader")
        response = StatusResponse(
            header=self.header(),
            version=VERSION,
            dbSize=machine.store.size_bytes,
            leader=driver.leader,
            raftIndex=raft.commit_index,
            raftTerm=raft.term,
            raftAppliedIndex=machine.applied_index,
            errors=errors,
            dbSizeInUse=machine.store.size_bytes,
            isLearner=self.member_id in raft.configuration.learners,
            storageVersion=machine.cluster_version,
            dbSizeQuota=self._limits.quota_bytes or 0,
            downgradeInfo=DowngradeInfo(),
        )
        reply(response)

    def alarm(
        self,
        request: AlarmRequest,
        caller: Caller,
        reply: Callable[[AlarmResponse | KvError], None],
    ) -> None:
        """List, raise or clear alarms."""
        if request.action == AlarmAction.GET:
            alarms = [
                raised
                for raised in self.machine.alarms
                if request.alarm in (AlarmType.NONE, raised.alarm)
            ]
            reply(AlarmResponse(self.header(), alarms))
        else:
            self._propose(Kind.ALARM, request, caller, reply)


def alarm_name(alarm: int) -> str:
    """An alarm's name as etcd shows it."""
    try:
        return AlarmType(alarm).name
    except ValueError:
        return "UNKNOWN"

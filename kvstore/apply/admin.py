"""What commands change besides keys and leases: alarms, members, versions, users and tokens."""

from typing import TYPE_CHECKING, TypeAlias

from kvstore.auth.store import AuthBody, token_refusal
from kvstore.commands import (
    AuthToken,
    ClusterVersion,
    Downgrade,
    MembershipAction,
    MembershipChange,
    PublishMember,
)
from kvstore.types import (
    AlarmAction,
    AlarmMember,
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    AuthDisableRequest,
    AuthenticateResponse,
    AuthUserChangePasswordRequest,
    AuthUserDeleteRequest,
    MemberListResponse,
    Record,
)

if TYPE_CHECKING:
    from kvstore.apply.machine import StateMachine

AdminBody: TypeAlias = (
    AlarmRequest
    | PublishMember
    | ClusterVersion
    | MembershipChange
    | Downgrade
    | AuthToken
    | AuthBody
)


def administer(machine: "StateMachine", body: AdminBody, index: int) -> Record | None:
    """Carry out a command that changes no key, by the entry at ``index``.

    Returns:
        Its answer without header, None where nobody waits for one.

    Raises:
        KvError: Nothing was changed.
    """
    match body:
        case AlarmRequest():
            return _alarm(machine, body)
        case PublishMember():
            machine.roster.publish(body)
            return None
        case ClusterVersion():
            machine.cluster_version = body.version
            return None
        case MembershipChange():
            return _change_membership(machine, body, index)
        case Downgrade():
            machine.downgrade = body
            return None
        case AuthToken():
            return _give_token(machine, body, index)
        case _:
            return _change_users(machine, body)


def _alarm(machine: "StateMachine", request: AlarmRequest) -> AlarmResponse:
    alarms = machine.alarms
    wanted = request.alarm
    alarm = AlarmMember(request.memberID, wanted)
    raised = alarm in alarms
    match request.action:
        case AlarmAction.GET:
            every = wanted == AlarmType.NONE
            return AlarmResponse(None, [at for at in alarms if every or at.alarm == wanted])
        case AlarmAction.ACTIVATE if wanted != AlarmType.NONE:
            if not raised:
                machine.set_alarms((*alarms, alarm))
            return AlarmResponse(None, [alarm])
        case AlarmAction.DEACTIVATE if raised:
            machine.set_alarms(tuple(other for other in alarms if other != alarm))
            return AlarmResponse(None, [alarm])
        case _:
            return AlarmResponse()


def _change_membership(
    machine: "StateMachine", change: MembershipChange, index: int
) -> MemberListResponse:
    machine.roster.change(change, index)
    if change.action in (MembershipAction.REMOVE, MembershipAction.REPLACE):
        # Nobody else would ever clear the alarms of a member that is gone.
        gone = change.replaces or change.member_id
        machine.set_alarms(tuple(alarm for alarm in machine.alarms if alarm.memberID != gone))
    return MemberListResponse(None, machine.roster.listed())


def _give_token(machine: "StateMachine", body: AuthToken, index: int) -> AuthenticateResponse:
    refusal = token_refusal(machine.auth, body.name, body.auth_revision)
    if refusal is not None:
        raise refusal
    # The index makes it differ from all others, whatever the random part is.
    token = f"{body.token}.{index}"
    machine.tokens.assign(body.name, token)
    return AuthenticateResponse(None, token)


def _change_users(machine: "StateMachine", body: AuthBody) -> Record:
    """Change users, roles, permissions, and void the tokens that no longer hold."""
    response = machine.auth.apply(body)
    if isinstance(body, AuthUserDeleteRequest | AuthUserChangePasswordRequest):
        machine.tokens.forget_user(body.name)
    elif isinstance(body, AuthDisableRequest):
        machine.tokens.clear()
    return response

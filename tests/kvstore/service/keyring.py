"""Users, roles and tokens on a cluster in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvstore.service.caller import Caller
from kvstore.types import (
    AuthEnableRequest,
    AuthenticateRequest,
    AuthenticateResponse,
    AuthRoleAddRequest,
    AuthRoleGrantPermissionRequest,
    AuthUserAddRequest,
    AuthUserGrantRoleRequest,
    Permission,
    PermissionType,
)

if TYPE_CHECKING:
    from tests.support.host import Host

READ = PermissionType.READ
WRITE = PermissionType.WRITE
READWRITE = PermissionType.READWRITE


def password_of(name: str) -> str:
    """No other word may look like it: tests search logs and disks for it."""
    return f"sesame-of-{name}"


async def add_user(
    host: Host, name: str, *permissions: tuple[PermissionType, bytes, bytes], **options: Any
) -> None:
    """Add a user with a role of the same name that has these permissions."""
    request = AuthUserAddRequest(name, password_of(name))
    await host.call("user_add", request, **options)
    await host.call("role_add", AuthRoleAddRequest(name), **options)
    for kind, key, range_end in permissions:
        grant = AuthRoleGrantPermissionRequest(name, Permission(kind, key, range_end))
        await host.call("role_grant_permission", grant, **options)
    await host.call("user_grant_role", AuthUserGrantRoleRequest(name, name), **options)


async def enable(host: Host) -> Caller:
    """Add root, switch authentication on, and log in as root."""
    await host.call("user_add", AuthUserAddRequest("root", password_of("root")))
    await host.call("user_grant_role", AuthUserGrantRoleRequest("root", "root"))
    await host.call("auth_enable", AuthEnableRequest())
    return await log_in(host, "root")


async def log_in(host: Host, name: str) -> Caller:
    """Log in with the password that ``add_user`` gave."""
    response: AuthenticateResponse = await host.call(
        "authenticate", AuthenticateRequest(name, password_of(name))
    )
    return Caller(token=response.token)

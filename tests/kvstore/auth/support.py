"""Users and roles in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvstore.auth.identity import Identity
from kvstore.auth.store import AuthStore
from kvstore.types import (
    AuthEnableRequest,
    AuthRoleAddRequest,
    AuthRoleGrantPermissionRequest,
    AuthUserAddRequest,
    AuthUserGrantRoleRequest,
    Permission,
    PermissionType,
)

if TYPE_CHECKING:
    from kvstore.auth.store import AuthBody

READ = PermissionType.READ
WRITE = PermissionType.WRITE
BOTH = PermissionType.READWRITE

ENABLE: list[AuthBody] = [
    AuthUserAddRequest("root"),
    AuthUserGrantRoleRequest("root", "root"),
    AuthEnableRequest(),
]


def user(name: str, *permissions: tuple[int, bytes, bytes]) -> list[AuthBody]:
    """What makes a user with these permissions."""
    grants = [AuthRoleGrantPermissionRequest(name, Permission(*row)) for row in permissions]
    return [
        AuthUserAddRequest(name),
        AuthRoleAddRequest(name),
        *grants,
        AuthUserGrantRoleRequest(name, name),
    ]


def store(*bodies: AuthBody) -> AuthStore:
    made = AuthStore()
    for body in bodies:
        made.apply(body)
    return made


def current(auth: AuthStore, name: str) -> Identity:
    return Identity(name, auth.revision)

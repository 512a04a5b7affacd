"""The Auth service: users, roles, permissions, tokens."""

import enum
from typing import Annotated, TypeAlias

import msgspec

from kvstore.types.base import FrozenRecord, Record, ResponseHeader, Uint64, masked


class PermissionType(enum.IntEnum):
    """authpb.Permission.Type."""

    READ = 0
    WRITE = 1
    READWRITE = 2


AnyPermissionType: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": PermissionType})]


class Permission(FrozenRecord, frozen=True):
    """What a role may do with a range of keys; ``range_end`` as in Range."""

    permType: AnyPermissionType = PermissionType.READ
    key: bytes = b""
    range_end: bytes = b""


class UserAddOptions(Record):
    """``no_password``: the user cannot log in by password."""

    no_password: bool = False


class AuthEnableRequest(Record):
    """Switch authentication on."""


class AuthDisableRequest(Record):
    """Switch authentication off."""


class AuthStatusRequest(Record):
    """Is it on?"""


class AuthStatusResponse(Record):
    """Whether it is on, and the revision of users, roles and permissions."""

    header: ResponseHeader | None = None
    enabled: bool = False
    authRevision: Uint64 = 0


class AuthenticateRequest(Record):
    """Ask for a token."""

    name: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return masked(self, "password")


class AuthenticateResponse(Record):
    """The token to send with other calls."""

    header: ResponseHeader | None = None
    token: str = ""

    def __repr__(self) -> str:
        return masked(self, "token")


class AuthUserAddRequest(Record):
    """``hashedPassword`` is the cluster's own: what a client sends in it is dropped."""

    name: str = ""
    password: str = ""
    options: UserAddOptions | None = None
    hashedPassword: str = ""

    def __repr__(self) -> str:
        return masked(self, "password", "hashedPassword")


class AuthUserGetRequest(Record):
    """Ask after a user."""

    name: str = ""


class AuthUserGetResponse(Record):
    """The user's roles, sorted."""

    header: ResponseHeader | None = None
    roles: list[str] = []


class AuthUserListRequest(Record):
    """List all users."""


class AuthUserListResponse(Record):
    """Sorted."""

    header: ResponseHeader | None = None
    users: list[str] = []


class AuthUserDeleteRequest(Record):
    """Forget a user."""

    name: str = ""


class AuthUserChangePasswordRequest(Record):
    """``hashedPassword`` is the cluster's own: what a client sends in it is dropped."""

    name: str = ""
    password: str = ""
    hashedPassword: str = ""

    def __repr__(self) -> str:
        return masked(self, "password", "hashedPassword")


class AuthUserGrantRoleRequest(Record):
    """Give a user a role. The field is ``user`` here, and ``name`` in its counterpart."""

    user: str = ""
    role: str = ""


class AuthUserRevokeRoleRequest(Record):
    """Take a role from a user."""

    name: str = ""
    role: str = ""


class AuthRoleAddRequest(Record):
    """Make a role without permissions."""

    name: str = ""


class AuthRoleGetRequest(Record):
    """Ask after a role."""

    role: str = ""


class AuthRoleGetResponse(Record):
    """The role's permissions, by key."""

    header: ResponseHeader | None = None
    perm: list[Permission] = []


class AuthRoleListRequest(Record):
    """List all roles."""


class AuthRoleListResponse(Record):
    """Sorted."""

    header: ResponseHeader | None = None
    roles: list[str] = []


class AuthRoleDeleteRequest(Record):
    """Forget a role, and take it from all users."""

    role: str = ""


class AuthRoleGrantPermissionRequest(Record):
    """Give a role a permission; the same range replaces."""

    name: str = ""
    perm: Permission | None = None


class AuthRoleRevokePermissionRequest(Record):
    """Take a permission from a role: exactly this range."""

    role: str = ""
    key: bytes = b""
    range_end: bytes = b""


class AuthEnableResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None


class AuthDisableResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None


class AuthUserAddResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None


class AuthUserDeleteResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None


class AuthUserChangePasswordResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None


class AuthUserGrantRoleResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None


class AuthUserRevokeRoleResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None


class AuthRoleAddResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None


class AuthRoleDeleteResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None


class AuthRoleGrantPermissionResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None


class AuthRoleRevokePermissionResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None

"""Users, roles and permissions: the replicated part of authentication.

Changes only by applied commands, so all members decide alike. The rules, and which of two errors
wins, are etcd's.
"""

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, TypeAlias, assert_never

import msgspec

from kvstore.auth.ranges import Coverage
from kvstore.errors import ErrorKind, KvError, StateError
from kvstore.types import (
    OPEN_END,
    AuthDisableRequest,
    AuthDisableResponse,
    AuthEnableRequest,
    AuthEnableResponse,
    AuthRoleAddRequest,
    AuthRoleAddResponse,
    AuthRoleDeleteRequest,
    AuthRoleDeleteResponse,
    AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse,
    AuthRoleRevokePermissionRequest,
    AuthRoleRevokePermissionResponse,
    AuthUserAddRequest,
    AuthUserAddResponse,
    AuthUserChangePasswordRequest,
    AuthUserChangePasswordResponse,
    AuthUserDeleteRequest,
    AuthUserDeleteResponse,
    AuthUserGrantRoleRequest,
    AuthUserGrantRoleResponse,
    AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse,
    Permission,
    PermissionType,
    Record,
)

ROOT: Final = "root"
"""The user without whom authentication cannot be on, and the role that may do everything."""

_ROOT_PERMISSION: Final = Permission(PermissionType.READWRITE, b"", OPEN_END)
_PERMISSIONS_PER_ROW: Final = 16

AuthBody: TypeAlias = (
    AuthEnableRequest
    | AuthDisableRequest
    | AuthUserAddRequest
    | AuthUserDeleteRequest
    | AuthUserChangePasswordRequest
    | AuthUserGrantRoleRequest
    | AuthUserRevokeRoleRequest
    | AuthRoleAddRequest
    | AuthRoleDeleteRequest
    | AuthRoleGrantPermissionRequest
    | AuthRoleRevokePermissionRequest
)

UserRow: TypeAlias = tuple[str, str, bool, tuple[str, ...]]
"""Name, hashed password, whether there is none, roles."""

RoleRow: TypeAlias = tuple[str, tuple[tuple[int, bytes, bytes], ...]]
"""Name, and some of its permissions as type, key, range end: many are many rows."""


class User(msgspec.Struct, frozen=True, gc=False):
    """A user.

    Attributes:
        name: Never empty.
        hashed_password: As bcrypt writes it; empty where there is no password.
        no_password: Whether the user cannot log in by password.
        roles: Their names, sorted.
    """

    name: str
    hashed_password: str = ""
    no_password: bool = False
    roles: tuple[str, ...] = ()

    def __repr__(self) -> str:
        # Logs and messages show what they show by this: no hash may get into them.
        return f"User({self.name!r}, roles={self.roles!r})"


class Role(msgspec.Struct, frozen=True, gc=False):
    """A role: its permissions by key, of equal keys the one that was granted first."""

    name: str
    permissions: tuple[Permission, ...] = ()


class Access:
    """What a user's roles allow together."""

    __slots__ = ("read", "write")

    def __init__(self, permissions: list[Permission]) -> None:
        reading = (PermissionType.READ, PermissionType.READWRITE)
        writing = (PermissionType.WRITE, PermissionType.READWRITE)
        self.read = Coverage((p.key, p.range_end) for p in permissions if p.permType in reading)
        self.write = Coverage((p.key, p.range_end) for p in permissions if p.permType in writing)


_NO_ACCESS: Final = Access([])


class AuthStore:
    """All users and roles.

    Attributes:
        enabled: Whether anybody is asked who they are.
        revision: Begins at 1, and grows by 1 with every change of a user, role or permission, and
            when authentication goes off: whatever was decided at a lower one may be wrong.
    """

    __slots__ = ("_access", "_added", "_roles", "_users", "enabled", "revision")

    def __init__(self) -> None:
        self.enabled = False
        self.revision = 1
        self._users: dict[str, User] = {}
        self._roles: dict[str, Role] = {}
        # Made when first asked for, and void with every change: changes are rare.
        self._access: dict[str, Access] = {}
        self._added: dict[str, int] = {}

    # --- questions -------------------------------------------------------------------------------

    def user(self, name: str) -> User | None:
        """A user."""
        return self._users.get(name)

    def is_since(self, name: str, revision: int) -> bool:
        """Whether there is such a user, and it is the one of that revision: nobody who was added
        after it. Of users that came with a snapshot nothing is known but that they are there.
        """
        return name in self._users and self._added.get(name, 0) <= revision

    def role(self, name: str) -> Role | None:
        """A role."""
        return self._roles.get(name)

    def user_names(self) -> list[str]:
        """All users, sorted."""
        return sorted(self._users)

    def role_names(self) -> list[str]:
        """All roles, sorted."""
        return sorted(self._roles)

    def is_root(self, name: str) -> bool:
        """Whether there is such a user, and it has the role root."""
        return self.has_role(name, ROOT)

    def has_role(self, name: str, role: str) -> bool:
        """Whether there is such a user, and it has this role."""
        user = self._users.get(name)
        return user is not None and role in user.roles

    def permissions(self, role: str) -> list[Permission]:
        """What a role allows, by key. The role root allows everything, whatever it was given.

        Raises:
            KvError: ROLE_NOT_FOUND.
        """
        found = self._known_role(role)
        return [_ROOT_PERMISSION] if role == ROOT else list(found.permissions)

    def access(self, name: str) -> Access:
        """What the permissions of a user's roles come to. The role root is not a permission: ask
        ``is_root`` first.
        """
        found = self._access.get(name)
        if found is None:
            user = self._users.get(name)
            if user is None:
                return _NO_ACCESS
            roles = [self._roles[role] for role in user.roles if role in self._roles]
            found = Access([permission for role in roles for permission in role.permissions])
            self._access[name] = found
        return found

    # --- changes ---------------------------------------------------------------------------------

    def apply(self, body: AuthBody) -> Record:
        """Carry out a command.

        Returns:
            Its answer, without header.

        Raises:
            KvError: Nothing was changed.
        """
        match body:
            case AuthEnableRequest():
                return self._enable()
            case AuthDisableRequest():
                return self._disable()
            case AuthUserAddRequest():
                return self._add_user(body)
            case AuthUserDeleteRequest():
                return self._delete_user(body)
            case AuthUserChangePasswordRequest():
                return self._change_password(body)
            case AuthUserGrantRoleRequest():
                return self._grant_role(body)
            case AuthUserRevokeRoleRequest():
                return self._revoke_role(body)
            case AuthRoleAddRequest():
                return self._add_role(body)
            case AuthRoleDeleteRequest():
                return self._delete_role(body)
            case AuthRoleGrantPermissionRequest():
                return self._grant_permission(body)
            case AuthRoleRevokePermissionRequest():
                return self._revoke_permission(body)
            case _:
                assert_never(body)

    def _enable(self) -> AuthEnableResponse:
        if not self.enabled:
            root = self._users.get(ROOT)
            if root is None:
                raise ErrorKind.ROOT_USER_NOT_EXIST.error()
            if ROOT not in root.roles:
                raise ErrorKind.ROOT_ROLE_NOT_EXIST.error()
            self.enabled = True
        return AuthEnableResponse()

    def _disable(self) -> AuthDisableResponse:
        if self.enabled:
            self.enabled = False
            self._changed()
        return AuthDisableResponse()

    def _add_user(self, body: AuthUserAddRequest) -> AuthUserAddResponse:
        if not body.name:
            raise ErrorKind.USER_EMPTY.error()
        if body.name in self._users:
            raise ErrorKind.USER_ALREADY_EXIST.error()
        no_password = body.options is not None and body.options.no_password
        hashed = "" if no_password else body.hashedPassword
        self._users[body.name] = User(body.name, hashed, no_password)
        self._changed()
        self._added[body.name] = self.revision
        return AuthUserAddResponse()

    def _delete_user(self, body: AuthUserDeleteRequest) -> AuthUserDeleteResponse:
        if self.enabled and body.name == ROOT:
            raise ErrorKind.INVALID_AUTH_MANAGEMENT.error()
        del self._users[self._known_user(body.name).name]
        self._added.pop(body.name, None)
        self._changed()
        return AuthUserDeleteResponse()

    def _change_password(
        self, body: AuthUserChangePasswordRequest
    ) -> AuthUserChangePasswordResponse:
        user = self._known_user(body.name)
        hashed = "" if user.no_password else body.hashedPassword
        self._users[user.name] = User(user.name, hashed, user.no_password, user.roles)
        self._changed()
        return AuthUserChangePasswordResponse()

    def _grant_role(self, body: AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse:
        user = self._known_user(body.user)
        # The role root needs no permissions, so it may be given without being there.
        if body.role != ROOT:
            self._known_role(body.role)
        if body.role not in user.roles:
            self._set_roles(user, tuple(sorted((*user.roles, body.role))))
            self._changed()
        return AuthUserGrantRoleResponse()

    def _revoke_role(self, body: AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse:
        if self.enabled and body.name == ROOT and body.role == ROOT:
            raise ErrorKind.INVALID_AUTH_MANAGEMENT.error()
        user = self._known_user(body.name)
        if body.role not in user.roles:
            raise ErrorKind.ROLE_NOT_GRANTED.error()
        self._set_roles(user, tuple(role for role in user.roles if role != body.role))
        self._changed()
        return AuthUserRevokeRoleResponse()

    def _add_role(self, body: AuthRoleAddRequest) -> AuthRoleAddResponse:
        if not body.name:
            raise ErrorKind.ROLE_EMPTY.error()
        if body.name in self._roles:
            raise ErrorKind.ROLE_ALREADY_EXIST.error()
        self._roles[body.name] = Role(body.name)
        self._changed()
        return AuthRoleAddResponse()

    def _delete_role(self, body: AuthRoleDeleteRequest) -> AuthRoleDeleteResponse:
        if self.enabled and body.role == ROOT:
            raise ErrorKind.INVALID_AUTH_MANAGEMENT.error()
        del self._roles[self._known_role(body.role).name]
        for user in [user for user in self._users.values() if body.role in user.roles]:
            self._set_roles(user, tuple(role for role in user.roles if role != body.role))
        self._changed()
        return AuthRoleDeleteResponse()

    def _grant_permission(
        self, body: AuthRoleGrantPermissionRequest
    ) -> AuthRoleGrantPermissionResponse:
        new = body.perm
        if new is None:
            raise ErrorKind.PERMISSION_NOT_GIVEN.error()
        if not _is_range(new.key, new.range_end):
            raise ErrorKind.INVALID_AUTH_MANAGEMENT.error()
        held = list(self._known_role(body.name).permissions)
        end = bisect_right(held, new.key, key=_key)
        place = end
        while place and held[place - 1].key == new.key:
            place -= 1
            if held[place].range_end == new.range_end:
                held[place] = new
                break
        else:
            held.insert(end, new)
        self._roles[body.name] = Role(body.name, tuple(held))
        self._changed()
        return AuthRoleGrantPermissionResponse()

    def _revoke_permission(
        self, body: AuthRoleRevokePermissionRequest
    ) -> AuthRoleRevokePermissionResponse:
        held = self._known_role(body.role).permissions
        gone = (body.key, body.range_end)
        left = tuple(other for other in held if (other.key, other.range_end) != gone)
        if len(left) == len(held):
            raise ErrorKind.PERMISSION_NOT_GRANTED.error()
        self._roles[body.role] = Role(body.role, left)
        self._changed()
        return AuthRoleRevokePermissionResponse()

    def _set_roles(self, user: User, roles: tuple[str, ...]) -> None:
        self._users[user.name] = User(user.name, user.hashed_password, user.no_password, roles)

    def _known_user(self, name: str) -> User:
        user = self._users.get(name)
        if user is None:
            raise ErrorKind.USER_NOT_FOUND.error()
        return user

    def _known_role(self, name: str) -> Role:
        role = self._roles.get(name)
        if role is None:
            raise ErrorKind.ROLE_NOT_FOUND.error()
        return role

    def _changed(self) -> None:
        self.revision += 1
        self._access.clear()

    # --- snapshots -------------------------------------------------------------------------------

    def export_users(self) -> Iterator[UserRow]:
        """The users as they are at this call, in the order in which they came. The rows may be
        drawn later, between other commands.
        """
        users = list(self._users.values())
        return ((user.name, user.hashed_password, user.no_password, user.roles) for user in users)

    def export_roles(self) -> Iterator[RoleRow]:
        """The roles, in the same way. No row is long: a role of many permissions is several."""
        roles = list(self._roles.values())
        return (
            (
                role.name,
                tuple(
                    (p.permType, p.key, p.range_end)
                    for p in role.permissions[start : start + _PERMISSIONS_PER_ROW]
                ),
            )
            for role in roles
            for start in range(0, len(role.permissions) or 1, _PERMISSIONS_PER_ROW)
        )

    def restore_user(self, row: UserRow) -> None:
        """Take in a row.

        Raises:
            StateError: It cannot come from an export.
        """
        name, hashed_password, no_password, roles = row
        if not name or name in self._users:
            raise StateError(f"a snapshot names the user {name!r} twice, or not at all")
        self._users[name] = User(name, hashed_password, no_password, roles)

    def restore_role(self, row: RoleRow) -> None:
        """Take in a row; the first one of a role makes it, others add to it.

        Raises:
            StateError: It cannot come from an export.
        """
        name, rows = row
        permissions = tuple(Permission(*fields) for fields in rows)
        role = self._roles.get(name)
        if not name or (role is not None and not permissions):
            raise StateError(f"a snapshot names the role {name!r} twice, or not at all")
        self._roles[name] = Role(
            name, permissions if role is None else role.permissions + permissions
        )

    def restored(self, revision: int, *, enabled: bool) -> None:
        """All rows are in.

        Raises:
            StateError: They do not hold together.
        """
        if revision < 1:
            raise StateError(f"a snapshot holds the impossible auth revision {revision}")
        if enabled and not self.is_root(ROOT):
            raise StateError("a snapshot asks for authentication, and nobody could log in as root")
        self.revision = revision
        self.enabled = enabled
        self._access.clear()


def token_refusal(auth: AuthStore, name: str, revision: int) -> KvError | None:
    """Why a token must not be given to this user, whose password was checked at ``revision``."""
    if not auth.enabled:
        return ErrorKind.AUTH_NOT_ENABLED.error()
    if revision != auth.revision:
        return ErrorKind.AUTH_OLD_REVISION.error()
    user = auth.user(name)
    if user is None or user.no_password:
        return ErrorKind.AUTH_FAILED.error()
    return None


def _key(permission: Permission) -> bytes:
    return permission.key


def _is_range(key: bytes, range_end: bytes) -> bool:
    """Whether a permission for it would mean anything."""
    return bool(key) and (not range_end or range_end == OPEN_END or key < range_end)

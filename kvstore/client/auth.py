"""The Auth service: users, roles, permissions, and whether they count."""

from __future__ import annotations

from kvstore.client.calls import Calls
from kvstore.types import (
    AuthDisableRequest,
    AuthDisableResponse,
    AuthEnableRequest,
    AuthEnableResponse,
    AuthenticateRequest,
    AuthenticateResponse,
    AuthRoleAddRequest,
    AuthRoleAddResponse,
    AuthRoleDeleteRequest,
    AuthRoleDeleteResponse,
    AuthRoleGetRequest,
    AuthRoleGetResponse,
    AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse,
    AuthRoleListRequest,
    AuthRoleListResponse,
    AuthRoleRevokePermissionRequest,
    AuthRoleRevokePermissionResponse,
    AuthStatusRequest,
    AuthStatusResponse,
    AuthUserAddRequest,
    AuthUserAddResponse,
    AuthUserChangePasswordRequest,
    AuthUserChangePasswordResponse,
    AuthUserDeleteRequest,
    AuthUserDeleteResponse,
    AuthUserGetRequest,
    AuthUserGetResponse,
    AuthUserGrantRoleRequest,
    AuthUserGrantRoleResponse,
    AuthUserListRequest,
    AuthUserListResponse,
    AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse,
    Permission,
    PermissionType,
    UserAddOptions,
)


class AuthCalls(Calls):
    """Users have roles, roles have permissions on ranges of keys."""

    __slots__ = ()

    def auth_enable(self) -> AuthEnableResponse:
        """From now on every call needs a token; a user ``root`` with role ``root`` must be there.

        This client's own token is asked for with the next call.
        """
        answer = self._write("/v3/auth/enable", AuthEnableRequest(), AuthEnableResponse)
        if self.transport.login is not None:
            self.transport.login.token = None
        return answer

    def auth_disable(self) -> AuthDisableResponse:
        """Anybody may do anything again; users and roles are kept."""
        return self._write("/v3/auth/disable", AuthDisableRequest(), AuthDisableResponse)

    def auth_status(self) -> AuthStatusResponse:
        """Whether it is on; answered to anybody."""
        return self._read("/v3/auth/status", AuthStatusRequest(), AuthStatusResponse)

    def authenticate(self, name: str, password: str) -> AuthenticateResponse:
        """A token for a user. A client made with ``user`` and ``password`` asks by itself."""
        request = AuthenticateRequest(name, password)
        return self._read("/v3/auth/authenticate", request, AuthenticateResponse)

    # --- Users ---

    def user_add(
        self, name: str, password: str = "", *, no_password: bool = False
    ) -> AuthUserAddResponse:
        """Make a user; with ``no_password`` nobody can log in as them by password."""
        options = UserAddOptions(no_password) if no_password else None
        request = AuthUserAddRequest(name, password, options)
        return self._write("/v3/auth/user/add", request, AuthUserAddResponse)

    def user_get(self, name: str) -> AuthUserGetResponse:
        """A user's roles."""
        return self._read("/v3/auth/user/get", AuthUserGetRequest(name), AuthUserGetResponse)

    def user_list(self) -> AuthUserListResponse:
        """All users."""
        return self._read("/v3/auth/user/list", AuthUserListRequest(), AuthUserListResponse)

    def user_delete(self, name: str) -> AuthUserDeleteResponse:
        """Forget a user; their tokens are void."""
        request = AuthUserDeleteRequest(name)
        return self._write("/v3/auth/user/delete", request, AuthUserDeleteResponse)

    def user_change_password(self, name: str, password: str) -> AuthUserChangePasswordResponse:
        """Give a user another password; their tokens are void."""
        request = AuthUserChangePasswordRequest(name, password)
        return self._write("/v3/auth/user/changepw", request, AuthUserChangePasswordResponse)

    def user_grant_role(self, name: str, role: str) -> AuthUserGrantRoleResponse:
        """Give a user a role."""
        request = AuthUserGrantRoleRequest(name, role)
        return self._write("/v3/auth/user/grant", request, AuthUserGrantRoleResponse)

    def user_revoke_role(self, name: str, role: str) -> AuthUserRevokeRoleResponse:
        """Take a role from a user."""
        request = AuthUserRevokeRoleRequest(name, role)
        return self._write("/v3/auth/user/revoke", request, AuthUserRevokeRoleResponse)

    # --- Roles ---

    def role_add(self, name: str) -> AuthRoleAddResponse:
        """Make a role without permissions."""
        return self._write("/v3/auth/role/add", AuthRoleAddRequest(name), AuthRoleAddResponse)

    def role_get(self, role: str) -> AuthRoleGetResponse:
        """A role's permissions."""
        return self._read("/v3/auth/role/get", AuthRoleGetRequest(role), AuthRoleGetResponse)

    def role_list(self) -> AuthRoleListResponse:
        """All roles."""
        return self._read("/v3/auth/role/list", AuthRoleListRequest(), AuthRoleListResponse)

    def role_delete(self, role: str) -> AuthRoleDeleteResponse:
        """Forget a role, and take it from all users."""
        request = AuthRoleDeleteRequest(role)
        return self._write("/v3/auth/role/delete", request, AuthRoleDeleteResponse)

    def role_grant_permission(
        self, role: str, kind: PermissionType, key: bytes, range_end: bytes = b""
    ) -> AuthRoleGrantPermissionResponse:
        """Let a role read or write a key, or a range; the same range is replaced."""
        request = AuthRoleGrantPermissionRequest(role, Permission(kind, key, range_end))
        return self._write("/v3/auth/role/grant", request, AuthRoleGrantPermissionResponse)

    def role_revoke_permission(
        self, role: str, key: bytes, range_end: bytes = b""
    ) -> AuthRoleRevokePermissionResponse:
        """Take a permission from a role: the one on exactly this range."""
        request = AuthRoleRevokePermissionRequest(role, key, range_end)
        return self._write("/v3/auth/role/revoke", request, AuthRoleRevokePermissionResponse)

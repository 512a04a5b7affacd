"""The Auth service: users, roles, permissions, and logging in."""

from collections.abc import Callable
from typing import Any

from kvstore.auth.check import SYSTEM, Identity
from kvstore.auth.jwt import JwtTokens
from kvstore.commands import AuthToken, Body, Kind
from kvstore.errors import ErrorKind, KvError
from kvstore.service.base import Calls, told
from kvstore.service.caller import Caller
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
    Record,
)

REVISION_MOVED = ErrorKind.AUTH_OLD_REVISION.error()


class AuthCalls(Calls):
    """Changes go through the log; what is read is current.

    A password never leaves this class: it is hashed, or checked, before anything is proposed.
    """

    # --- on and off -------------------------------------------------------------------------------

    def auth_enable(
        self,
        request: AuthEnableRequest,
        caller: Caller,
        reply: Callable[[AuthEnableResponse | KvError], None],
    ) -> None:
        """Ask everybody who they are from now on."""
        self._change_users(Kind.AUTH_ENABLE, request, caller, reply)

    def auth_disable(
        self,
        request: AuthDisableRequest,
        caller: Caller,
        reply: Callable[[AuthDisableResponse | KvError], None],
    ) -> None:
        """Ask nobody any more."""
        self._change_users(Kind.AUTH_DISABLE, request, caller, reply)

    def auth_status(
        self,
        request: AuthStatusRequest,
        caller: Caller,
        reply: Callable[[AuthStatusResponse | KvError], None],
    ) -> None:
        """Whether it is on, and the revision of users and roles."""

        def answer() -> AuthStatusResponse:
            auth = self.machine.auth
            return AuthStatusResponse(None, auth.enabled, auth.revision)

        self._look(request, caller, reply, answer)

    # --- logging in -------------------------------------------------------------------------------

    def authenticate(
        self,
        request: AuthenticateRequest,
        caller: Caller,
        reply: Callable[[AuthenticateResponse | KvError], None],
    ) -> None:
        """Give a token to whoever knows the password."""
        give_up = self._deadline(caller)

        def attempt() -> None:
            # Again, where users changed after the password was checked: it may be wrong by now.
            # Also one that waited long for its turn gets no token that nobody waits for.
            if self._loop.time() >= give_up:
                reply(told(caller, ErrorKind.TIMEOUT.error()))
            else:
                self._check_password(request, caller, reply, attempt)

        self._read(caller, reply, attempt)

    def _check_password(
        self,
        request: AuthenticateRequest,
        caller: Caller,
        reply: Callable[[Any], None],
        again: Callable[[], None],
    ) -> None:
        auth = self.machine.auth
        if not auth.enabled:
            reply(ErrorKind.AUTH_NOT_ENABLED.error())
            return
        user = auth.user(request.name)
        if user is not None and user.no_password:
            reply(ErrorKind.NO_PASSWORD_USER.error())
            return
        revision = auth.revision

        def checked(right: bool | KvError) -> None:
            if isinstance(right, KvError):
                reply(right)
            elif not right:
                reply(ErrorKind.AUTH_FAILED.error())
            else:
                self._give_token(Identity(request.name, revision), caller, reply, again)

        hashed = None if user is None else user.hashed_password
        self.node.secret_work.check(request.name, request.password, hashed, checked)

    def _give_token(
        self,
        identity: Identity,
        caller: Caller,
        reply: Callable[[Any], None],
        again: Callable[[], None],
    ) -> None:
        """The password was right as of the identity's revision."""
        tokens = self.node.tokens
        if isinstance(tokens, JwtTokens):
            self._sign_token(tokens, identity, reply, again)
            return

        def given(result: AuthenticateResponse | KvError) -> None:
            if isinstance(result, KvError) and result == REVISION_MOVED:
                again()
            else:
                reply(result)

        # Every member is to know it.
        body = AuthToken(identity.user, tokens.new_prefix(), identity.revision)
        self._propose(Kind.AUTH_TOKEN, body, caller, given, identity=SYSTEM)

    def _sign_token(
        self,
        tokens: JwtTokens,
        identity: Identity,
        reply: Callable[[Any], None],
        again: Callable[[], None],
    ) -> None:
        refusal = tokens.refuse_to_sign()
        if refusal is not None:
            reply(refusal)
            return

        def signed(token: str | KvError) -> None:
            if isinstance(token, KvError):
                reply(token)
            elif self._still(identity) is not None:
                again()
            else:
                reply(AuthenticateResponse(self.header(), token))

        self.node.secret_work.run(lambda: tokens.sign(identity.user, identity.revision), signed)

    # --- users ------------------------------------------------------------------------------------

    def user_add(
        self,
        request: AuthUserAddRequest,
        caller: Caller,
        reply: Callable[[AuthUserAddResponse | KvError], None],
    ) -> None:
        """Add a user; what a client says in ``hashedPassword`` is dropped."""
        options = request.options
        if not request.name:
            # Before hashing is spent on it; whoever may not add users is told that first.
            self._admit(request, caller, reply, lambda _: reply(ErrorKind.USER_EMPTY.error()))
        elif options is not None and options.no_password:
            self._change_users(
                Kind.USER_ADD, AuthUserAddRequest(request.name, "", options), caller, reply
            )
        else:
            self._change_with_password(
                Kind.USER_ADD,
                request.password,
                lambda hashed: AuthUserAddRequest(request.name, "", options, hashed),
                caller,
                reply,
            )

    def user_change_password(
        self,
        request: AuthUserChangePasswordRequest,
        caller: Caller,
        reply: Callable[[AuthUserChangePasswordResponse | KvError], None],
    ) -> None:
        """Give a user another password, which voids its tokens."""
        if not request.password:
            # As in etcd: afterwards nobody can log in as this user.
            body = AuthUserChangePasswordRequest(request.name)
            self._change_users(Kind.USER_CHANGE_PASSWORD, body, caller, reply)
            return
        self._change_with_password(
            Kind.USER_CHANGE_PASSWORD,
            request.password,
            lambda hashed: AuthUserChangePasswordRequest(request.name, "", hashed),
            caller,
            reply,
        )

    def user_get(
        self,
        request: AuthUserGetRequest,
        caller: Caller,
        reply: Callable[[AuthUserGetResponse | KvError], None],
    ) -> None:
        """A user's roles."""

        def answer() -> AuthUserGetResponse:
            user = self.machine.auth.user(request.name)
            if user is None:
                raise ErrorKind.USER_NOT_FOUND.error()
            return AuthUserGetResponse(None, list(user.roles))

        self._look(request, caller, reply, answer)

    def user_list(
        self,
        request: AuthUserListRequest,
        caller: Caller,
        reply: Callable[[AuthUserListResponse | KvError], None],
    ) -> None:
        """All users."""
        self._look(
            request,
            caller,
            reply,
            lambda: AuthUserListResponse(None, self.machine.auth.user_names()),
        )

    def user_delete(
        self,
        request: AuthUserDeleteRequest,
        caller: Caller,
        reply: Callable[[AuthUserDeleteResponse | KvError], None],
    ) -> None:
        """Forget a user, which voids its tokens."""
        self._change_users(Kind.USER_DELETE, request, caller, reply)

    def user_grant_role(
        self,
        request: AuthUserGrantRoleRequest,
        caller: Caller,
        reply: Callable[[AuthUserGrantRoleResponse | KvError], None],
    ) -> None:
        """Give a user a role."""
        self._change_users(Kind.USER_GRANT_ROLE, request, caller, reply)

    def user_revoke_role(
        self,
        request: AuthUserRevokeRoleRequest,
        caller: Caller,
        reply: Callable[[AuthUserRevokeRoleResponse | KvError], None],
    ) -> None:
        """Take a role from a user."""
        self._change_users(Kind.USER_REVOKE_ROLE, request, caller, reply)

    # --- roles ------------------------------------------------------------------------------------

    def role_add(
        self,
        request: AuthRoleAddRequest,
        caller: Caller,
        reply: Callable[[AuthRoleAddResponse | KvError], None],
    ) -> None:
        """Add a role without permissions."""
        self._change_users(Kind.ROLE_ADD, request, caller, reply)

    def role_get(
        self,
        request: AuthRoleGetRequest,
        caller: Caller,
        reply: Callable[[AuthRoleGetResponse | KvError], None],
    ) -> None:
        """A role's permissions, by key."""
        self._look(
            request,
            caller,
            reply,
            lambda: AuthRoleGetResponse(None, self.machine.auth.permissions(request.role)),
        )

    def role_list(
        self,
        request: AuthRoleListRequest,
        caller: Caller,
        reply: Callable[[AuthRoleListResponse | KvError], None],
    ) -> None:
        """All roles."""
        self._look(
            request,
            caller,
            reply,
            lambda: AuthRoleListResponse(None, self.machine.auth.role_names()),
        )

    def role_delete(
        self,
        request: AuthRoleDeleteRequest,
        caller: Caller,
        reply: Callable[[AuthRoleDeleteResponse | KvError], None],
    ) -> None:
        """Forget a role, and take it from all users."""
        self._change_users(Kind.ROLE_DELETE, request, caller, reply)

    def role_grant_permission(
        self,
        request: AuthRoleGrantPermissionRequest,
        caller: Caller,
        reply: Callable[[AuthRoleGrantPermissionResponse | KvError], None],
    ) -> None:
        """Let a role do something with a range of keys."""
        self._change_users(Kind.ROLE_GRANT_PERMISSION, request, caller, reply)

    def role_revoke_permission(
        self,
        request: AuthRoleRevokePermissionRequest,
        caller: Caller,
        reply: Callable[[AuthRoleRevokePermissionResponse | KvError], None],
    ) -> None:
        """Take a permission from a role: exactly this range."""
        self._change_users(Kind.ROLE_REVOKE_PERMISSION, request, caller, reply)

    # --- all alike --------------------------------------------------------------------------------

    def _change_users(
        self, kind: Kind, body: Body, caller: Caller, reply: Callable[[Any], None]
    ) -> None:
        self._admit(
            body,
            caller,
            reply,
            lambda who: self._propose(kind, body, caller, reply, identity=who),
        )

    def _change_with_password(
        self,
        kind: Kind,
        password: str,
        body_of: Callable[[str], Body],
        caller: Caller,
        reply: Callable[[Any], None],
    ) -> None:
        """Hash it for those who may set it only: hashing is dear."""

        def hashed(result: str | KvError) -> None:
            if isinstance(result, KvError):
                reply(result)
            else:
                # The identity is asked for anew: hashing took its time.
                self._change_users(kind, body_of(result), caller, reply)

        self._admit(
            body_of(""), caller, reply, lambda _: self.node.secret_work.hash(password, hashed)
        )

    def _look(
        self,
        request: Record,
        caller: Caller,
        reply: Callable[[Any], None],
        answer: Callable[[], Any],
    ) -> None:
        """Answer from the state that is current, by the rights that are current in it."""

        def current() -> None:
            try:
                self._judge(request, caller)
                response = answer()
            except KvError as error:
                reply(error)
                return
            response.header = self.header()
            reply(response)

        self._read(caller, reply, current)

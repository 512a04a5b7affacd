"""Tokens that prove themselves: signed by a member, verified by every member (RFC 7519).

Their claims are etcd's: ``username``, ``revision`` (of users and roles, when the password was
checked) and ``exp``. Nothing is remembered about them, so they survive restarts, and none can be
taken back: any change of users or roles makes them old for reading and writing.
"""

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any, Final

import msgspec
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import PyJWTError

from kvstore.auth.identity import Identity
from kvstore.auth.token_setting import FLAG, JwtSetting
from kvstore.errors import Code, ConfigError, ErrorKind, KvError

TOKEN_CHARACTERS_MAX: Final = 16 * 1024
VERIFIED_MAX: Final = 10_000
"""Tokens whose signature need not be verified again; when it is full, all are."""

_BASE64URL: Final = re.compile(rb"[A-Za-z0-9_-]*")

VERIFY_ONLY: Final = "auth: token signing attempted with verify-only key"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class JwtTokens:
    """Signs and verifies.

    Args:
        setting: Method, key files, and how long a token lasts.
        read_file: Reads a key file.
        wall_clock: Seconds since 1970: what ``exp`` counts.

    Raises:
        ConfigError: A key cannot be read, is not one of the method, or the two do not match.

    Attributes:
        weakness: What is wrong with the key's length, for the log; empty if nothing is.
    """

    __slots__ = (
        "_algorithm",
        "_method",
        "_private",
        "_public",
        "_ttl_seconds",
        "_verified",
        "_wall_clock",
        "weakness",
    )

    def __init__(
        self,
        setting: JwtSetting,
        read_file: Callable[[str], bytes],
        wall_clock: Callable[[], float],
    ) -> None:
        self._method = setting.method
        self._ttl_seconds = setting.ttl_seconds
        self._wall_clock = wall_clock
        # The table holds only what PyJWT was built with; all of ours come with its extra.
        self._algorithm: Any = get_default_algorithms()[setting.method]
        private = self._key("priv-key", setting.private_key_file, read_file)
        public = self._key("pub-key", setting.public_key_file, read_file)
        if setting.method.startswith("HS"):
            public = private
        else:
            if private is not None and not hasattr(private, "public_key"):
                raise ConfigError(
                    f"{FLAG}: priv-key: {setting.private_key_file} holds no private key"
                )
            if public is not None and hasattr(public, "public_key"):
                public = public.public_key()
            if private is not None and public is not None and private.public_key() != public:
                raise ConfigError(
                    f"{FLAG}: {setting.public_key_file} is not the public key of "
                    f"{setting.private_key_file}"
                )
            if private is not None:
                public = private.public_key()
        self._private = private
        self._public = public
        self._verified: dict[str, dict[str, Any]] = {}
        self.weakness = self._algorithm.check_key_length(public) or ""

    def _key(self, option: str, file: str, read_file: Callable[[str], bytes]) -> Any:
        if not file:
            return None
        try:
            return self._algorithm.prepare_key(read_file(file))
        except OSError as error:
            raise ConfigError(f"{FLAG}: {option}: {file}: {error.strerror or error}") from error
        except (PyJWTError, ValueError, TypeError) as error:
            # What the library says may quote the file, and that is a secret.
            raise ConfigError(
                f"{FLAG}: {option}: {file} holds no key that {self._method} can use"
            ) from error

    # --- signing ----------------------------------------------------------------------------------

    def refuse_to_sign(self) -> KvError | None:
        """Why this member gives out no tokens; None if it does."""
        return KvError(Code.UNKNOWN, VERIFY_ONLY) if self._private is None else None

    def sign(self, user: str, auth_revision: int) -> str:
        """A new token. Takes a millisecond with RSA: not on the loop."""
        claims = {
            "username": user,
            "revision": auth_revision,
            "exp": int(self._wall_clock() + self._ttl_seconds),
        }
        header = {"alg": self._method, "typ": "JWT"}
        signed = _base64(_encode(header)) + b"." + _base64(_encode(claims))
        signature = self._algorithm.sign(signed, self._private)
        return (signed + b"." + _base64(signature)).decode()

    # --- verifying --------------------------------------------------------------------------------

    def identify(self, token: str, _auth_revision: int) -> Identity:
        """Whose token it is, as of when it was signed.

        Raises:
            KvError: INVALID_AUTH_TOKEN: not signed by this cluster, or run out.
        """
        claims = self._verified.get(token)
        if claims is None:
            claims = self._verify(token)
            if len(self._verified) >= VERIFIED_MAX:
                self._verified.clear()
            self._verified[token] = claims
        now = self._wall_clock()
        if now >= claims.get("exp", now + 1) or now < claims.get("nbf", now):
            raise ErrorKind.INVALID_AUTH_TOKEN.error()
        return Identity(claims["username"], int(claims["revision"]))

    def _verify(self, token: str) -> dict[str, Any]:
        invalid = ErrorKind.INVALID_AUTH_TOKEN
        parts = token.encode(errors="replace").split(b".")
        if len(parts) != 3 or len(token) > TOKEN_CHARACTERS_MAX:
            raise invalid.error()
        try:
            header = _decode(_from_base64(parts[0]))
            claims = _decode(_from_base64(parts[1]))
            signature = _from_base64(parts[2])
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            # The last is what a nest says that is too deep.
            raise invalid.error() from error
        # The method is ours to choose. Were it the token's, whoever has the public key could sign
        # with it as if it were a shared secret (RFC 8725 §3.1).
        if header.get("alg") != self._method:
            raise invalid.error()
        if not self._algorithm.verify(parts[0] + b"." + parts[1], self._public, signature):
            raise invalid.error()
        revision: Any = claims.get("revision")
        numbers = [claims[name] for name in ("exp", "nbf") if name in claims]
        if not isinstance(claims.get("username"), str) or not all(map(_is_number, numbers)):
            raise invalid.error()
        # Below zero are the revisions of the members themselves, who may do everything.
        if not _is_number(revision) or revision < 0:
            raise invalid.error()
        return claims

    def outlive(self, index: int) -> None:
        """Nothing is remembered, old or new."""

    # --- told by the state machine ----------------------------------------------------------------

    def assign(self, user: str, token: str) -> None:
        """Nothing to remember."""

    def forget_user(self, user: str) -> None:
        """The change of the revision makes its tokens old."""

    def clear(self) -> None:
        """Nothing to forget."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1 << 63


def _base64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def _from_base64(text: bytes) -> bytes:
    # The decoder passes over what it does not know: then one signature would have any number of
    # forms, and each of them a place among the verified tokens.
    if not _BASE64URL.fullmatch(text):
        raise ValueError("not in the alphabet of RFC 4648 §5")
    try:
        return urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError(str(error)) from error

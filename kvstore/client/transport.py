"""Calls over HTTP/1.1 with fail-over: which failures may be tried again, and which leave a doubt.

What is known after a failure:

- No connection, or an error while the request was still being sent: the server has no whole
  request, so nothing happened. The next endpoint is tried.
- Nothing came back after all was sent, or an error that a server may give after it proposed the
  write: a read is tried again, **a write has an unknown outcome** and is never sent twice.
- "no leader" and "too many requests" refuse a call before it is proposed: tried again after a
  pause.
- A token that is not (any more) good refuses a call as well: once a call, a new one is asked for.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import select
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from kvstore.client.tls import Tls
from kvstore.errors import RETRYABLE, Code, ErrorKind, KvError, UnknownOutcomeError

CONNECT_SECONDS: Final = 2.0
LAST_WORDS_SECONDS: Final = 0.1
PAUSES_SECONDS: Final = (0.05, 0.1, 0.2, 0.4)
PAUSE_SECONDS_MAX: Final = 0.5

_IN_DOUBT: Final = frozenset(
    {Code.CANCELED, Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNAVAILABLE}
)
"""Codes that, after a write, do not say whether it happened."""

_REFUSED: Final = frozenset(
    {
        # Given only before anything is proposed.
        ErrorKind.NO_LEADER,
        ErrorKind.TOO_MANY_REQUESTS,
        ErrorKind.UNHEALTHY,
        ErrorKind.MEMBER_NOT_ENOUGH_STARTED,
        ErrorKind.NO_PASSWORD_USER,
        ErrorKind.UNKNOWN_METHOD,
        ErrorKind.PASSWORD_TOO_LONG,
        ErrorKind.NOT_PRIMARY_LESSOR,
        ErrorKind.ELECTION_NO_LEADER,
        ErrorKind.ELECTION_NOT_LEADER,
        ErrorKind.ELECTION_LEADER_MISSING,
    }
)
"""Answers that say, in spite of their code, that nothing has happened."""

_NOT_TRUSTED: Final = "its certificate is not trusted"
_NO_TLS: Final = "no TLS with it"

STALE_TOKEN: Final = frozenset(
    {ErrorKind.INVALID_AUTH_TOKEN, ErrorKind.AUTH_OLD_REVISION, ErrorKind.USER_EMPTY}
)
"""Answers that a new token may change; nothing has happened."""

_KINDS: Final = {(kind.code, kind.message): kind for kind in ErrorKind}
_KINDS_BY_MESSAGE: Final = {kind.message: kind for kind in ErrorKind}
_CODES_BY_STATUS: Final = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    405: Code.UNIMPLEMENTED,
    413: Code.INVALID_ARGUMENT,
    429: Code.RESOURCE_EXHAUSTED,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


class UnreachableError(KvError):
    """No endpoint took the call; nothing happened."""


class Endpoint:
    """One URL, and the connection to it that is kept open.

    Args:
        url: One without ``http://`` or ``https://`` is https if there is ``tls``.
        tls: What is brought for TLS.
    """

    __slots__ = ("connection", "context", "host", "port", "url")

    def __init__(self, url: str, tls: Tls | None = None) -> None:
        scheme = "http" if tls is None else "https"
        self.url = url if "://" in url else f"{scheme}://{url}"
        parts = urlsplit(self.url)
        usable = parts.scheme in ("http", "https") and parts.hostname is not None
        if not usable or parts.path.strip("/"):
            raise ValueError(f"an endpoint must be http://host:port or https://…, not {url!r}")
        self.host = parts.hostname or ""
        self.port = parts.port or 2379
        self.connection: http.client.HTTPConnection | None = None
        self.context: ssl.SSLContext | None = None
        """With TLS only."""

    def connect(self, seconds: float) -> http.client.HTTPConnection:
        """A connection that is fit to send on: the open one, or a new one.

        Raises:
            OSError: Nobody is there.
        """
        if self.connection is not None and _is_idle(self.connection):
            return self.connection
        self.close()
        self.connection = self.connect_anew(seconds)
        return self.connection

    def connect_anew(self, seconds: float) -> http.client.HTTPConnection:
        """A connection of one's own.

        Raises:
            OSError: Nobody is there.
        """
        patience = min(seconds, CONNECT_SECONDS)
        connection: http.client.HTTPConnection
        if self.context is None:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=patience)
        else:
            connection = http.client.HTTPSConnection(
                self.host, self.port, timeout=patience, context=self.context
            )
        try:
            connection.connect()
        except BaseException:
            # TLS may fail where TCP has not.
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the connection that is kept."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def _is_idle(connection: http.client.HTTPConnection) -> bool:
    """Whether nothing waits on an idle connection: what could wait is only the server's goodbye.

    Without this look, a write on a connection that the server closed long ago would be in doubt.
    """
    if connection.sock is None:
        return False
    readable, _, _ = select.select([connection.sock], [], [], 0)
    return not readable


class Login:
    """Who asks, and the token that stands for it: None before it was asked for, "" without auth."""

    __slots__ = ("name", "password", "token")

    def __init__(self, name: str, password: str) -> None:
        self.name = name
        self.password = password
        self.token: str | None = None


class Transport:
    """Sends calls to the first endpoint that works, and stays with it. Not for several threads.

    Args:
        endpoints: URLs.
        timeout_seconds: Most that a call may take.
        login: Who asks; None: nobody.
        tls: For https endpoints; None: the CAs of the system are trusted, and nothing is shown.
        clock: Seconds that only go forward.
        pause: Waits so many seconds.
    """

    __slots__ = ("_clock", "_first", "_pause", "endpoints", "login", "timeout_seconds", "tls")

    def __init__(
        self,
        endpoints: Sequence[str],
        timeout_seconds: float,
        login: Login | None = None,
        tls: Tls | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if not endpoints:
            raise ValueError("a client needs at least one endpoint, http://host:port")
        self.endpoints = [Endpoint(url, tls) for url in endpoints]
        self.tls = tls
        secure = [each for each in self.endpoints if each.url.startswith("https://")]
        if secure:
            context = (tls or Tls()).context()
            for each in secure:
                each.context = context
        self.timeout_seconds = timeout_seconds
        self.login = login
        self._first = 0
        self._clock = clock
        self._pause = pause

    def rest(self) -> None:
        """Wait a little before an endpoint is tried again."""
        self._pause(PAUSE_SECONDS_MAX)

    def close(self) -> None:
        """Close all connections."""
        for endpoint in self.endpoints:
            endpoint.close()

    def call(self, path: str, body: bytes, *, safe: bool, only: Endpoint | None = None) -> bytes:
        """POST ``body`` and return the answer's bytes.

        Args:
            path: Such as ``/v3/kv/put``.
            body: JSON.
            safe: Whether doing it twice is the same as once, so that it may be tried again.
            only: Ask this endpoint and no other.

        Raises:
            UnknownOutcomeError: The write may have happened.
            UnreachableError: No endpoint could be reached; nothing happened.
            KvError: The server's answer is an error.
        """
        deadline = self._clock() + self.timeout_seconds
        if self.login is None:
            return self._call(path, body, deadline, safe=safe, only=only)
        if self.login.token is None:
            self._log_in(self.login, deadline, only)
        try:
            return self._call(path, body, deadline, safe=safe, only=only)
        except KvError as error:
            if not is_stale_token(error):
                raise
        self._log_in(self.login, deadline, only)
        return self._call(path, body, deadline, safe=safe, only=only)

    def headers(self) -> dict[str, str]:
        """What every request says about itself."""
        found = {"Content-Type": "application/json"}
        if self.login is not None and self.login.token:
            found["Authorization"] = self.login.token
        return found

    def log_in(self, *, anew: bool = False) -> None:
        """See to it that there is a token, if there is somebody to ask for one.

        Raises:
            KvError: AUTH_FAILED, and whatever a call may raise.
        """
        login = self.login
        if login is not None and (anew or login.token is None):
            self._log_in(login, self._clock() + self.timeout_seconds, None)

    def _log_in(self, login: Login, deadline: float, only: Endpoint | None) -> None:
        # A token is known to a member once it has applied it: one that is to be asked alone is
        # asked for the token too, since it may lag.
        login.token = ""
        body = msgspec.json.encode({"name": login.name, "password": login.password})
        try:
            answer = self._call("/v3/auth/authenticate", body, deadline, safe=True, only=only)
        except KvError as error:
            if error == ErrorKind.AUTH_NOT_ENABLED.error():
                return
            login.token = None
            raise
        with contextlib.suppress(msgspec.DecodeError, AttributeError):
            login.token = str(msgspec.json.decode(answer).get("token", ""))

    def _call(
        self, path: str, body: bytes, deadline: float, *, safe: bool, only: Endpoint | None
    ) -> bytes:
        order = self.in_order(only)
        pauses = itertools.chain(PAUSES_SECONDS, itertools.repeat(PAUSE_SECONDS_MAX))
        while True:
            last_refusal: KvError | None = None
            reasons = []
            for tried, endpoint in enumerate(order):
                left = deadline - self._clock()
                if left <= 0:
                    break
                try:
                    seconds = left / (len(order) - tried) if safe else left
                    answer = self._attempt(endpoint, path, body, seconds, safe=safe)
                    self._first = self.endpoints.index(endpoint)
                    return answer
                except UnreachableError as error:
                    reasons.append(error.message)
                except UnknownOutcomeError:
                    # A member that leaves calls unanswered may be paused: were it asked first
                    # again, each later write would wait its whole time for it.
                    position = self.endpoints.index(endpoint)
                    self._first = (position + 1) % len(self.endpoints)
                    raise
                except KvError as error:
                    if not error.retryable:
                        raise
                    last_refusal = error
            if last_refusal is None:
                raise _unreachable(reasons)
            pause = next(pauses)
            if self._clock() + pause >= deadline:
                raise last_refusal
            self._pause(pause)

    def in_order(self, only: Endpoint | None = None) -> list[Endpoint]:
        """The endpoints to try, the one that worked last first."""
        return [only] if only else self.endpoints[self._first :] + self.endpoints[: self._first]

    def _attempt(
        self, endpoint: Endpoint, path: str, body: bytes, seconds: float, *, safe: bool
    ) -> bytes:
        try:
            connection = endpoint.connect(seconds)
            assert connection.sock is not None, "a connection without a socket"
            connection.sock.settimeout(seconds)
            connection.request("POST", path, body, self.headers())
        except OSError as error:
            words = words_of(last_words(endpoint.connection) or error)
            endpoint.close()
            raise UnreachableError(Code.UNAVAILABLE, f"{endpoint.url}: {words}") from error
        try:
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            endpoint.close()
            if _is_closed_door(error):
                raise UnreachableError(
                    Code.UNAVAILABLE, f"{endpoint.url}: {words_of(error)}"
                ) from error
            words = f"no answer from {endpoint.url}: {words_of(error)}"
            if safe:
                raise UnreachableError(Code.UNAVAILABLE, words) from error
            raise UnknownOutcomeError(
                Code.UNAVAILABLE, f"{words}; the write may or may not have happened: read it back"
            ) from error
        if response.status == http.client.OK:
            return answer
        raise refusal(response.status, answer, safe=safe)


def refusal(status: int, answer: bytes, *, safe: bool) -> KvError:
    """The error that an answer other than 200 stands for; ``retryable`` if it may be sent again."""
    code = _CODES_BY_STATUS.get(status, Code.UNKNOWN)
    message = answer[:200].decode(errors="replace").strip() or f"HTTP status {status}"
    with contextlib.suppress(msgspec.DecodeError, ValueError, TypeError, AttributeError):
        content = msgspec.json.decode(answer)
        message = str(content.get("message") or content.get("error") or message)
        code = Code(int(content.get("code", code)))
    return error_for(code, message, safe=safe)


def error_for(code: Code, message: str, *, safe: bool) -> KvError:
    """A typed error, in doubt where a write might have happened."""
    kind = _KINDS.get((code, message))
    if not safe and code in _IN_DOUBT and not _says_no(code, message):
        return UnknownOutcomeError(code, message)
    return KvError(code, message, retryable=kind in RETRYABLE)


def error_of_reason(reason: str) -> KvError:
    """The error behind a watch's reason to end, which names one of gRPC's as text."""
    message = reason.rpartition(" desc = ")[2]
    kind = _KINDS_BY_MESSAGE.get(message)
    return KvError(kind.code if kind is not None else Code.CANCELED, message)


def _says_no(code: Code, message: str) -> bool:
    """Whether an error whose code leaves doubt tells by its words that nothing has happened."""
    kind = _KINDS_BY_MESSAGE.get(message)
    if kind is None:
        return False
    # Locks and elections give every error the code Unknown; the words are those of its own kind.
    return kind in _REFUSED or (code == Code.UNKNOWN and kind.code not in _IN_DOUBT)


def is_stale_token(error: KvError) -> bool:
    """Whether the same call may succeed with a new token."""
    if error.code == Code.UNKNOWN:
        # That is all that locks and elections say of any error, besides its words.
        return _KINDS_BY_MESSAGE.get(error.message) in STALE_TOKEN
    return _KINDS.get((error.code, error.message)) in STALE_TOKEN


def last_words(connection: http.client.HTTPConnection | None) -> Exception | None:
    """Why a server hung up while a request was being sent, if it said so by an alert of TLS."""
    if connection is None or not isinstance(connection.sock, ssl.SSLSocket):
        return None
    connection.sock.settimeout(LAST_WORDS_SECONDS)
    try:
        connection.sock.recv(1)
    except (OSError, ValueError) as error:
        return error if _is_closed_door(error) else None
    return None


def _is_closed_door(error: Exception) -> bool:
    """Whether a server says that it takes no request, for it does not take the certificate.

    With TLS 1.3 a client hears that only after it has sent its request, which nobody has read.
    """
    code = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    words = str(code or "")
    return "ALERT" in words and ("CERTIFICATE" in words or "UNKNOWN_CA" in words)


def _unreachable(reasons: list[str]) -> UnreachableError:
    hint = "is a node running there? 'kvstore cluster' starts three"
    if any(_NOT_TRUSTED in reason or _NO_TLS in reason for reason in reasons):
        hint = "look at the scheme, the CA, the certificate and its key (--cacert, --cert, --key)"
    words = "; ".join(reasons) or "the time was up"
    return UnreachableError(Code.UNAVAILABLE, f"no endpoint could be reached ({words}); {hint}")


def words_of(error: Any) -> str:
    """What an error says, in the fewest words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{_NOT_TRUSTED}: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        # Such as TLSV13_ALERT_CERTIFICATE_REQUIRED, which is what the server says.
        return f"{_NO_TLS}: {error.reason.lower().replace('_', ' ')}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

"""From files to contexts of OpenSSL, and anew when the files change.

Every file is looked at (not read) before each handshake, so that a certificate, a key, a CA or a
list of revoked certificates that is replaced counts for the next connection. What cannot be used,
a new certificate whose key has not come yet for instance, leaves in force what was there before.
"""

from __future__ import annotations

import contextvars
import logging
import os
import ssl
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar

from kvstore.errors import ConfigError
from kvstore.tls import names
from kvstore.tls.settings import DEFAULT_TLS12, TLS12_SUITES, VERSIONS, TlsSettings

log = logging.getLogger("kvstore.tls")

ALPN: Final = ("http/1.1", "h2")
"""Whoever takes both gets HTTP/1.1: HTTP/2 is here for gRPC, whose clients offer nothing else."""
FILE_BYTES_MAX: Final = 16 * 1024 * 1024
"""A file that is no certificate may be anything, a device too."""

BUILD_AGAIN_SECONDS: Final = 1.0
"""After what could not be used has not changed. It takes milliseconds to find that out, and anybody
may connect as often as they like.
"""

C = TypeVar("C", bound=ssl.SSLContext)


class AlertSender(Protocol):
    """Has a connection on which a handshake failed."""

    def send_alert(self, data: bytes) -> None:
        """Send the last words."""


shaking_hands: contextvars.ContextVar[AlertSender | None] = contextvars.ContextVar(
    "shaking_hands", default=None
)
"""Who carries the handshake that begins."""


class _Legible(ssl.SSLObject):
    """Fails, and does not break down, where a certificate holds names that Python cannot read."""

    def getpeercert(self, binary_form: bool = False) -> Any:
        try:
            return super().getpeercert(binary_form)
        except ValueError as error:
            words = f"the other side's certificate cannot be read: {error}"
        # Event loops write the stack of any other error into the log.
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, words)


class _Handshake(_Legible):
    """Tells the other side why a handshake failed: event loops close the connection first."""

    outgoing: ssl.MemoryBIO
    sender: AlertSender | None

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            if self.sender is not None:
                self.sender.send_alert(self.outgoing.read())
            raise
        self.sender = None


class ServerContext(ssl.SSLContext):
    """A context whose handshakes end with an alert where they fail."""

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **kwargs: Any
    ) -> ssl.SSLObject:
        """As every context does."""
        self.sslobject_class = _Handshake
        handshake = super().wrap_bio(incoming, outgoing, *args, **kwargs)
        assert isinstance(handshake, _Handshake)
        handshake.outgoing = outgoing
        handshake.sender = shaking_hands.get()
        return handshake


class _Dialling(_Legible):
    """Looks at the name of whoever was dialled, before anything is said to him."""

    settings: TlsSettings

    def do_handshake(self) -> None:
        super().do_handshake()
        allowed_names, allowed_hosts = self.settings.allowed_names, self.settings.allowed_hosts
        words = names.refusal(self.getpeercert(), allowed_names, allowed_hosts)
        if words:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, words)


class DialContext(ssl.SSLContext):
    """A context whose handshakes fail with those who are not allowed."""

    settings: TlsSettings

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """As every context does."""
        self.sslobject_class = _Dialling
        handshake = super().wrap_bio(*args, **kwargs)
        assert isinstance(handshake, _Dialling)
        handshake.settings = self.settings
        return handshake


def server_context(settings: TlsSettings) -> ServerContext:
    """For connections that come in.

    Raises:
        ConfigError: A file is missing, or not what it should be; the message names the flag.
    """
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    _shape(context, settings)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    _load_pair(context, settings, "cert-file", settings.cert_file, settings.key_file)
    if settings.port == "client":
        context.set_alpn_protocols(list(ALPN))
    if settings.trusted_ca_file:
        _trust(context, settings)
        context.verify_mode = ssl.CERT_REQUIRED
        # Who comes again with a ticket is not looked at again: neither its end nor its revocation.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return context


def dial_context(settings: TlsSettings) -> DialContext:
    """For peers that are dialled.

    Raises:
        ConfigError: As ``server_context``.
    """
    context = DialContext(ssl.PROTOCOL_TLS_CLIENT)
    context.settings = settings
    _shape(context, settings)
    if settings.self_signed and not settings.trusted_ca_file:
        # Who has made a certificate for himself is known to nobody: this keeps listeners out, not
        # impostors.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif settings.trusted_ca_file:
        _trust(context, settings)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if settings.dial_cert_file:
        cert, key = settings.dial_cert_file, settings.dial_key_file
        _load_pair(context, settings, "client-cert-file", cert, key)
    elif settings.cert_file:
        _load_pair(context, settings, "cert-file", settings.cert_file, settings.key_file)
    return context


def _shape(context: ssl.SSLContext, settings: TlsSettings) -> None:
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.minimum_version = VERSIONS[settings.min_version]
    if settings.max_version:
        context.maximum_version = VERSIONS[settings.max_version]
    chosen = [TLS12_SUITES[name] for name in settings.cipher_suites if name in TLS12_SUITES]
    if settings.cipher_suites and not chosen:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ciphers(":".join(chosen) or DEFAULT_TLS12)


def _trust(context: ssl.SSLContext, settings: TlsSettings) -> None:
    _load_authorities(context, settings.flag("trusted-ca-file"), settings.trusted_ca_file)
    # As in Go: whoever is in the file is trusted, though another may have signed for him.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if settings.crl_file:
        flag = settings.flag("crl-file")
        if b"-----BEGIN X509 CRL-----" not in _read(flag, settings.crl_file):
            raise ConfigError(
                f"{flag} {settings.crl_file}: holds no list of revoked certificates in PEM; "
                "'openssl crl -inform DER -in FILE -out NEW' makes PEM of DER"
            )
        try:
            context.load_verify_locations(settings.crl_file)
        except ssl.SSLError as error:
            raise ConfigError(f"{flag} {settings.crl_file}: {reason(error)}") from error
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _load_authorities(context: ssl.SSLContext, flag: str, path: str) -> None:
    data = _read(flag, path)
    try:
        context.load_verify_locations(cadata=data.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"{flag} {path}: holds no certificate in PEM: it must be that of the CA"
        ) from error


def _load_pair(
    context: ssl.SSLContext, settings: TlsSettings, name: str, cert: str, key: str
) -> None:
    cert_flag = settings.flag(name)
    key_flag = settings.flag(name.replace("cert-file", "key-file"))
    if b"-----BEGIN CERTIFICATE-----" not in _read(cert_flag, cert):
        raise ConfigError(f"{cert_flag} {cert}: holds no certificate in PEM")
    if b"PRIVATE KEY-----" not in _read(key_flag, key):
        raise ConfigError(f"{key_flag} {key}: holds no private key in PEM")

    def refuse() -> NoReturn:
        raise ConfigError(
            f"{key_flag} {key}: is encrypted, and nobody is there to type its password; "
            "'openssl pkey -in FILE -out NEW' takes it off"
        )

    try:
        context.load_cert_chain(cert, key, password=refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            words = f"is not the key of {cert_flag} {cert}"
        else:
            words = f"cannot be used with {cert_flag} {cert}: {reason(error)}"
        raise ConfigError(f"{key_flag} {key}: {words}") from error
    except OSError as error:
        raise ConfigError(f"{key_flag} {key}: {error.strerror or error}") from error


def _read(flag: str, path: str) -> bytes:
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            # To open it would wait, with all that this member does, for somebody who writes.
            raise ConfigError(f"{flag} {path}: is a pipe; it must be a file, which is read again")
        with Path(path).open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        who = " by this process's user" if isinstance(error, PermissionError) else ""
        raise ConfigError(f"{flag} {path}: cannot be read{who}: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{flag} {path}: larger than {FILE_BYTES_MAX} bytes")
    return data


def reason(error: BaseException) -> str:
    """What went wrong in a handshake or a file, in the fewest words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the other side's certificate is refused: {error.verify_message}"
    # Such as HTTP_REQUEST, or TLSV1_ALERT_UNKNOWN_CA, which is what the other side says. Where it
    # was not OpenSSL that raised it, there is none.
    code = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    if code:
        return str(code).lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def forget_stack(error: BaseException) -> None:
    """Let go of where a handshake failed, once it has been told why.

    The frames of asyncio's own loop hold the error that holds them, and with it 256 KiB of buffer:
    a cycle, which a server that never looks for old ones would keep for good.
    """
    error.__traceback__ = None


class Watched(Generic[C]):
    """A context, made again when one of the files changes that it is made of.

    Args:
        build: Makes it of the files, or raises ConfigError.
        files: Their paths.

    Raises:
        ConfigError: It cannot be made the first time.
    """

    def __init__(self, build: Callable[[], C], files: tuple[str, ...]) -> None:
        self._build = build
        self._files = files
        self._seen = self._look()
        self._failed: object = None
        self._again_at = 0.0
        self._context = build()

    def current(self) -> C:
        """For a new connection; never raises: what cannot be used now was usable once."""
        seen = self._look()
        now = time.monotonic()
        if seen != self._seen and (seen != self._failed or now >= self._again_at):
            self._again_at = now + BUILD_AGAIN_SECONDS
            try:
                self._context = self._build()
            except ConfigError as error:
                if self._failed != seen:
                    self._failed = seen
                    log.warning("what was there before stays in force: %s", error)
            else:
                self._seen = seen
                log.info("read again: %s", ", ".join(self._files))
        return self._context

    def _look(self) -> list[tuple[int, ...] | None]:
        """What tells one content of the files from another."""
        looks: list[tuple[int, ...] | None] = []
        for path in self._files:
            try:
                found = os.stat(path)
            except OSError:
                looks.append(None)
            else:
                looks.append((found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size))
        return looks

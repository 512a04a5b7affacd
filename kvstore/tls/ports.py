"""TLS as a member uses it: to be dialled by clients and peers, and to dial peers."""

from __future__ import annotations

import asyncio
import datetime
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from kvstore.config_values import host_and_port
from kvstore.tls.contexts import DialContext, ServerContext, Watched, dial_context, server_context
from kvstore.tls.listener import Ledger, Listener
from kvstore.tls.rehearsal import rehearse
from kvstore.tls.self_signed import self_signed
from kvstore.tls.settings import TlsSettings

if TYPE_CHECKING:
    from kvstore.config import ServerConfig

log = logging.getLogger("kvstore.tls")

ENDS_SOON: Final = datetime.timedelta(days=14)
ENDING_TOLD_MAX: Final = 8
"""In the bundle of a system there may be many."""
NAME_CHARACTERS_MAX: Final = 256


class Port:
    """One port of a member, and how it dials those of others.

    Args:
        settings: Its settings.
        urls: Where it listens, and where others are told to come.

    Raises:
        ConfigError: A file that is needed to listen is missing or wrong.
    """

    def __init__(self, settings: TlsSettings, urls: Sequence[str]) -> None:
        self._settings = settings
        self._dial: Watched[DialContext] | None = None
        self._listen: Watched[ServerContext] | None = None
        if any(url.startswith("https://") for url in urls):
            self._listen = Watched(self._build, settings.files)

    def _build(self) -> ServerContext:
        context = server_context(self._settings)
        _tell(self._settings)
        return context

    def listener(self, new_protocol: Callable[[], asyncio.Protocol], ledger: Ledger) -> Listener:
        """In place of what ``create_server`` makes; still to be opened."""
        assert self._listen is not None, "an https URL that was not told of"
        return Listener(self._listen, self._settings, new_protocol, ledger)

    def rehearse(self, hosts: Sequence[str]) -> None:
        """Tell in the log what other members will refuse, as far as this one can know it."""
        if self._listen is None:
            return
        server, dial = self._listen.current(), self.dial_context()
        for host in dict.fromkeys(hosts):
            problem = rehearse(server, dial, host)
            if problem:
                log.error(
                    "other members will not be linked with this one, by what %s, %s and the URL "
                    "with %s say: %s",
                    self._settings.flag("cert-file"),
                    self._settings.flag("trusted-ca-file"),
                    host,
                    problem,
                )

    def dial_context(self) -> DialContext:
        """For a peer whose URL is https.

        Raises:
            ConfigError: It cannot be made: nobody has looked at these files before, if this member
                itself does not listen on https.
        """
        if self._dial is None:
            self._dial = Watched(lambda: dial_context(self._settings), self._settings.files)
        return self._dial.current()


def client_port(config: ServerConfig) -> Port:
    """Where clients come in, and those who look at metrics.

    Raises:
        ConfigError: As ``Port``, or no certificate can be made.
    """
    listening = (*config.listen_client_urls, *config.listen_metrics_urls)
    return _port(config, config.client_tls, listening, config.advertise_client_urls)


def peer_port(config: ServerConfig) -> Port:
    """Where other members come in, and how they are dialled.

    Raises:
        ConfigError: As ``Port``, or no certificate can be made.
    """
    told = config.initial_advertise_peer_urls
    port = _port(config, config.peer_tls, config.listen_peer_urls, told)
    urls = (
        *config.listen_peer_urls,
        *(url for each in config.initial_cluster.values() for url in each),
    )
    if any(url.startswith("https://") for url in urls):
        # A CA that is missing shall be missed now, and not when somebody is dialled.
        port.dial_context()
        port.rehearse([host_and_port(url)[0] for url in told if url.startswith("https://")])
    return port


def _port(
    config: ServerConfig, settings: TlsSettings, listening: tuple[str, ...], told: tuple[str, ...]
) -> Port:
    if settings.self_signed and any(url.startswith("https://") for url in listening):
        hosts = [host_and_port(url)[0] for url in (*listening, *told)]
        years = config.self_signed_cert_validity_years
        now = datetime.datetime.now(datetime.UTC)
        cert, key = self_signed(config.data_dir, settings.port, hosts, years, now)
        settings = msgspec.structs.replace(settings, cert_file=cert, key_file=key)
    return Port(settings, listening)


def _tell(settings: TlsSettings) -> None:
    """Say whose certificate it is and when what is in force ends: else it comes as a surprise."""
    now = datetime.datetime.now(datetime.UTC)
    for path, tell in (
        (settings.cert_file, _tell_own),
        (settings.dial_cert_file, _tell_own),
        (settings.trusted_ca_file, _tell_authorities),
        (settings.crl_file, _tell_revoked),
    ):
        if not path:
            continue
        try:
            with warnings.catch_warnings():
                # The library warns of a name that is too long, or empty; it is shown all the same.
                warnings.simplefilter("ignore")
                tell(path, Path(path).read_bytes(), now, soon=not settings.self_signed)
        except (OSError, ValueError, TypeError) as error:
            # OpenSSL took it: older CAs write names as the library will not read them.
            log.debug("%s cannot be described: %s", path, error)


# The library is imported where it is needed: it takes tens of milliseconds, which only those with
# TLS should pay.


def _tell_own(path: str, data: bytes, now: datetime.datetime, *, soon: bool) -> None:
    from cryptography import x509

    found = x509.load_pem_x509_certificate(data)
    left = found.not_valid_after_utc - now
    level, words = logging.INFO, "is valid until"
    if left < datetime.timedelta():
        level, words = logging.ERROR, "is refused by everybody, for it was valid until"
    elif found.not_valid_before_utc > now:
        level, words = logging.ERROR, "is not valid yet (is the clock right?); it will be until"
    elif left < ENDS_SOON and soon:
        level, words = logging.WARNING, "must be replaced soon: it is valid until"
    _log(level, path, found.subject.rfc4514_string(), words, found.not_valid_after_utc)


def _tell_authorities(path: str, data: bytes, now: datetime.datetime, *, soon: bool) -> None:
    from cryptography import x509

    ending = [
        each
        for each in x509.load_pem_x509_certificates(data)
        if each.not_valid_after_utc - now < ENDS_SOON
    ]
    for each in ending[:ENDING_TOLD_MAX]:
        level, words = logging.WARNING, "is a CA that must be replaced soon: it is valid until"
        if each.not_valid_after_utc < now:
            level, words = logging.ERROR, "lets nobody in whom it signed, for it was valid until"
        elif not soon:
            continue
        _log(level, path, each.subject.rfc4514_string(), words, each.not_valid_after_utc)


def _tell_revoked(
    path: str,
    data: bytes,
    now: datetime.datetime,
    *,
    soon: bool,  # noqa: ARG001
) -> None:
    from cryptography import x509

    begin = b"-----BEGIN X509 CRL-----"
    lists = [x509.load_pem_x509_crl(begin + part) for part in data.split(begin)[1:]]
    # Lists are made for days or weeks: what is near its end is as it should be.
    over = [each for each in lists if each.next_update_utc and each.next_update_utc < now]
    for each in over[:ENDING_TOLD_MAX]:
        assert each.next_update_utc is not None
        words = "is a list of revoked certificates by which nobody gets in, for it was valid until"
        _log(logging.ERROR, path, each.issuer.rfc4514_string(), words, each.next_update_utc)


def _log(level: int, path: str, name: str, words: str, end: datetime.datetime) -> None:
    # A name may hold whatever its CA let through, the end of a line too.
    printable = "".join(each if each.isprintable() else "?" for each in name[:NAME_CHARACTERS_MAX])
    shown = printable or "a subject without a name"
    until = end.isoformat(sep=" ", timespec="minutes")
    log.log(level, "%s (%s) %s %s", path, shown, words, until)

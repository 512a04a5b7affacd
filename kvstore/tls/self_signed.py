"""A certificate that a member makes for itself (``--auto-tls``, ``--peer-auto-tls``).

It keeps listeners out and proves nothing: whoever connects must either take any certificate, or be
given a copy of this one. It lies in the data directory, under etcd's names, and is made anew at a
start at which little of its time is left::

    data-dir/fixtures/client/cert.pem, key.pem
    data-dir/fixtures/peer/cert.pem, key.pem
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kvstore.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509

log = logging.getLogger("kvstore.tls")

RENEW_BEFORE: Final = datetime.timedelta(days=30)
_YEAR: Final = datetime.timedelta(days=365)
_CLOCKS_DIFFER: Final = datetime.timedelta(minutes=5)


def self_signed(
    data_dir: str, port: str, hosts: Iterable[str], years: int, now: datetime.datetime
) -> tuple[str, str]:
    """The files of the member's own certificate and key; made if they are not there.

    Args:
        data_dir: The member's.
        port: ``client`` or ``peer``.
        hosts: Names and addresses that it shall be for; wildcard addresses say nothing.
        years: How long it shall be valid.
        now: With a time zone.

    Raises:
        ConfigError: The directory cannot be written.
    """
    directory = Path(data_dir) / "fixtures" / port
    cert, key = directory / "cert.pem", directory / "key.pem"
    try:
        if key.exists() and _lasts(cert, now, min(RENEW_BEFORE, years * _YEAR / 2)):
            _keep_private(key)
            return str(cert), str(key)
        made = _make([*dict.fromkeys(hosts)], years, now)
        Path(data_dir).parent.mkdir(parents=True, exist_ok=True)
        for each in (Path(data_dir), directory.parent, directory):
            each.mkdir(mode=0o700, exist_ok=True)
        for path, data in zip((key, cert), made, strict=True):
            _write(path, data)
    except OSError as error:
        flag = "--auto-tls" if port == "client" else "--peer-auto-tls"
        raise ConfigError(
            f"{flag}: cannot keep a certificate in {directory}: {error.strerror or error}"
        ) from error
    log.info("made a certificate that is signed by itself, for %d years: %s", years, cert)
    return str(cert), str(key)


def _keep_private(key: Path) -> None:
    """A directory that came out of a backup may say otherwise."""
    if key.stat().st_mode & 0o077:
        # Somebody else's is not ours to close, and good enough to start with.
        with contextlib.suppress(PermissionError):
            key.chmod(0o600)
        log.warning("%s was readable by others; if they read it, remove it and start again", key)


def _lasts(path: Path, now: datetime.datetime, at_least: datetime.timedelta) -> bool:
    from cryptography import x509

    try:
        kept = x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return kept.not_valid_after_utc - now >= at_least


def _make(hosts: list[str], years: int, now: datetime.datetime) -> tuple[bytes, bytes]:
    """Key and certificate, PEM."""
    # Here and not above: it takes tens of milliseconds, which only those who need it should pay.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "kvstore")])
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + years * _YEAR)
        .add_extension(x509.SubjectAlternativeName(_alternatives(hosts)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256())
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
    )


def _alternatives(hosts: list[str]) -> list[x509.GeneralName]:
    from cryptography import x509

    found: list[x509.GeneralName] = []
    for host in hosts:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            try:
                found.append(x509.DNSName(host))
            except ValueError as error:
                raise ConfigError(
                    f"{host}: no certificate can be made for this host of a URL, which has letters "
                    "beyond ASCII; give it as it is in DNS (xn--…)"
                ) from error
            continue
        if not address.is_unspecified:
            found.append(x509.IPAddress(address))
    return found or [x509.DNSName("localhost")]


def _write(path: Path, data: bytes) -> None:
    """Write a file that nobody else may read, whole or not at all."""
    unfinished = path.with_suffix(".tmp")
    unfinished.unlink(missing_ok=True)
    opened = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(opened, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)

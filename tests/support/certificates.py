"""A CA for tests, and files of whatever it signs or takes back."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kvstore.client import Tls

HOSTS: Final = ("localhost", "127.0.0.1")
DAY: Final = datetime.timedelta(days=1)


class Authority:
    """Signs certificates, and writes them down.

    Args:
        directory: Where.
        name: Of its own file.
    """

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._ca = trustme.CA()
        self.file = str(directory / f"{name}.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def pair(
        self,
        name: str,
        common_name: str = "",
        hosts: Sequence[str] = HOSTS,
        ends: datetime.datetime | None = None,
    ) -> tuple[str, str]:
        """Certificate and key, for servers and clients, in files of this name; written anew."""
        made = self._ca.issue_cert(*hosts, common_name=common_name or name, not_after=ends)
        cert, key = self._directory / f"{name}.pem", self._directory / f"{name}-key.pem"
        cert.write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
        key.write_bytes(made.private_key_pem.bytes())
        return str(cert), str(key)

    def odd(self, name: str, alternatives: bytes) -> tuple[str, str]:
        """As ``pair``, with alternative names in DER as nobody should write them."""
        now = datetime.datetime.now(datetime.UTC)
        authority = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        signer = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        key = ec.generate_private_key(ec.SECP256R1())
        oid = x509.SubjectAlternativeName.oid
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.UnrecognizedExtension(oid, alternatives), critical=False)
        )
        made = builder.sign(signer, hashes.SHA256())  # type: ignore[arg-type]
        cert, key_file = self._directory / f"{name}.pem", self._directory / f"{name}-key.pem"
        cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(cert), str(key_file)

    def client(self, name: str, **more: datetime.datetime) -> Tls:
        """What a client with a certificate of its own brings."""
        cert, key = self.pair(name, **more)  # type: ignore[arg-type]
        return Tls(ca_file=self.file, cert_file=cert, key_file=key)

    def revoke(self, *certs: str, ends: datetime.datetime | None = None) -> str:
        """The file of what was taken back: these and no others; good for a day, or until then."""
        now = datetime.datetime.now(datetime.UTC)
        authority = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        key = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(authority.subject)
            .last_update(now - DAY)
            .next_update(ends or now + DAY)
        )
        for cert in certs:
            serial = x509.load_pem_x509_certificate(Path(cert).read_bytes()).serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(revoked.revocation_date(now - DAY).build())
        signed = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]
        path = self._directory / "crl.pem"
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return str(path)

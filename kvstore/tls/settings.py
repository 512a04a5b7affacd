"""What is set about TLS, for the clients' port or the peers', and what ciphers are called."""

from __future__ import annotations

import ssl
from typing import Final

import msgspec

from kvstore.errors import ConfigError

VERSIONS: Final = {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}
"""As etcd calls them. Older ones are broken (RFC 8996)."""

TLS13_SUITES: Final = frozenset(
    {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
)
"""All of them are good, and offered wherever TLS 1.3 is: there is nothing to choose."""

_AHEAD: Final = (
    ("ECDHE_ECDSA", "ECDHE-ECDSA-"),
    ("ECDHE_RSA", "ECDHE-RSA-"),
)
_CIPHERS: Final = (
    ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
    ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
    ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
    # Go's older name.
    ("CHACHA20_POLY1305", "CHACHA20-POLY1305"),
    ("AES_128_CBC_SHA256", "AES128-SHA256"),
    ("AES_128_CBC_SHA", "AES128-SHA"),
    ("AES_256_CBC_SHA", "AES256-SHA"),
)
TLS12_SUITES: Final = {
    f"TLS_{exchange}_WITH_{cipher}": prefix + name
    for exchange, prefix in _AHEAD
    for cipher, name in _CIPHERS
}
"""By the names of IANA, which etcd uses: what OpenSSL calls them. All have forward secrecy."""

DEFAULT_TLS12: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Forward secrecy and authenticated encryption, which is also all that RFC 9113 §9.2.2 allows."""


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One port's settings.

    Attributes:
        port: ``client`` or ``peer``.
        cert_file: The certificate with its chain, PEM; empty with ``self_signed``.
        key_file: Its key, PEM, not encrypted.
        dial_cert_file: What is shown to peers that are dialled; empty: ``cert_file``.
        dial_key_file: Its key.
        trusted_ca_file: Whoever dials must show a certificate of these; empty: of nobody.
        crl_file: Which of them are revoked, PEM; empty: none.
        allowed_names: If there are any, the Common Name must be one of them.
        allowed_hosts: If there are any, the certificate must be valid for one of them.
        self_signed: A certificate is made, and peers' are not verified.
        cipher_suites: For TLS 1.2, by IANA's names; empty: what is good.
        min_version: A key of ``VERSIONS``.
        max_version: The same; empty: the newest.
    """

    port: str
    cert_file: str = ""
    key_file: str = ""
    dial_cert_file: str = ""
    dial_key_file: str = ""
    trusted_ca_file: str = ""
    crl_file: str = ""
    allowed_names: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    self_signed: bool = False
    cipher_suites: tuple[str, ...] = ()
    min_version: str = "TLS1.2"
    max_version: str = ""

    def flag(self, name: str) -> str:
        """What a flag is called for this port."""
        if name == "crl-file":
            return f"--{self.port}-crl-file"
        return f"--peer-{name}" if self.port == "peer" else f"--{name}"

    @property
    def files(self) -> tuple[str, ...]:
        """All files that are read for connections."""
        named = (
            self.cert_file,
            self.key_file,
            self.dial_cert_file,
            self.dial_key_file,
            self.trusted_ca_file,
            self.crl_file,
        )
        return tuple(dict.fromkeys(name for name in named if name))


def checked_suites(names: tuple[str, ...]) -> tuple[str, ...]:
    """Check ``--cipher-suites``.

    Raises:
        ConfigError: One is not known, or too weak.
    """
    unknown = [name for name in names if name not in TLS12_SUITES and name not in TLS13_SUITES]
    if unknown:
        raise ConfigError(
            f"--cipher-suites: {', '.join(unknown)} is unknown or too weak; "
            f"there are {', '.join(sorted(TLS12_SUITES))}, and for TLS 1.3, where all are always "
            f"offered, {', '.join(sorted(TLS13_SUITES))}"
        )
    return names

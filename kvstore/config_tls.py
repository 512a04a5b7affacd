"""The settings of a node that are about TLS, and what of them goes together.

Names and meanings are etcd's. ``kvstore.tls`` knows what to do with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from kvstore.config_values import Setting
from kvstore.errors import ConfigError
from kvstore.tls.settings import TLS12_SUITES, TlsSettings, checked_suites

if TYPE_CHECKING:
    from kvstore.config import ServerConfig

_VERSIONS: Final = ("TLS1.2", "TLS1.3")

SECTIONS: Final = {
    "client-transport-security": {
        "cert-file": "cert-file",
        "key-file": "key-file",
        "client-cert-file": "client-cert-file",
        "client-key-file": "client-key-file",
        "client-cert-auth": "client-cert-auth",
        "trusted-ca-file": "trusted-ca-file",
        "crl-file": "client-crl-file",
        "allowed-hostname": "client-cert-allowed-hostname",
        "auto-tls": "auto-tls",
        "skip-client-san-verification": "peer-skip-client-san-verification",
    },
    "peer-transport-security": {
        "cert-file": "peer-cert-file",
        "key-file": "peer-key-file",
        "client-cert-file": "peer-client-cert-file",
        "client-key-file": "peer-client-key-file",
        "client-cert-auth": "peer-client-cert-auth",
        "trusted-ca-file": "peer-trusted-ca-file",
        "crl-file": "peer-crl-file",
        "allowed-cn": "peer-cert-allowed-cn",
        "allowed-hostname": "peer-cert-allowed-hostname",
        "auto-tls": "peer-auto-tls",
        "skip-client-san-verification": "peer-skip-client-san-verification",
    },
}
"""The sections of a YAML file: what stands in them, and the flag that means the same."""


def _file(flag: str, text: str) -> Setting:
    return Setting(flag=flag, help=text, shown_default="none")


class TlsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The part of ``ServerConfig`` that is about TLS."""

    cert_file: Annotated[
        str, _file("cert-file", "Certificate with its chain for https client URLs, PEM.")
    ] = ""
    key_file: Annotated[str, _file("key-file", "Key of --cert-file, PEM.")] = ""
    trusted_ca_file: Annotated[
        str,
        _file("trusted-ca-file", "Clients must show a certificate that these CAs signed, PEM."),
    ] = ""
    client_cert_auth: Annotated[
        bool,
        Setting(
            flag="client-cert-auth",
            help="Its Common Name is the user of gRPC calls without a token.",
        ),
    ] = False
    client_crl_file: Annotated[
        str, _file("client-crl-file", "Client certificates that are revoked, PEM.")
    ] = ""
    client_cert_allowed_hostname: Annotated[
        str,
        Setting(
            flag="client-cert-allowed-hostname",
            help="Client certificates must be for one of these hosts, separated by commas.",
            shown_default="all",
            listed=True,
        ),
    ] = ""
    client_cert_file: Annotated[
        str, _file("client-cert-file", "Without use: no member is a client of itself.")
    ] = ""
    client_key_file: Annotated[
        str, _file("client-key-file", "Without use: no member is a client of itself.")
    ] = ""
    auto_tls: Annotated[
        bool,
        Setting(flag="auto-tls", help="Make a certificate for https client URLs, signed by none."),
    ] = False
    peer_cert_file: Annotated[
        str, _file("peer-cert-file", "Certificate with its chain, for https peer URLs, PEM.")
    ] = ""
    peer_key_file: Annotated[str, _file("peer-key-file", "Key of --peer-cert-file, PEM.")] = ""
    peer_trusted_ca_file: Annotated[
        str,
        _file("peer-trusted-ca-file", "CAs of the members: both ways a certificate is shown, PEM."),
    ] = ""
    peer_client_cert_auth: Annotated[
        bool,
        Setting(
            flag="peer-client-cert-auth",
            help="Members that dial must show a certificate; --peer-trusted-ca-file says so too.",
        ),
    ] = False
    peer_crl_file: Annotated[
        str, _file("peer-crl-file", "Certificates of members that are revoked, PEM.")
    ] = ""
    peer_cert_allowed_cn: Annotated[
        str,
        Setting(
            flag="peer-cert-allowed-cn",
            help="Members' certificates must have one of these Common Names, separated by commas.",
            shown_default="all",
            listed=True,
        ),
    ] = ""
    peer_cert_allowed_hostname: Annotated[
        str,
        Setting(
            flag="peer-cert-allowed-hostname",
            help="Members' certificates must be for one of these hosts, separated by commas.",
            shown_default="all",
            listed=True,
        ),
    ] = ""
    peer_client_cert_file: Annotated[
        str,
        Setting(
            flag="peer-client-cert-file",
            help="Certificate to dial other members with, PEM.",
            shown_default="as --peer-cert-file",
        ),
    ] = ""
    peer_client_key_file: Annotated[
        str,
        Setting(
            flag="peer-client-key-file",
            help="Key of --peer-client-cert-file, PEM.",
            shown_default="as --peer-key-file",
        ),
    ] = ""
    peer_auto_tls: Annotated[
        bool,
        Setting(flag="peer-auto-tls", help="Make a certificate for https peer URLs; verify none."),
    ] = False
    self_signed_cert_validity_years: Annotated[
        int,
        Setting(
            flag="self-signed-cert-validity",
            help="Years that certificates of --auto-tls and --peer-auto-tls are valid.",
            minimum=1,
            maximum=100,
        ),
    ] = 1
    cipher_suites: Annotated[
        str,
        Setting(
            flag="cipher-suites",
            help="Cipher suites of TLS 1.2 by IANA's names, separated by commas.",
            shown_default="ECDHE with AES-GCM or ChaCha20",
            listed=True,
        ),
    ] = ""
    tls_min_version: Annotated[
        str, Setting(flag="tls-min-version", help="Oldest version of TLS.", choices=_VERSIONS)
    ] = "TLS1.2"
    tls_max_version: Annotated[
        str,
        Setting(
            flag="tls-max-version",
            help="Newest version of TLS.",
            choices=("", *_VERSIONS),
            shown_default="the newest",
        ),
    ] = ""

    @property
    def client_tls(self) -> TlsSettings:
        """The clients' port; of use if one of its URLs is https."""
        return TlsSettings(
            port="client",
            cert_file=self.cert_file,
            key_file=self.key_file,
            trusted_ca_file=self.trusted_ca_file,
            crl_file=self.client_crl_file,
            allowed_hosts=_parts(self.client_cert_allowed_hostname),
            self_signed=self.auto_tls and not self.cert_file,
            cipher_suites=_parts(self.cipher_suites),
            min_version=self.tls_min_version,
            max_version=self.tls_max_version,
        )

    @property
    def peer_tls(self) -> TlsSettings:
        """The peers' port, and how others are dialled; of use if one of the URLs is https."""
        return TlsSettings(
            port="peer",
            cert_file=self.peer_cert_file,
            key_file=self.peer_key_file,
            dial_cert_file=self.peer_client_cert_file,
            dial_key_file=self.peer_client_key_file,
            trusted_ca_file=self.peer_trusted_ca_file,
            crl_file=self.peer_crl_file,
            allowed_names=_parts(self.peer_cert_allowed_cn),
            allowed_hosts=_parts(self.peer_cert_allowed_hostname),
            self_signed=self.peer_auto_tls and not self.peer_cert_file,
            cipher_suites=_parts(self.cipher_suites),
            min_version=self.tls_min_version,
            max_version=self.tls_max_version,
        )


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)


def is_https(url: str) -> bool:
    """Whether a checked URL asks for TLS."""
    return url.startswith("https://")


def check_tls(config: ServerConfig) -> None:
    """Refuse what does not go together, or would only look like protection.

    Raises:
        ConfigError: The message names the flags, and what to do.
    """
    suites = checked_suites(_parts(config.cipher_suites))
    if config.tls_max_version and config.tls_max_version < config.tls_min_version:
        raise ConfigError("--tls-max-version: is older than --tls-min-version")
    if suites and config.tls_min_version == "TLS1.3":
        raise ConfigError("--cipher-suites: are for TLS 1.2, which --tls-min-version rules out")
    if suites and config.tls_max_version == "TLS1.2" and not {*suites} & TLS12_SUITES.keys():
        raise ConfigError("--cipher-suites: none is for TLS 1.2, and --tls-max-version is that")
    clients = (*config.listen_client_urls, *config.listen_metrics_urls)
    _check_port(config.client_tls, clients, "--listen-client-urls", config.client_cert_auth)
    peers = config.listen_peer_urls
    _check_port(config.peer_tls, peers, "--listen-peer-urls", config.peer_client_cert_auth)
    if bool(config.peer_client_cert_file) != bool(config.peer_client_key_file):
        raise ConfigError("--peer-client-cert-file and --peer-client-key-file: one needs the other")


def _check_port(
    settings: TlsSettings, urls: tuple[str, ...], urls_flag: str, demanded: bool
) -> None:
    cert, key, ca = map(settings.flag, ("cert-file", "key-file", "trusted-ca-file"))
    if bool(settings.cert_file) != bool(settings.key_file):
        given, missing = (cert, key) if settings.cert_file else (key, cert)
        raise ConfigError(f"{given}: needs {missing} as well")
    secure = [url for url in urls if is_https(url)]
    if secure and not settings.cert_file and not settings.self_signed:
        auto = settings.flag("auto-tls")
        raise ConfigError(f"{secure[0]}: needs a certificate: give {cert} and {key}, or {auto}")
    demand = settings.flag("client-cert-auth")
    if demanded and not settings.trusted_ca_file:
        raise ConfigError(f"{demand}: needs {ca}, the CA whose certificates may come in")
    if demanded and not secure:
        raise ConfigError(f"{demand}: none of the {urls_flag} is https, so nobody would be asked")
    narrower = {
        settings.flag("crl-file"): settings.crl_file,
        "--peer-cert-allowed-cn": settings.allowed_names,
        f"--{settings.port}-cert-allowed-hostname": settings.allowed_hosts,
    }
    for flag, value in narrower.items():
        if value and not settings.trusted_ca_file:
            raise ConfigError(
                f"{flag}: means nothing without {ca}, by which certificates are asked for"
            )


def tls_warnings(config: ServerConfig) -> list[str]:
    """What was set and will not be used."""
    found = []
    ports = (
        (config.client_tls, (*config.listen_client_urls, *config.listen_metrics_urls)),
        (config.peer_tls, config.listen_peer_urls),
    )
    for settings, urls in ports:
        if settings.files or settings.self_signed:
            found += [
                f"{url} is http: it is served without TLS, whatever {settings.flag('cert-file')} "
                "and its like say"
                for url in urls
                if not is_https(url)
            ]
    for flag, auto, cert in (
        ("--auto-tls", config.auto_tls, config.cert_file),
        ("--peer-auto-tls", config.peer_auto_tls, config.peer_cert_file),
    ):
        if auto and cert:
            found.append(f"{flag} is ignored: there is a certificate")
    return found

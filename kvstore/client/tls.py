"""How a client knows the server, and shows who it is itself."""

from __future__ import annotations

import ssl
from pathlib import Path

import msgspec


class TlsError(ValueError):
    """A file for TLS cannot be used."""


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """What a client brings for https endpoints.

    Attributes:
        ca_file: Certificates of the CAs that are trusted, PEM; empty: those of the system.
        cert_file: The client's certificate with its chain, PEM; empty: none is shown.
        key_file: Its key, PEM.
        skip_verification: Take any server for the right one. What is sent is then hidden from
            listeners, but not from whoever stands in between.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    skip_verification: bool = False

    def context(self) -> ssl.SSLContext:
        """Read the files.

        Raises:
            TlsError: One is missing, or not what it should be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # As Go has it: whoever is named is trusted, though another may have signed for him.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.skip_verification:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca_file:
            self._trust(context)
        else:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if self.cert_file or self.key_file:
            self._introduce(context)
        return context

    def _trust(self, context: ssl.SSLContext) -> None:
        _check("the CA file", self.ca_file)
        try:
            context.load_verify_locations(self.ca_file)
        except (ssl.SSLError, OSError) as error:
            raise TlsError(f"the CA file {self.ca_file}: holds no certificate in PEM") from error

    def _introduce(self, context: ssl.SSLContext) -> None:
        if not self.cert_file or not self.key_file:
            raise TlsError("a client's certificate needs its key, and a key its certificate")
        _check("the certificate", self.cert_file)
        _check("the key", self.key_file)

        def refuse() -> str:
            raise TlsError(f"the key {self.key_file}: is encrypted; 'openssl pkey' takes that off")

        try:
            context.load_cert_chain(self.cert_file, self.key_file, password=refuse)
        except (ssl.SSLError, OSError) as error:
            what = getattr(error, "reason", None) or str(error)
            why = (
                "do not belong together" if what == "KEY_VALUES_MISMATCH" else f"are no PEM: {what}"
            )
            raise TlsError(f"the files {self.cert_file} and {self.key_file} {why}") from error


def _check(what: str, path: str) -> None:
    """OpenSSL does not say which file is missing."""
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise TlsError(f"{what} {path}: {error.strerror or error}") from error

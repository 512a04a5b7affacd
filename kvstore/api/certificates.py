"""Whom a client's certificate names, for faces where it may stand for a user."""

import asyncio

from kvstore.tls.names import common_name


def common_name_of(transport: asyncio.BaseTransport) -> str | None:
    """The Common Name of the certificate that a client showed, and that was verified.

    None without TLS, without a certificate, with one that nobody verified, and if the name is
    empty. It is for gRPC calls alone: whether it counts, ``kvstore.service`` knows.
    """
    return common_name(transport.get_extra_info("peercert"))

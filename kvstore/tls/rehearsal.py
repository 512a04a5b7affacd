"""A member's handshake with itself, in memory: what others will find wrong, told at the start."""

from __future__ import annotations

import contextlib
import ssl
from typing import Final

from kvstore.tls.contexts import DialContext, ServerContext, reason

ROUNDS_MAX: Final = 8
"""TLS 1.2 takes two round trips."""


def rehearse(server: ServerContext, dial: DialContext, host: str) -> str:
    """Why a member would not get through to its own port; "" if it would.

    Args:
        server: As others find it.
        dial: As it dials others.
        host: Under which others find it.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        sides = [
            dial.wrap_bio(to_client, to_server, server_hostname=host),
            server.wrap_bio(to_server, to_client, server_side=True),
        ]
        for _ in range(ROUNDS_MAX):
            for side in list(sides):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
                    sides.remove(side)
    except (ssl.SSLError, ValueError) as error:
        # The latter where the host is none that a certificate could be for.
        return reason(error)
    return "the handshake does not end" if sides else ""

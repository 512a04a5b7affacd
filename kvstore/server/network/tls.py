"""TLS between members: who is refused at the peer port, and how one is dialled."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from kvstore.server.network.handshake import Handshake
from kvstore.tls.contexts import forget_stack
from kvstore.tls.listener import HANDSHAKE_SECONDS_MAX, SHUTDOWN_SECONDS_MAX
from kvstore.tls.ports import Port

log = logging.getLogger("kvstore.peers")

ADDRESSES_MAX: Final = 64
"""Of how many addresses the last complaint is remembered, so that it is not repeated."""


class PeerLedger:
    """Implements ``kvstore.tls.listener.Ledger`` for the peer port.

    Args:
        has_room: Whether one more connection may come that has not shown its head.
    """

    def __init__(self, has_room: Callable[[], bool]) -> None:
        self._has_room = has_room
        self._complained: dict[str, str] = {}

    def enter_gate(self) -> bool:
        """A handshake begins; False if there is no room for it."""
        return self._has_room()

    def leave_gate(self) -> None:
        """The gates that are left are counted, nothing else."""

    def count_failure(self, address: str, words: str, *, is_tls: bool) -> None:
        """Name who was refused, once: a member that is refused dials again and again."""
        if not is_tls:
            log.debug("no TLS with a peer at %s: %s", address, words)
        elif self._complained.get(address) != words:
            self._complained.pop(address, None)
            if len(self._complained) >= ADDRESSES_MAX:
                del self._complained[next(iter(self._complained))]
            self._complained[address] = words
            log.warning("refused a connection to the peer port from %s: %s", address, words)


async def connect(handshake: Handshake, host: str, port: int, tls: Port | None) -> None:
    """Connect to a member, with TLS or without.

    Args:
        handshake: Speaks from there on.
        host: Where it is; its certificate must be for this.
        port: The same.
        tls: None: without.

    Raises:
        OSError: Nobody is there, or TLS fails, or its certificate is none of those that may be.
        ConfigError: The files for TLS cannot be used.
    """
    loop = asyncio.get_running_loop()
    if tls is None:
        await loop.create_connection(lambda: handshake, host, port)
        return
    try:
        await loop.create_connection(
            lambda: handshake,
            host,
            port,
            ssl=tls.dial_context(),
            ssl_handshake_timeout=HANDSHAKE_SECONDS_MAX,
            ssl_shutdown_timeout=SHUTDOWN_SECONDS_MAX,
        )
    except OSError as error:
        # A member that is refused dials again and again.
        forget_stack(error)
        raise

"""How does a program call the store? A small synchronous client that imports no server."""

from kvstore.client.calls import prefix_end
from kvstore.client.client import Client
from kvstore.client.tls import Tls, TlsError
from kvstore.client.transport import UnreachableError
from kvstore.client.watch import Watch, WatchCanceledError

__all__ = [
    "Client",
    "Tls",
    "TlsError",
    "UnreachableError",
    "Watch",
    "WatchCanceledError",
    "prefix_end",
]

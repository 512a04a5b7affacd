"""How does a program call the store? A small synchronous client that imports no server."""

from kvstore.client.client import Client, prefix_end
from kvstore.client.transport import UnreachableError
from kvstore.client.watch import Watch, WatchCanceledError
from kvstore.errors import KvError, UnknownOutcomeError

__all__ = [
    "Client",
    "KvError",
    "UnknownOutcomeError",
    "UnreachableError",
    "Watch",
    "WatchCanceledError",
    "prefix_end",
]

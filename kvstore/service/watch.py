"""The Watch service: a stream of the hub's, with headers."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from kvstore.types import ResponseHeader, WatchRequest, WatchResponse

if TYPE_CHECKING:
    from kvstore.budget import Budget
    from kvstore.server.node import Node


class ServiceWatch:
    """One client's stream of watchers.

    Pulled by its face: ``take`` again once what it gave is written, or once ``on_ready`` was
    called. So a slow client holds a cursor, not a queue.
    """

    __slots__ = ("_node", "_stream")

    def __init__(self, node: "Node", on_ready: Callable[[], None]) -> None:
        self._node = node
        self._stream = node.hub.open_stream(on_ready)

    def request(self, request: WatchRequest) -> None:
        """Create, cancel, or ask for progress; answers come out of ``take``."""
        self._stream.request(request)

    def take(self, budget: "Budget", bytes_max: int) -> list[WatchResponse]:
        """The next responses.

        Of at most about ``bytes_max`` bytes, within a slice of ``budget``.
        """
        responses = self._stream.take(budget, bytes_max)
        node = self._node
        term = node.driver.raft.term
        for response in responses:
            revision = response.header.revision if response.header is not None else 0
            response.header = ResponseHeader(node.cluster_id, node.member_id, revision, term)
        return responses

    def close(self) -> None:
        """End all watchers of the stream."""
        self._stream.close()

"""The gRPC face of one service: each call by its path, between the bytes and the service.

``server.py`` carries what is here; ``calls.py`` is what the two agree on.
"""

from collections.abc import Callable

from kvstore.api.backend import Service
from kvstore.api.grpc.calls import Calls
from kvstore.api.grpc.decode import FIELDS_MAX
from kvstore.api.grpc.health import Health
from kvstore.api.grpc.prepared import Prepared
from kvstore.api.grpc.reflection import reflection_calls
from kvstore.api.grpc.stream_calls import Streams
from kvstore.api.grpc.unary_calls import unary_calls
from kvstore.budget import Budget


class Face:
    """All calls of one service.

    Args:
        service: what is asked.
        watch_bytes_max: bytes of events that a watch stream encodes at a time.
        new_budget: makes the budget of a slice of work.
        fields_max: how many fields a transaction may have.
    """

    def __init__(
        self,
        service: Service,
        watch_bytes_max: int,
        new_budget: Callable[[], Budget],
        fields_max: int = FIELDS_MAX,
    ) -> None:
        prepared = Prepared(service.cluster_id, service.member_id)
        self._health = Health(service)
        self.calls: Calls = {
            **unary_calls(service, prepared, new_budget, fields_max),
            **Streams(service, prepared, watch_bytes_max, new_budget).by_path(),
            **self._health.calls(),
            **reflection_calls(),
        }
        """By path: ``/etcdserverpb.KV/Put``."""

    def drain(self) -> None:
        """The server stops: who asks after its health is told that it does not serve any more."""
        self._health.drain()

"""The settings of a node that are about gRPC connections. Names and meanings are etcd's."""

from __future__ import annotations

from typing import Annotated

from kvstore.config_tls import TlsConfig
from kvstore.config_values import Setting


class GrpcConfig(TlsConfig, frozen=True, kw_only=True):
    """The part of ``ServerConfig`` that is about gRPC, on top of that about TLS."""

    max_concurrent_streams: Annotated[
        int,
        Setting(flag="max-concurrent-streams", help="Most gRPC calls on a connection.", minimum=1),
    ] = 4096
    grpc_keepalive_min_time_ms: Annotated[
        int,
        Setting(
            flag="grpc-keepalive-min-time", help="How often gRPC clients may ping.", duration=True
        ),
    ] = 5_000
    grpc_keepalive_interval_ms: Annotated[
        int,
        Setting(
            flag="grpc-keepalive-interval",
            help="Ping gRPC clients so often.",
            minimum=1,
            duration=True,
        ),
    ] = 7_200_000
    grpc_keepalive_timeout_ms: Annotated[
        int,
        Setting(
            flag="grpc-keepalive-timeout",
            help="Wait so long for an answer.",
            minimum=1,
            duration=True,
        ),
    ] = 20_000

"""Our records by the names that Protocol Buffers have for them."""

from typing import Final

from msgspec import Struct

from kvstore.api.grpc.pb.descriptors import FIELDS

_PACKAGES: Final = (
    "etcdserverpb",
    "mvccpb",
    "authpb",
    "v3lockpb",
    "v3electionpb",
    "grpc.health.v1",
    "grpc.reflection.v1",
)


def full_name(record: type[Struct]) -> str:
    """A record's message: ``etcdserverpb.PutRequest``. They have the same names, and unique ones.

    Raises:
        KeyError: there is no such message.
    """
    for package in _PACKAGES:
        name = f"{package}.{record.__name__}"
        if name in FIELDS:
            return name
    raise KeyError(record.__name__)

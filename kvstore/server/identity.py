"""Who is in this cluster? Ids that all members derive alike from the initial configuration.

A member's id is the first eight bytes of SHA-1 over its sorted peer URLs and the cluster token; the
cluster's id is that of the sorted member ids. No clock and no chance is in them, so members need
not talk before they agree.
"""

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from kvstore.errors import ConfigError
from kvstore.types import Member


class Identity(msgspec.Struct, frozen=True):
    """This member, its cluster, and the members that the cluster started with, sorted by id."""

    cluster_id: int
    member_id: int
    members: tuple[Member, ...]


def _first_eight_bytes(data: bytes) -> int:
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    # Zero stands for "nobody" in raft; SHA-1 yields it once in 2**64 clusters.
    return int.from_bytes(digest[:8], "big") or 1


def member_id(peer_urls: Sequence[str], token: str) -> int:
    """The id of the member that listens to its peers at these URLs.

    In the cluster with this token.
    """
    return _first_eight_bytes(("".join(sorted(peer_urls)) + token).encode())


def cluster_id(member_ids: Sequence[int]) -> int:
    """The id of the cluster that starts with these members."""
    return _first_eight_bytes(b"".join(member.to_bytes(8, "big") for member in sorted(member_ids)))


def derive(name: str, initial_cluster: Mapping[str, Sequence[str]], token: str) -> Identity:
    """Derive all ids.

    Args:
        name: This member's name; it must be one of ``initial_cluster``.
        initial_cluster: Peer URLs by member name.
        token: Tells clusters apart that would have the same URLs.

    Raises:
        ConfigError: The name is not in the list, or two members share their URLs.
    """
    if name not in initial_cluster:
        known = ", ".join(sorted(initial_cluster))
        raise ConfigError(
            f"--name {name!r} is not in --initial-cluster (which has {known}): "
            "give this member one of those names, or add it to the list on every member"
        )
    ids = {who: member_id(urls, token) for who, urls in initial_cluster.items()}
    if len(set(ids.values())) != len(ids):
        raise ConfigError(
            "--initial-cluster gives two members the same peer URLs: each needs its own"
        )
    members = sorted(
        (
            Member(ID=ids[who], name=who, peerURLs=tuple(sorted(urls)))
            for who, urls in initial_cluster.items()
        ),
        key=lambda member: member.ID,
    )
    return Identity(cluster_id(list(ids.values())), ids[name], tuple(members))

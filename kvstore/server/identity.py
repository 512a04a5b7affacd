"""Who is in this cluster? Ids that all members derive alike from the initial configuration.

A member's id is the first eight bytes of SHA-1 over its sorted peer URLs and the cluster token; the
cluster's id is that of the sorted member ids. No clock and no chance is in them, so members need
not talk before they agree.
"""

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from kvstore.errors import ConfigError, StateError
from kvstore.types import Member

BEGINNING_FORMAT = 3
RESTORED_FORMAT = 4
BEGINNING_FORMATS = (2, BEGINNING_FORMAT, RESTORED_FORMAT)


class Identity(msgspec.Struct, frozen=True):
    """This member, its cluster, and the members that the cluster started with, sorted by id.

    ``contacts`` are the members that one which joined later was told of: of those that the cluster
    started with none may be left.
    """

    cluster_id: int
    member_id: int
    members: tuple[Member, ...]
    contacts: tuple[Member, ...] = ()


class Beginning(msgspec.Struct, frozen=True, array_like=True):
    """What a log remembers of its member's first start: the ``bootstrap`` of its metadata.

    ``founders`` are those that the cluster started with, the same on every member: with them
    everybody's log and state begin alike, also those of members that joined later. ``contacts``
    are the members that such a one knows until the log tells it more. Format 3, a MessagePack
    array::

        [ 3, log id u64, name, [peer URL, ...], [founder, ...], [contact, ...] ]

    A member that was made from a backup has one thing more, and format 4: ``restored``, index and
    term of the snapshot that its log begins behind, [0, 0] otherwise. Format 2 was without
    contacts, format 1 the array of founders alone.
    """

    log_id: int
    name: str
    peer_urls: tuple[str, ...]
    founders: tuple[Member, ...]
    contacts: tuple[Member, ...] = ()
    restored: tuple[int, int] = (0, 0)

    def written(self) -> bytes:
        """The bytes."""
        rows = msgspec.structs.astuple(self)
        if self.restored == (0, 0):
            return msgspec.msgpack.encode((BEGINNING_FORMAT, *rows[:-1]))
        return msgspec.msgpack.encode((RESTORED_FORMAT, *rows))

    @classmethod
    def read(cls, data: bytes, own_id: int) -> "Beginning":
        """From the bytes, of any format; one of format 1 has no log id (0).

        Raises:
            StateError: They are of none.
        """
        try:
            rows = msgspec.msgpack.decode(data)
            if rows and rows[0] in BEGINNING_FORMATS:
                return msgspec.convert(rows[1:], cls)
            founders = msgspec.convert(rows, tuple[Member, ...])
        except (msgspec.DecodeError, msgspec.ValidationError, TypeError, LookupError) as error:
            raise StateError(f"the log does not say whose it is: {error}") from error
        own = [member for member in founders if own_id == member.ID]
        name, urls = (own[0].name, own[0].peerURLs) if own else ("", ())
        return cls(0, name, urls, founders)


def _first_eight_bytes(data: bytes) -> int:
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    # Zero stands for "nobody" in raft; SHA-1 yields it once in 2**64 clusters.
    return int.from_bytes(digest[:8], "big") or 1


def member_id(peer_urls: Sequence[str], token: str) -> int:
    """The id of the member that listens to its peers at these URLs.

    In the cluster with this token.
    """
    return _first_eight_bytes(("".join(sorted(peer_urls)) + token).encode())


def added_member_id(peer_urls: Sequence[str], unix_seconds: int) -> int:
    """The id of a member that is added to a running cluster: with the time, for one that had these
    URLs before must not come back.
    """
    return _first_eight_bytes(f"{''.join(sorted(peer_urls))}{unix_seconds}".encode())


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

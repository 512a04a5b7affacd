"""Ids that all members derive alike."""

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import ConfigError, StateError
from kvstore.server.identity import Beginning, cluster_id, derive, member_id
from kvstore.types import Member

CLUSTER = {
    "a": ("http://10.0.0.1:2380",),
    "b": ("http://10.0.0.2:2380", "http://10.1.0.2:2380"),
    "c": ("http://10.0.0.3:2380",),
}


def first_eight(data: bytes) -> int:
    return int.from_bytes(hashlib.sha1(data, usedforsecurity=False).digest()[:8], "big")


def test_ids_are_the_first_eight_bytes_of_sha_1() -> None:
    """As etcd derives them, so that the ids of a known configuration are known."""
    expected = first_eight(b"http://10.0.0.2:2380http://10.1.0.2:2380token")
    urls = ("http://10.1.0.2:2380", "http://10.0.0.2:2380")
    assert member_id(urls, "token") == expected
    assert cluster_id([9, 5]) == first_eight((5).to_bytes(8, "big") + (9).to_bytes(8, "big"))


@given(st.permutations(sorted(CLUSTER)))
def test_all_members_derive_the_same_whatever_the_order(names: list[str]) -> None:
    told = {name: tuple(reversed(CLUSTER[name])) for name in names}
    one = derive("a", CLUSTER, "token")
    other = derive(names[0], told, "token")
    assert (one.cluster_id, one.members) == (other.cluster_id, other.members)
    own = {member.name: member.ID for member in one.members}
    assert other.member_id == own[names[0]]
    assert [member.ID for member in one.members] == sorted(own.values())
    assert len(set(own.values())) == 3


def test_another_token_or_another_member_makes_another_cluster() -> None:
    base = derive("a", CLUSTER, "token")
    assert derive("a", CLUSTER, "other").cluster_id != base.cluster_id
    fewer = {name: urls for name, urls in CLUSTER.items() if name != "c"}
    assert derive("a", fewer, "token").cluster_id != base.cluster_id


def test_a_name_that_is_not_in_the_list_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'d' is not in --initial-cluster \(which has a, b, c\)"):
        derive("d", CLUSTER, "token")


def test_two_members_with_the_same_urls_are_refused() -> None:
    with pytest.raises(ConfigError, match="the same peer URLs"):
        derive("a", {"a": ("http://x:1",), "b": ("http://x:1",)}, "token")


def test_the_beginning_of_a_log_is_read_in_every_format() -> None:
    one, two = Member(1, "a", ("http://a:1",)), Member(2, "b", ("http://b:1",))
    beginning = Beginning(7, "b", ("http://b:1",), (one, two), (one,))
    assert Beginning.read(beginning.written(), 2) == beginning
    older = Beginning(7, "b", ("http://b:1",), (one, two))
    rows = msgspec.structs.astuple(older)[:-2]
    assert Beginning.read(msgspec.msgpack.encode((2, *rows)), 2) == older
    oldest = Beginning(0, "b", ("http://b:1",), (one, two))
    assert Beginning.read(msgspec.msgpack.encode((one, two)), 2) == oldest


def test_only_a_restored_member_has_the_newest_format() -> None:
    founded = Beginning(7, "b", ("http://b:1",), (Member(2, "b", ("http://b:1",)),))
    assert founded.written()[:2] == b"\x96\x03", "older versions read it"
    restored = msgspec.structs.replace(founded, restored=(300, 5))
    assert restored.written() == b"\x97\x04" + founded.written()[2:] + b"\x92\xcd\x01\x2c\x05"
    assert Beginning.read(restored.written(), 2) == restored


def test_the_beginning_of_a_log_of_a_format_to_come_is_refused() -> None:
    with pytest.raises(StateError, match="whose it is"):
        Beginning.read(msgspec.msgpack.encode((5, 7, "b", [], [])), 2)

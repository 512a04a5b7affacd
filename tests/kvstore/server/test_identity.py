"""Ids that all members derive alike."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import ConfigError
from kvstore.server.identity import cluster_id, derive, member_id

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

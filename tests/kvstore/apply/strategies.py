"""Commands at random: few keys, few leases, much overlap."""

from hypothesis import strategies as st

from kvstore.commands import LeaseExpire
from kvstore.types import (
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)

keys = st.sampled_from([b"a", b"ab", b"b", b"c", b"d"])
range_ends = st.sampled_from([b"", b"", b"\0", b"b", b"c", b"e"])
leases = st.sampled_from([1, 2, 3])
maybe_leases = st.sampled_from([0, 0, 1, 2])

plain_puts = st.builds(
    PutRequest, key=keys, value=st.binary(max_size=3), lease=maybe_leases, prev_kv=st.booleans()
)
keeping_puts = st.one_of(
    st.builds(PutRequest, key=keys, lease=maybe_leases, ignore_value=st.just(True)),
    st.builds(PutRequest, key=keys, value=st.binary(max_size=3), ignore_lease=st.just(True)),
)
puts = st.one_of(plain_puts, plain_puts, keeping_puts)
deletes = st.builds(DeleteRangeRequest, key=keys, range_end=range_ends, prev_kv=st.booleans())
ranges = st.builds(
    RangeRequest,
    key=keys,
    range_end=range_ends,
    limit=st.integers(0, 2),
    revision=st.sampled_from([0, 0, 0, -1, 2, 5, 40]),
    sort_order=st.integers(0, 2),
    keys_only=st.booleans(),
    count_only=st.booleans(),
)
numbers = st.integers(0, 6)
compares = st.one_of(
    st.builds(Compare, st.integers(0, 4), st.just(0), keys, version=numbers, range_end=range_ends),
    st.builds(Compare, st.integers(0, 3), st.just(1), keys, create_revision=numbers),
    st.builds(Compare, st.integers(0, 3), st.just(2), keys, mod_revision=numbers),
    st.builds(Compare, st.integers(0, 3), st.just(3), keys, value=st.binary(max_size=2)),
    st.builds(Compare, st.integers(0, 3), st.just(4), keys, lease=maybe_leases),
    st.builds(Compare, st.integers(0, 3), st.integers(0, 5), keys, range_end=range_ends),
)
operations = st.one_of(
    st.builds(RequestOp, request_put=puts),
    st.builds(RequestOp, request_delete_range=deletes),
    st.builds(RequestOp, request_range=ranges),
)


def _txns(branch):
    return st.builds(TxnRequest, st.lists(compares, max_size=2), branch, branch)


inner_txns = _txns(st.lists(operations, max_size=3))
txns = _txns(
    st.lists(st.one_of(operations, st.builds(RequestOp, request_txn=inner_txns)), max_size=4)
)
bodies = st.one_of(
    puts,
    puts,
    deletes,
    txns,
    txns,
    st.builds(CompactionRequest, revision=st.integers(-1, 12)),
    st.builds(LeaseGrantRequest, ID=leases, TTL=st.integers(-1, 9)),
    st.builds(LeaseRevokeRequest, ID=leases),
    st.builds(LeaseExpire, term=st.integers(1, 2), ids=st.lists(leases, max_size=3)),
)

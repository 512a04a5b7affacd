"""The hot answers by one format each: ``encode``'s bytes at a fraction of its cost.

Who answers does not change while a node runs, so that part of the header is bytes already.
"""

from binascii import b2a_base64
from typing import Final

from kvstore.api.v3_json.encode import encode
from kvstore.types import (
    DeleteRangeResponse,
    PutResponse,
    RangeResponse,
    ResponseHeader,
    TxnResponse,
)

_TAIL: Final = b'","raft_term":"%d"}'


class Prepared:
    """Encoders of the hot answers of one member.

    Args:
        cluster_id: of the member, not 0.
        member_id: of the member, not 0.
    """

    __slots__ = ("_cluster_id", "_decided", "_deleted", "_found", "_header", "_member_id")

    def __init__(self, cluster_id: int, member_id: int) -> None:
        assert cluster_id > 0, "a member without a cluster answers nobody"
        assert member_id > 0, "0 means no member"
        self._cluster_id = cluster_id
        self._member_id = member_id
        header = b'{"header":{"cluster_id":"%d","member_id":"%d","revision":"' % (
            cluster_id,
            member_id,
        )
        self._header = header + b"%d" + _TAIL + b"}"
        self._deleted = header + b"%d" + _TAIL + b',"deleted":"%d"}'
        self._decided = header + b"%d" + _TAIL + b',%b"responses":[%b]}'
        self._found = (
            header
            + b"%d"
            + _TAIL
            + b',"kvs":[{"key":"%b","create_revision":"%d","mod_revision":"%d","version":"%d",'
            b'"value":"%b"}],"count":"1"}'
        )

    def _is_ours(self, header: ResponseHeader | None) -> bool:
        return (
            header is not None
            and header.member_id == self._member_id
            and header.cluster_id == self._cluster_id
            and header.revision > 0
            and header.raft_term > 0
        )

    def put(self, response: PutResponse) -> bytes:
        """The answer to a put."""
        header = response.header
        if header is None or response.prev_kv is not None or not self._is_ours(header):
            return encode(response)
        return self._header % (header.revision, header.raft_term)

    def delete_range(self, response: DeleteRangeResponse) -> bytes:
        """The answer to a delete."""
        header = response.header
        if (
            header is None
            or response.prev_kvs
            or response.deleted <= 0
            or not self._is_ours(header)
        ):
            return encode(response)
        return self._deleted % (header.revision, header.raft_term, response.deleted)

    def txn(self, response: TxnResponse) -> bytes:
        """The answer to a transaction: prepared where it put things, and nothing else."""
        header = response.header
        if header is None or not self._is_ours(header) or not response.responses:
            return encode(response)
        puts = []
        for op in response.responses:
            put = op.response_put
            inner = put.header if put is not None and put.prev_kv is None else None
            if inner is None or inner != ResponseHeader(revision=max(inner.revision, 1)):
                return encode(response)
            puts.append(b'{"response_put":{"header":{"revision":"%d"}}}' % inner.revision)
        succeeded = b'"succeeded":true,' if response.succeeded else b""
        return self._decided % (header.revision, header.raft_term, succeeded, b",".join(puts))

    def range(self, response: RangeResponse) -> bytes:
        """The answer to a range: prepared where it found one key, or none."""
        header = response.header
        if header is None or not self._is_ours(header) or response.more:
            return encode(response)
        if not response.kvs and not response.count:
            return self._header % (header.revision, header.raft_term)
        if len(response.kvs) != 1 or response.count != 1:
            return encode(response)
        item = response.kvs[0]
        if item.lease or not (item.key and item.value and item.version and item.create_revision):
            return encode(response)
        return self._found % (
            header.revision,
            header.raft_term,
            b2a_base64(item.key, newline=False),
            item.create_revision,
            item.mod_revision,
            item.version,
            b2a_base64(item.value, newline=False),
        )

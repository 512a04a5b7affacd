"""How large is a request? Measured as etcd measures it.

On the protobuf encoding of the replicated request.
"""

from kvstore.errors import Code, ErrorKind, KvError
from kvstore.types import DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest

ENVELOPE_BYTES = 17
"""What etcd's replicated envelope adds to a request.

Its own id and the field around the request.
"""

PUT_FRAMING_BYTES_MAX = 64
"""More than what a put is encoded to, in that envelope, has beyond its key and its value."""

RECEIVE_MARGIN_BYTES = 512 * 1024
"""What etcd's gRPC server takes in beyond the largest request, before it looks what it is."""


def too_large(size_bytes: int, request_bytes_max: int) -> KvError:
    """Why a request of this size is refused: by its own limit, or as gRPC would beyond that."""
    receive_bytes_max = request_bytes_max + RECEIVE_MARGIN_BYTES
    if size_bytes <= receive_bytes_max:
        return ErrorKind.REQUEST_TOO_LARGE.error()
    return not_received(size_bytes, receive_bytes_max)


def not_received(size_bytes: int, bytes_max: int) -> KvError:
    """How gRPC refuses what it does not even look at."""
    words = f"grpc: received message larger than max ({size_bytes} vs. {bytes_max})"
    return KvError(Code.RESOURCE_EXHAUSTED, words)


def _field(length: int) -> int:
    """Bytes of a length-delimited field: tag, length as a varint, content; nothing if empty."""
    if not length:
        return 0
    return 1 + (length.bit_length() + 6) // 7 + length


def put_bytes(request: PutRequest) -> int:
    """Encoded size of a put."""
    flags = 2 * (request.prev_kv + request.ignore_value + request.ignore_lease)
    lease = 10 if request.lease else 0
    return _field(len(request.key)) + _field(len(request.value)) + lease + flags


def _range_bytes(request: RangeRequest | DeleteRangeRequest) -> int:
    return _field(len(request.key)) + _field(len(request.range_end)) + 4


def _op_bytes(op: RequestOp) -> int:
    size = 0
    if op.request_put is not None:
        size += _field(put_bytes(op.request_put))
    if op.request_range is not None:
        size += _field(_range_bytes(op.request_range))
    if op.request_delete_range is not None:
        size += _field(_range_bytes(op.request_delete_range))
    if op.request_txn is not None:
        size += _field(txn_bytes(op.request_txn))
    return size


def txn_bytes(request: TxnRequest) -> int:
    """Encoded size of a transaction, both branches and all that is nested in them."""
    size = 0
    for compare in request.compare:
        value = len(compare.value) if compare.value is not None else 8
        size += _field(
            _field(len(compare.key)) + _field(len(compare.range_end)) + _field(value) + 4
        )
    for op in (*request.success, *request.failure):
        size += _field(_op_bytes(op))
    return size

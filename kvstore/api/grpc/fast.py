"""The hot requests in the shape in which clients write them; any other is ``decode``'s business."""

from kvstore.api.grpc.decode import decode
from kvstore.types import DeleteRangeRequest, LeaseKeepAliveRequest, PutRequest, RangeRequest

_KEY, _VALUE, _SERIALIZABLE, _ID = b"\x0a\x12\x38\x08"
"""Tags: field 1 and 2 of wire type 2, field 7 and 1 of wire type 0."""


def decode_put(data: bytes) -> PutRequest:
    """A put: by its key and a value of less than 16 KiB, if that is all there is.

    Raises:
        Malformed: it is none.
    """
    try:
        at = data[1] + 2
        if data[0] == _KEY and at < 130 and data[at] == _VALUE:
            length = data[at + 1]
            start = at + 2
            is_short = length < 128
            if not is_short:
                # Two bytes at most: any other is as long as ``decode`` finds it.
                is_short = data[start] < 128
                length = length & 127 | data[start] << 7
                start += 1
            if is_short and start + length == len(data):
                return PutRequest(data[2:at], data[start:])
    except IndexError:
        pass
    return decode(PutRequest, data)


def decode_range(data: bytes) -> RangeRequest:
    """A range: by its key, and whether it is serializable, if that is all there is.

    Raises:
        Malformed: it is none.
    """
    size = len(data)
    if size > 2 and data[0] == _KEY:
        length = data[1]
        # A length of one byte, as any other is over 127.
        if length < 128:
            if length + 2 == size:
                return RangeRequest(data[2:])
            if length + 4 == size and data[-2] == _SERIALIZABLE and data[-1] == 1:
                return RangeRequest(data[2:-2], serializable=True)
    return decode(RangeRequest, data)


def decode_delete_range(data: bytes) -> DeleteRangeRequest:
    """A delete: by its key, if that is all there is.

    Raises:
        Malformed: it is none.
    """
    if len(data) > 2 and data[0] == _KEY and data[1] < 128 and data[1] + 2 == len(data):
        return DeleteRangeRequest(data[2:])
    return decode(DeleteRangeRequest, data)


def decode_keep_alive(data: bytes) -> LeaseKeepAliveRequest:
    """A keep-alive: by the lease, whose number is a long one mostly.

    Raises:
        Malformed: it is none.
    """
    size = len(data)
    if 2 < size <= 10 and data[0] == _ID and data[-1] < 128 and min(data[1:-1]) > 127:
        # Nine groups of seven bits at most: it is not negative, and nothing is to be cut off.
        number = 0
        for byte in data[:0:-1]:
            number = number << 7 | byte & 127
        return LeaseKeepAliveRequest(number)
    return decode(LeaseKeepAliveRequest, data)

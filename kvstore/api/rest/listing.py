"""A listing of keys as JSON for people: text where bytes are text, base64 where they are not."""

from collections.abc import Iterator
from typing import Final

import msgspec

from kvstore.api.v3_json import base64
from kvstore.api.v3_json.encode import SLICE_BYTES, SLICE_RECORDS
from kvstore.types import KeyValue, RangeResponse

_json: Final = msgspec.json.Encoder().encode


def listing(response: RangeResponse, limit: int, *, keys_only: bool) -> Iterator[bytes]:
    """The listing, in slices of bounded work.

    Args:
        response: one more record than ``limit``, if there are more; it only names the next page.
        limit: records to show; 0: all.
        keys_only: leave values and leases out.
    """
    assert response.header is not None, "the service fills in the header"
    items = response.kvs
    following = items[limit].key if limit and len(items) > limit else None
    head = b'{"revision":%d,"count":%d,"more":%b' % (
        response.header.revision,
        response.count,
        b"true" if following is not None else b"false",
    )
    if following is not None:
        head += b"," + _bytes("next", following)
    yield head + b',"kvs":['
    waiting: list[bytes] = []
    size = 0
    comma = b""
    for item in items[:limit] if limit else items:
        record = _record(item, keys_only)
        waiting.append(comma + record)
        size += len(record)
        comma = b","
        if len(waiting) >= SLICE_RECORDS or size >= SLICE_BYTES:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    yield b"".join(waiting) + b"]}\n"


def _record(item: KeyValue, keys_only: bool) -> bytes:
    record = b'{%b,"version":%d,"create_revision":%d,"mod_revision":%d' % (
        _bytes("key", item.key),
        item.version,
        item.create_revision,
        item.mod_revision,
    )
    if keys_only:
        # Such a read knows neither values nor leases.
        return record + b"}"
    # A lease's id uses all 63 bits: as a number, JavaScript would round it.
    lease = b',"lease":"%d"' % item.lease if item.lease else b""
    return record + b"%b,%b}" % (lease, _bytes("value", item.value))


def _bytes(name: str, value: bytes) -> bytes:
    try:
        return b'"%b":%b' % (name.encode(), _json(value.decode()))
    except UnicodeDecodeError:
        return b'"%b_base64":"%b"' % (name.encode(), base64.encode(value))

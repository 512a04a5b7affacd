"""The bytes of entries, configurations and messages. Everything here is little endian.

An entry, on the disk and between peers alike (``ENTRY_HEADER_BYTES`` = 24, then the data)::

      0        4      5          8               16              24
      +--------+------+----------+---------------+---------------+----------~
      | crc32c | kind | 0   0  0 | term          | index         | data
      | u32    | u8   |          | u64           | u64           |
      +--------+------+----------+---------------+---------------+----------~

The CRC32C covers everything that follows it, so that neither a disk nor a peer can hand back an
entry under another index or term. It is made once, where the entry is made, and checked wherever
the entry comes in.

A message is one MessagePack array: the message's tag, then its fields in the order of
``raft/messages.py``::

      [tag, sender, receiver, term, ...]

``AppendEntries`` carries its entries as the very bytes above. A ``SnapshotMeta`` is the array
``[index, term, configuration]``, a ``Configuration`` the array of its four arrays of node ids.
"""

import struct
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import google_crc32c
import msgspec

from raft.errors import CodecError
from raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    Envelope,
    ForwardProposals,
    ForwardRejected,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    ReadIndexReply,
    ReadIndexRequest,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raft.types import (
    ENTRY_HEADER_BYTES,
    Configuration,
    Entry,
    EntryKind,
    Index,
    NodeId,
    Proposal,
    SnapshotMeta,
    Term,
)

INTEGER_MAX: Final = 2**63 - 1
"""No term, index or number may exceed it: every language can hold it."""

NODE_ID_MAX: Final = 2**64 - 1
"""Node ids are etcd's member ids: the whole range of an unsigned integer."""

_AFTER_CRC: Final = struct.Struct("<B3xQQ")
_CRC: Final = struct.Struct("<I")
_HEADER: Final = struct.Struct("<IB3sQQ")
_PADDING: Final = b"\0\0\0"
# Indexed by the byte in the header: calling the enum costs five times as much.
_KINDS: Final = tuple(EntryKind)
_pack_after_crc = _AFTER_CRC.pack
_pack_crc = _CRC.pack
_unpack_header = _HEADER.unpack_from
_crc32c: Callable[[bytes], int] = google_crc32c.value


class _AppendEntriesFrame(Envelope, frozen=True, array_like=True, tag=3):
    prev_index: Index
    prev_term: Term
    commit_index: Index
    entries: list[bytes]


class _InstallSnapshotFrame(Envelope, frozen=True, array_like=True, tag=7):
    meta: tuple[Index, Term, Configuration] | None = None


class _ForwardProposalsFrame(Envelope, frozen=True, array_like=True, tag=9):
    # Only commands are forwarded, so their kind does not travel: a peer cannot smuggle in a
    # configuration past the checks of ProposeMembership.
    proposals: list[tuple[int, bytes]]


_Frame: TypeAlias = (
    RequestVote
    | RequestVoteReply
    | _AppendEntriesFrame
    | AppendEntriesReply
    | Heartbeat
    | HeartbeatReply
    | _InstallSnapshotFrame
    | TimeoutNow
    | _ForwardProposalsFrame
    | ForwardRejected
    | ReadIndexRequest
    | ReadIndexReply
)

_encode = msgspec.msgpack.Encoder().encode
_decode_frame = msgspec.msgpack.Decoder(_Frame).decode
_decode_configuration = msgspec.msgpack.Decoder(Configuration).decode

# The integer fields of each frame, beyond sender and receiver; none may be negative or too large.
_INTEGER_FIELDS: Final[dict[type[Any], tuple[str, ...]]] = {
    frame: tuple(
        field.name
        for field in msgspec.structs.fields(frame)
        if field.name not in {"sender", "receiver"}
        and (field.type is int or getattr(field.type, "__supertype__", None) is int)
    )
    for frame in _Frame.__args__
}


def encode_entry(index: Index, term: Term, kind: EntryKind, data: bytes) -> Entry:
    """Make an entry, its bytes and their checksum.

    Args:
        index: Its place in the log, from 1.
        term: The term of the leader that makes it.
        kind: What ``data`` means to Raft.
        data: A command, an encoded ``Configuration``, or nothing.

    Returns:
        The entry, ready for disk and peers.
    """
    body = _pack_after_crc(kind, term, index) + data
    return Entry(index, term, kind, _pack_crc(_crc32c(body)) + body)


def decode_entry(encoded: bytes) -> Entry:
    """Read an entry back, checking it.

    Raises:
        CodecError: Too short, of an unknown kind, out of range, or the checksum does not match.
    """
    if len(encoded) < ENTRY_HEADER_BYTES:
        raise CodecError(f"an entry has at least {ENTRY_HEADER_BYTES} bytes, not {len(encoded)}")
    crc, kind, padding, term, index = _unpack_header(encoded)
    # bytes, not a memoryview: the C implementation takes nothing else.
    if _crc32c(encoded[4:]) != crc:
        raise CodecError(f"the checksum of the entry that says index {index} does not match")
    if kind >= len(_KINDS) or padding != _PADDING:
        raise CodecError(f"entry {index} is of unknown kind {kind}, padding {padding!r}")
    if not 0 < index <= INTEGER_MAX or not 0 < term <= INTEGER_MAX:
        raise CodecError(f"an entry's index and term must be positive, not {index} and {term}")
    return Entry(index, term, _KINDS[kind], encoded)


def encode_configuration(configuration: Configuration) -> bytes:
    """The data of a CONFIGURATION entry."""
    return _encode(configuration)


def decode_configuration(data: bytes) -> Configuration:
    """Read a configuration back.

    Raises:
        CodecError: Malformed, unsorted, without voters, or with an id that is not positive.
    """
    try:
        configuration = _decode_configuration(data)
    except msgspec.MsgspecError as error:
        raise CodecError(f"not a configuration: {error}") from error
    _check_configuration(configuration)
    return configuration


def encode_message(message: Message) -> bytes:
    """A message's bytes for the wire; framing is the link's matter."""
    if type(message) is AppendEntries:
        return _encode(
            _AppendEntriesFrame(
                message.sender,
                message.receiver,
                message.term,
                message.prev_index,
                message.prev_term,
                message.commit_index,
                [entry.encoded for entry in message.entries],
            )
        )
    if type(message) is ForwardProposals:
        pairs = [(proposal.token, proposal.data) for proposal in message.proposals]
        return _encode(
            _ForwardProposalsFrame(message.sender, message.receiver, message.term, pairs)
        )
    if type(message) is InstallSnapshot:
        meta = message.meta
        row = None if meta is None else (meta.index, meta.term, meta.configuration)
        return _encode(_InstallSnapshotFrame(message.sender, message.receiver, message.term, row))
    return _encode(message)


def decode_message(data: bytes) -> Message:
    """Read a peer's message, checking all that can be checked without knowing the node's state.

    An ``AppendEntries`` holds entries that follow ``prev_index`` without a gap, whose terms never
    decrease and never exceed the sender's, and whose configurations can be read: whoever handles it
    may rely on that.

    Raises:
        CodecError: Anything malformed; the connection it came from should be closed.
    """
    try:
        frame: _Frame = _decode_frame(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CodecError(f"not a message: {error}") from error
    if not 0 < frame.sender <= NODE_ID_MAX or not 0 < frame.receiver <= NODE_ID_MAX:
        raise CodecError(f"no node ids: sender {frame.sender}, receiver {frame.receiver}")
    for name in _INTEGER_FIELDS[type(frame)]:
        if not 0 <= getattr(frame, name) <= INTEGER_MAX:
            raise CodecError(f"{type(frame).__name__}.{name} is out of range")
    if isinstance(frame, _AppendEntriesFrame):
        return _append_entries(frame)
    if isinstance(frame, _ForwardProposalsFrame):
        proposals = tuple([Proposal(token, payload) for token, payload in frame.proposals])
        return ForwardProposals(frame.sender, frame.receiver, frame.term, proposals)
    if isinstance(frame, _InstallSnapshotFrame):
        return _install_snapshot(frame)
    return frame


def _append_entries(frame: _AppendEntriesFrame) -> AppendEntries:
    expected = frame.prev_index
    term = frame.prev_term
    entries = [decode_entry(encoded) for encoded in frame.entries]
    for entry in entries:
        expected += 1  # type: ignore[assignment]  # a NewType's sum is a plain int
        if entry.index != expected or entry.term < term:
            raise CodecError(
                f"entry ({entry.index}, term {entry.term}) cannot follow"
                f" ({expected - 1}, term {term})"
            )
        if entry.kind is EntryKind.CONFIGURATION:
            # Here, so that a node that appends it finds nothing wrong halfway.
            decode_configuration(entry.data)
        term = entry.term
    if term > frame.term:
        raise CodecError(f"an entry of term {term} in a message of term {frame.term}")
    return AppendEntries(
        frame.sender,
        frame.receiver,
        frame.term,
        frame.prev_index,
        frame.prev_term,
        frame.commit_index,
        tuple(entries),
    )


def _install_snapshot(frame: _InstallSnapshotFrame) -> InstallSnapshot:
    if frame.meta is None:
        return InstallSnapshot(frame.sender, frame.receiver, frame.term)
    index, term, configuration = frame.meta
    if not 0 <= index <= INTEGER_MAX or not 0 <= term <= frame.term:
        raise CodecError(f"a snapshot of index {index}, term {term} in term {frame.term}")
    _check_configuration(configuration)
    meta = SnapshotMeta(index, term, configuration)
    return InstallSnapshot(frame.sender, frame.receiver, frame.term, meta)


def _check_configuration(configuration: Configuration) -> None:
    if not configuration.voters:
        raise CodecError("a configuration needs a voter")
    for ids in (
        configuration.voters,
        configuration.voters_outgoing,
        configuration.learners,
        configuration.learners_next,
    ):
        _check_ids(ids)


def _check_ids(ids: tuple[NodeId, ...]) -> None:
    before = 0
    for node_id in ids:
        if not before < node_id <= NODE_ID_MAX:
            raise CodecError(f"node ids must be positive, rising and unique, not {ids}")
        before = node_id

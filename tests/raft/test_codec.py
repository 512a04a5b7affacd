"""The bytes of entries, configurations and messages."""

# Ids, terms and indexes are written as plain numbers here.
# mypy: disable-error-code="arg-type,assignment"

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.codec import (
    INTEGER_MAX,
    decode_configuration,
    decode_entry,
    decode_message,
    encode_configuration,
    encode_entry,
    encode_message,
)
from raft.errors import CodecError
from raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    ForwardProposals,
    ForwardRejected,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    ReadIndexReply,
    ReadIndexRequest,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raft.types import Configuration, EntryKind, Proposal, SnapshotMeta

from .lab import entry

JOINT = Configuration((1, 2, 3), voters_outgoing=(1, 4), learners=(5,), learners_next=(4,))

GOLDEN_ENTRY = encode_entry(300, 7, EntryKind.COMMAND, b"put")

GOLDEN_MESSAGES = [
    (RequestVote(1, 2, 9, 300, 7, pre_vote=True), "9801010209cd012c07c3c2"),
    (RequestVoteReply(2, 1, 9, granted=True), "9602020109c3c2"),
    (
        AppendEntries(1, 2, 9, 299, 7, 298, (GOLDEN_ENTRY,)),
        "9803010209cd012b07cd012a91c41b677a31ee0000000007000000000000002c01000000000000707574",
    ),
    (AppendEntriesReply(2, 1, 9, accepted=True, match_index=300), "9a04020109c3cd012c00000000"),
    (Heartbeat(1, 2, 9, 299, 4), "9605010209cd012b04"),
    (HeartbeatReply(2, 1, 9, 4), "950602010904"),
    (InstallSnapshot(1, 2, 9), "9507010209c0"),
    (
        InstallSnapshot(1, 2, 9, SnapshotMeta(300, 7, JOINT)),
        "950701020993cd012c07949301020392010491059104",
    ),
    (TimeoutNow(1, 2, 9), "9408010209"),
    (ForwardProposals(2, 1, 9, (Proposal(77, b"put"),)), "950902010991924dc403707574"),
    (ForwardRejected(1, 2, 9, (77, 78), 4), "960a010209924d4e04"),
    (ReadIndexRequest(2, 1, 9, 41), "950b02010929"),
    (ReadIndexReply(1, 2, 9, 41, 300), "970c01020929cd012cc3"),
]


def test_golden_entry():
    # crc32c, kind and padding, term, index, data
    golden = "677a31ee0000000007000000000000002c01000000000000707574"
    assert GOLDEN_ENTRY.encoded.hex() == golden
    assert GOLDEN_ENTRY.data == b"put"


@pytest.mark.parametrize(("message", "golden"), GOLDEN_MESSAGES)
def test_golden_messages(message, golden):
    assert encode_message(message).hex() == golden
    assert decode_message(bytes.fromhex(golden)) == message


def test_golden_configuration():
    assert encode_configuration(JOINT).hex() == "949301020392010491059104"
    assert decode_configuration(bytes.fromhex("949301020392010491059104")) == JOINT


numbers = st.integers(0, INTEGER_MAX)
ids = st.integers(1, INTEGER_MAX)
some_ids = st.lists(ids, unique=True, max_size=5).map(lambda each: tuple(sorted(each)))
configurations = st.builds(Configuration, some_ids.filter(bool), some_ids, some_ids, some_ids)


contents = st.one_of(
    st.tuples(st.sampled_from([EntryKind.COMMAND, EntryKind.NOOP]), st.binary(max_size=40)),
    st.tuples(st.just(EntryKind.CONFIGURATION), configurations.map(encode_configuration)),
)


@st.composite
def appends(draw):
    prev_index = draw(st.integers(0, 2**40))
    terms = sorted(draw(st.lists(st.integers(1, 2**40), max_size=6)))
    prev_term = draw(st.integers(0, terms[0] if terms else 9))
    term = draw(st.integers(max([prev_term, *terms]), INTEGER_MAX))
    entries = tuple(
        encode_entry(index, each, *draw(contents))
        for index, each in enumerate(terms, prev_index + 1)
    )
    return AppendEntries(draw(ids), draw(ids), term, prev_index, prev_term, draw(numbers), entries)


snapshots = st.builds(
    lambda sender, receiver, term, index, behind, configuration: InstallSnapshot(
        sender, receiver, term, SnapshotMeta(index, max(0, term - behind), configuration)
    ),
    ids,
    ids,
    numbers,
    numbers,
    st.integers(0, 10),
    configurations,
)
proposals = st.builds(Proposal, st.integers(0, INTEGER_MAX), st.binary(max_size=60))
messages = st.one_of(
    appends(),
    snapshots,
    st.builds(RequestVote, ids, ids, numbers, numbers, numbers, st.booleans(), st.booleans()),
    st.builds(RequestVoteReply, ids, ids, numbers, st.booleans(), st.booleans()),
    st.builds(AppendEntriesReply, ids, ids, numbers, st.booleans(), *[numbers] * 5),
    st.builds(Heartbeat, ids, ids, numbers, numbers, numbers),
    st.builds(HeartbeatReply, ids, ids, numbers, numbers),
    st.builds(TimeoutNow, ids, ids, numbers),
    st.builds(ForwardProposals, ids, ids, numbers, st.lists(proposals, max_size=4).map(tuple)),
    st.builds(
        ForwardRejected, ids, ids, numbers, st.lists(numbers, max_size=4).map(tuple), numbers
    ),
    st.builds(ReadIndexRequest, ids, ids, numbers, numbers),
    st.builds(ReadIndexReply, ids, ids, numbers, numbers, numbers, st.booleans()),
)


@given(messages)
def test_messages_survive_the_wire(message):
    assert decode_message(encode_message(message)) == message


@given(ids, ids, st.sampled_from(EntryKind), st.binary(max_size=300))
def test_entries_survive_disk_and_wire(index, term, kind, data):
    made = encode_entry(index, term, kind, data)
    read = decode_entry(made.encoded)
    assert read == made
    assert read.data == data


@given(configurations)
def test_configurations_survive(configuration):
    assert decode_configuration(encode_configuration(configuration)) == configuration


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_codec_error(data):
    for decode in (decode_message, decode_entry, decode_configuration):
        try:
            decode(data)
        except CodecError:
            continue


@given(messages, st.data())
def test_damaged_messages_raise_nothing_but_codec_error(message, data):
    encoded = bytearray(encode_message(message))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(encoded)))
    for damaged in (bytes(encoded), bytes(encoded[:cut])):
        try:
            decode_message(damaged)
        except CodecError:
            continue


@given(st.binary(max_size=100), st.data())
def test_any_flipped_bit_of_an_entry_is_noticed(payload, data):
    encoded = bytearray(encode_entry(5, 2, EntryKind.COMMAND, payload).encoded)
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CodecError):
        decode_entry(bytes(encoded))


def test_an_entry_of_zeros_is_none():
    # The CRC32C of zeros is not zero once there is something to sum: a hole in a file cannot pass.
    with pytest.raises(CodecError, match="checksum"):
        decode_entry(bytes(64))


def append_of(*entries, prev=(4, 2), term=3):
    return encode_message(AppendEntries(1, 2, term, prev[0], prev[1], 0, entries))


@pytest.mark.parametrize(
    ("encoded", "complaint"),
    [
        (append_of(entry(6, 2)), "cannot follow"),
        (append_of(entry(5, 2), entry(7, 2)), "cannot follow"),
        (append_of(entry(5, 1)), "cannot follow"),
        (append_of(entry(5, 3), entry(6, 2)), "cannot follow"),
        (append_of(entry(5, 4)), "term 4 in a message of term 3"),
        (append_of(encode_entry(5, 3, EntryKind.CONFIGURATION, b"?")), "not a configuration"),
        (encode_message(TimeoutNow(0, 2, 9)), "node ids"),
        (encode_message(TimeoutNow(1, -2, 9)), "node ids"),
        (encode_message(TimeoutNow(1, 2, -9)), "TimeoutNow.term"),
        (encode_message(Heartbeat(1, 2, 9, 2**63, 1)), "Heartbeat.commit_index"),
        (encode_message(InstallSnapshot(1, 2, 9, SnapshotMeta(3, 10, JOINT))), "snapshot"),
        (
            encode_message(InstallSnapshot(1, 2, 9, SnapshotMeta(3, 9, Configuration(())))),
            "voter",
        ),
        (b"\xc1", "not a message"),
        (b"\x94\x63\x01\x02\x09", "not a message"),
    ],
)
def test_a_message_that_no_peer_can_mean_is_refused(encoded, complaint):
    with pytest.raises(CodecError, match=complaint):
        decode_message(encoded)


@pytest.mark.parametrize(
    "configuration",
    [Configuration(()), Configuration((2, 1)), Configuration((1, 1)), Configuration((0, 1))],
)
def test_a_configuration_that_cannot_be_is_refused(configuration):
    with pytest.raises(CodecError):
        decode_configuration(encode_configuration(configuration))


def test_a_forwarded_proposal_is_always_a_command():
    forged = ForwardProposals(2, 1, 9, (Proposal(1, b"x", EntryKind.CONFIGURATION),))
    arrived = decode_message(encode_message(forged))
    assert isinstance(arrived, ForwardProposals)
    assert arrived.proposals[0].kind is EntryKind.COMMAND

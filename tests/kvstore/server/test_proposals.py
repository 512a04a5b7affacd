"""Writes on their way: bounded, sent again under the same id, and answered exactly once."""

from typing import Any

from kvstore.apply import Outcome
from kvstore.auth.identity import NOBODY, Identity
from kvstore.commands import SYSTEM_AUTH_REVISION, Kind, decode, decode_body
from kvstore.errors import ErrorKind, KvError, UnknownOutcomeError
from kvstore.server.proposals import RESEND_TICKS_MAX, Proposals
from kvstore.types import PutRequest, PutResponse
from raft.effects import Rejected
from raft.errors import RejectReason
from raft.types import NO_NODE

MEMBER = 7
INCARNATION = 3
ELECTION_TICKS = 10
FAR = 1000.0


class Desk:
    """Proposals, and everything that was told to those who wait."""

    def __init__(
        self,
        count_max: int = 100,
        bytes_max: int = 1 << 20,
        election_ticks: int = ELECTION_TICKS,
    ) -> None:
        self.wakes = 0
        self.answers: list[tuple[int, Any]] = []
        self.proposals = Proposals(
            MEMBER,
            INCARNATION,
            wake=self._wake,
            election_ticks=election_ticks,
            count_max=count_max,
            bytes_max=bytes_max,
            first_sequence=0,
        )

    def _wake(self) -> None:
        self.wakes += 1

    def submit(
        self,
        number: int,
        deadline: float = FAR,
        *,
        internal: bool = False,
        once: bool = False,
        identity: Identity = NOBODY,
    ) -> None:
        self.proposals.submit(
            Kind.PUT,
            PutRequest(b"%d" % number, bytes(100)),
            lambda answer: self.answers.append((number, answer)),
            deadline,
            internal=internal,
            once=once,
            identity=identity,
        )

    def sent(self) -> list[int]:
        """Sequence numbers that the driver would propose now."""
        return [proposal.token for proposal in self.proposals.take_unsent()]

    def tick(self, times: int = 1, now: float = 0.0) -> None:
        for _ in range(times):
            self.proposals.tick(now)

    def reject(self, sequence: int, reason: RejectReason) -> None:
        self.proposals.reject(Rejected(sequence, reason, NO_NODE))


def outcome(sequence: int, member: int = MEMBER, incarnation: int = INCARNATION) -> Outcome:
    return Outcome(member, incarnation, sequence, sequence, PutResponse(), 2)


def test_a_command_carries_its_name_and_the_low_watermark() -> None:
    desk = Desk()
    desk.submit(1)
    desk.submit(2)
    first, second = desk.proposals.take_unsent()
    desk.proposals.resolve(outcome(1))
    desk.submit(3)
    third = desk.proposals.take_unsent()[0]
    marks = []
    for proposal in (first, second, third):
        command = decode(proposal.data)
        assert (command.member, command.incarnation) == (MEMBER, INCARNATION)
        assert command.sequence == proposal.token
        assert decode_body(command) == PutRequest(b"%d" % proposal.token, bytes(100))
        marks.append(command.low_watermark)
    # The oldest that may still be sent again: nothing below it ever will.
    assert marks == [1, 1, 2]


def test_an_outcome_answers_its_own_proposal_once() -> None:
    desk = Desk()
    desk.submit(1)
    desk.proposals.resolve(outcome(1, member=MEMBER + 1))
    desk.proposals.resolve(outcome(1, incarnation=INCARNATION - 1))
    assert desk.answers == []
    desk.proposals.resolve(outcome(1))
    desk.proposals.resolve(outcome(1))
    assert desk.answers == [(1, outcome(1))]
    assert len(desk.proposals) == 0
    assert desk.proposals.bytes_waiting == 0


def test_the_limit_of_proposals_holds_for_clients_only() -> None:
    desk = Desk(count_max=2)
    for number in (1, 2, 3):
        desk.submit(number)
    assert desk.answers == [(3, ErrorKind.TOO_MANY_REQUESTS.error())]
    assert not isinstance(desk.answers[0][1], UnknownOutcomeError)
    desk.submit(4, internal=True)
    assert len(desk.proposals) == 3
    assert desk.proposals.refused_total == 1
    desk.proposals.resolve(outcome(1))
    desk.proposals.resolve(outcome(3))
    desk.submit(5)
    assert len(desk.proposals) == 2


def test_the_limit_of_bytes_holds_for_clients_only() -> None:
    desk = Desk(bytes_max=200)
    for number in (1, 2, 3):
        desk.submit(number)
    assert desk.answers == [(3, ErrorKind.TOO_MANY_REQUESTS.error())]
    desk.submit(4, internal=True)
    assert len(desk.proposals) == 3


def test_without_an_answer_it_is_sent_again_ever_more_rarely() -> None:
    desk = Desk()
    desk.proposals.on_leader(known=True, here=False)
    desk.submit(1)
    assert desk.sent() == [1]
    sent_at = []
    for tick in range(1, 300):
        desk.tick()
        if desk.sent():
            sent_at.append(tick)
    pauses = [later - earlier for earlier, later in zip([0, *sent_at], sent_at, strict=False)]
    assert pauses == [10, 20, 40, *[RESEND_TICKS_MAX] * (len(pauses) - 3)]
    assert desk.proposals.resent_total == len(sent_at)


def test_without_a_leader_nothing_is_sent_again_until_there_is_one() -> None:
    desk = Desk()
    desk.submit(1)
    assert desk.sent() == [1]
    desk.tick(50)
    assert desk.sent() == []
    desk.proposals.on_leader(known=True, here=False)
    assert desk.sent() == [1]
    desk.proposals.on_leader(known=False, here=False)
    assert desk.sent() == []


def test_a_change_of_leader_sends_each_once() -> None:
    desk = Desk()
    desk.submit(1)
    desk.submit(2)
    desk.proposals.on_leader(known=True, here=False)
    assert desk.sent() == [1, 2], "those not sent yet are not sent twice"


def test_rejected_for_want_of_a_leader_it_waits_and_did_not_happen() -> None:
    desk = Desk()
    desk.submit(1, deadline=5.0)
    desk.sent()
    desk.reject(1, RejectReason.NO_LEADER)
    desk.tick(now=5.0)
    ((_, answer),) = desk.answers
    assert answer == ErrorKind.DEADLINE_EXCEEDED.error()
    assert not isinstance(answer, UnknownOutcomeError)


def test_rejected_after_an_earlier_sending_its_outcome_is_unknown() -> None:
    desk = Desk()
    desk.submit(1, deadline=5.0)
    desk.sent()
    desk.proposals.on_leader(known=True, here=False)
    desk.sent()
    desk.reject(1, RejectReason.NO_LEADER)
    desk.tick(now=5.0)
    ((_, answer),) = desk.answers
    assert isinstance(answer, UnknownOutcomeError)


def test_a_timeout_after_sending_is_an_unknown_outcome() -> None:
    desk = Desk()
    desk.proposals.on_leader(known=True, here=False)
    desk.submit(1, deadline=5.0)
    desk.submit(2, deadline=9.0)
    desk.sent()
    desk.tick(now=4.9)
    assert desk.answers == []
    desk.tick(now=5.0)
    ((number, answer),) = desk.answers
    assert number == 1
    assert answer == ErrorKind.TIMEOUT.error()
    assert isinstance(answer, UnknownOutcomeError)
    desk.proposals.resolve(outcome(1))
    assert len(desk.answers) == 1, "whoever gave up is not answered again"
    assert len(desk.proposals) == 1


def test_too_large_a_proposal_fails_for_good() -> None:
    desk = Desk()
    desk.submit(1)
    desk.sent()
    desk.reject(1, RejectReason.TOO_LARGE)
    assert desk.answers == [(1, ErrorKind.REQUEST_TOO_LARGE.error())]
    desk.reject(1, RejectReason.TOO_LARGE)
    assert len(desk.answers) == 1


def test_a_full_leader_is_told_of_at_once() -> None:
    desk = Desk()
    desk.submit(1)
    desk.sent()
    desk.reject(1, RejectReason.UNCOMMITTED_LIMIT)
    ((_, answer),) = desk.answers
    assert answer == ErrorKind.TOO_MANY_REQUESTS.error()
    assert not isinstance(answer, UnknownOutcomeError)


def test_a_full_leader_after_an_earlier_sending_is_tried_again() -> None:
    """The earlier one may have entered a log: "refused" would be a promise that cannot be kept."""
    desk = Desk()
    desk.submit(1)
    desk.sent()
    desk.proposals.on_leader(known=True, here=False)
    desk.sent()
    desk.reject(1, RejectReason.UNCOMMITTED_LIMIT)
    assert desk.answers == []
    desk.tick()
    assert desk.sent() == [1]


def test_a_full_leader_does_not_lose_the_members_own_proposals() -> None:
    desk = Desk()
    desk.proposals.on_leader(known=True, here=False)
    desk.submit(1, internal=True)
    desk.sent()
    desk.reject(1, RejectReason.UNCOMMITTED_LIMIT)
    assert desk.answers == []
    desk.tick()
    assert desk.sent() == [1]


def test_a_leader_does_not_send_itself_again_what_it_took() -> None:
    desk = Desk()
    desk.proposals.on_leader(known=True, here=True)
    desk.submit(1)
    desk.sent()
    desk.tick(10 * ELECTION_TICKS)
    assert desk.sent() == [], "in its own log nothing gets lost while it leads"
    desk.reject(1, RejectReason.TRANSFERRING)
    desk.tick()
    assert desk.sent() == [1]


def test_a_second_sending_is_told_from_a_first_whatever_the_pauses_are() -> None:
    desk = Desk(election_ticks=64)
    desk.submit(1)
    desk.sent()
    desk.proposals.on_leader(known=True, here=False)
    desk.sent()
    desk.reject(1, RejectReason.UNCOMMITTED_LIMIT)
    assert desk.answers == [], "the first sending may have entered a log"


def test_what_says_how_things_are_now_is_sent_once() -> None:
    desk = Desk()
    desk.proposals.on_leader(known=True, here=False)
    desk.submit(1, internal=True, once=True)
    desk.submit(2, internal=True, once=True)
    assert len(desk.sent()) == 2
    desk.tick(10 * ELECTION_TICKS)
    desk.proposals.on_leader(known=True, here=True)
    assert desk.sent() == []
    desk.reject(1, RejectReason.TRANSFERRING)
    assert [number for number, _ in desk.answers] == [1]


def test_what_says_how_things_are_now_and_was_not_sent_fails_when_leadership_moves() -> None:
    desk = Desk()
    desk.proposals.on_leader(known=True, here=True)
    desk.submit(1, internal=True, once=True)
    desk.submit(2)
    desk.proposals.on_leader(known=True, here=False)
    assert desk.sent() == [2]
    assert desk.answers == [(1, ErrorKind.NO_LEADER.error())]


def test_what_was_lost_is_sent_again_however_many_others_come() -> None:
    desk = Desk()
    desk.proposals.on_leader(known=True, here=False)
    desk.submit(1)
    desk.sent()
    sent: list[int] = []
    for number in range(2, 4 * ELECTION_TICKS):
        desk.submit(number)
        desk.tick()
        waiting = desk.sent()
        assert len(waiting) == len(set(waiting))
        sent += waiting
    assert sent.count(1) >= 1


def test_the_low_watermark_is_the_first_that_is_pending_in_whatever_order_they_end() -> None:
    desk = Desk()
    ends = [3, 1, 2, 7, 4, 6, 5]
    pending: list[int] = []
    for number in range(1, 15):
        desk.submit(number)
        pending.append(number)
        command = decode(desk.proposals.take_unsent()[-1].data)
        assert command.low_watermark == pending[0]
        if number % 2 == 0 and ends:
            for _ in range(2):
                done = ends.pop(0) if ends else None
                if done in pending:
                    desk.proposals.resolve(outcome(done))
                    pending.remove(done)


def test_behind_a_disk_that_does_not_keep_up_nothing_more_is_taken() -> None:
    desk = Desk()
    desk.proposals.congested = True
    desk.submit(1)
    desk.submit(2, internal=True)
    assert desk.answers == [(1, ErrorKind.TOO_MANY_REQUESTS.error())]
    assert desk.sent() == [1]


def test_a_snapshot_tells_what_happened_but_not_how() -> None:
    desk = Desk()
    desk.submit(1)
    desk.submit(2)
    desk.sent()
    desk.proposals.forget_applied(lambda *name: name == (MEMBER, INCARNATION, 1))
    ((number, answer),) = desk.answers
    assert number == 1
    assert isinstance(answer, UnknownOutcomeError)
    assert len(desk.proposals) == 1


def test_a_member_that_stops_answers_everybody() -> None:
    desk = Desk()
    desk.submit(1)
    desk.submit(2)
    desk.sent()
    desk.reject(2, RejectReason.NO_LEADER)
    desk.proposals.fail_all(ErrorKind.STOPPED)
    assert [answer for _, answer in desk.answers] == [ErrorKind.STOPPED.error()] * 2
    assert [isinstance(answer, UnknownOutcomeError) for _, answer in desk.answers] == [True, False]
    assert desk.proposals.bytes_waiting == 0


def test_one_who_breaks_on_hearing_the_answer_stops_nobody(caplog: Any) -> None:
    desk = Desk()

    def breaks(_: Outcome | KvError) -> None:
        raise RuntimeError("the client's connection broke")

    desk.proposals.submit(Kind.PUT, PutRequest(b"k"), breaks, FAR)
    desk.submit(2)
    desk.proposals.resolve(outcome(1))
    desk.proposals.resolve(outcome(2))
    assert [number for number, _ in desk.answers] == [2]
    assert "an answer could not be delivered" in caplog.text


def test_a_proposal_carries_the_identity_that_it_was_submitted_with() -> None:
    desk = Desk()
    desk.submit(1, identity=Identity("alice", 7))
    desk.submit(2)
    desk.submit(3, internal=True)
    sent = [decode(proposal.data) for proposal in desk.proposals.take_unsent()]
    assert [(command.user, command.auth_revision) for command in sent] == [
        ("alice", 7),
        ("", 0),
        ("", SYSTEM_AUTH_REVISION),
    ]

"""Leases: what all members agree on, and what the leader's clock adds."""

import random
from collections.abc import Sized

import pytest

from kvstore.budget import CountedBudget, finish
from kvstore.errors import ErrorKind, KvError, StateError
from kvstore.lease.clock import TAKE_OVER_BATCH
from kvstore.lease.lessor import TTL_SECONDS_MAX, UNSORTED_KEYS_MAX, Lessor
from kvstore.mvcc.dismantling import FREE_STEP
from kvstore.types import LeaseId

ONE, TWO, THREE = LeaseId(1), LeaseId(2), LeaseId(3)


def leading(now: float = 0.0, extend: float = 0.0, **options: float) -> Lessor:
    lessor = Lessor(2, **options)
    lessor.promote(now, extend)
    return lessor


def refused(kind: ErrorKind):
    return pytest.raises(KvError, match=kind.message)


# --- replicated ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "granted"), [(-5, 2), (0, 2), (1, 2), (2, 2), (60, 60)])
def test_a_short_ttl_is_raised_to_the_minimum(asked, granted):
    assert Lessor(2).grant(ONE, asked, 0.0).ttl_seconds == granted


def test_grants_are_refused_in_etcds_words_and_change_nothing():
    lessor = Lessor(2)
    with refused(ErrorKind.LEASE_TTL_TOO_LARGE):
        lessor.grant(ONE, TTL_SECONDS_MAX + 1, 0.0)
    assert lessor.grant(ONE, TTL_SECONDS_MAX, 0.0).ttl_seconds == TTL_SECONDS_MAX
    with refused(ErrorKind.LEASE_EXIST):
        lessor.grant(ONE, 5, 0.0)
    with refused(ErrorKind.LEASE_NOT_FOUND):
        lessor.grant(LeaseId(0), 5, 0.0)
    lessor.grant(LeaseId(-7), 5, 0.0)
    assert len(lessor) == 2


def test_a_revoke_gives_the_keys_sorted_and_only_once():
    lessor = Lessor(2)
    lessor.grant(ONE, 5, 0.0)
    for key in (b"c", b"a", b"b", b"a"):
        lessor.attach(ONE, key)
    lessor.detach(ONE, b"c")
    assert lessor.keys(ONE) == [b"a", b"b"]
    assert lessor.revoke(ONE) == [b"a", b"b"]
    assert not lessor.exists(ONE)
    # Deleting the keys detaches them from a lease that is gone.
    lessor.detach(ONE, b"a")
    with refused(ErrorKind.LEASE_NOT_FOUND):
        lessor.revoke(ONE)
    with refused(ErrorKind.LEASE_NOT_FOUND):
        lessor.attach(ONE, b"a")
    lessor.grant(ONE, 5, 0.0)
    assert lessor.keys(ONE) == []


@pytest.mark.parametrize("seed", range(5))
def test_keys_are_those_attached_and_not_detached(seed):
    rng = random.Random(seed)
    lessor = Lessor(2)
    lessor.grant(ONE, 5, 0.0)
    model: set[bytes] = set()
    for _ in range(300):
        key = b"%d" % rng.randrange(3)
        if rng.random() < 0.5:
            lessor.attach(ONE, key)
            model.add(key)
        else:
            lessor.detach(ONE, key)
            model.discard(key)
        assert lessor.keys(ONE) == sorted(model)


class CountingKey(bytes):
    """Counts how often keys are compared."""

    compared = 0

    def __lt__(self, other: bytes) -> bool:
        CountingKey.compared += 1
        return bytes.__lt__(self, other)

    __hash__ = bytes.__hash__


@pytest.mark.parametrize("take", [Lessor.keys, Lessor.revoke])
def test_many_keys_are_listed_without_sorting_them(take):
    lessor = Lessor(2)
    lessor.grant(ONE, 5, 0.0)
    keys = [CountingKey(b"%d" % n) for n in range(4 * UNSORTED_KEYS_MAX)]
    random.Random(1).shuffle(keys)
    for key in keys:
        lessor.attach(ONE, key)
    before = CountingKey.compared
    assert before > 0
    listed = take(lessor, ONE)
    assert CountingKey.compared == before
    assert listed == sorted(map(bytes, keys))


def test_keys_stay_those_attached_where_few_become_many_and_few_again():
    rng = random.Random(2)
    lessor = Lessor(2)
    lessor.grant(ONE, 5, 0.0)
    model: set[bytes] = set()
    for likely in (0.9, 0.1, 0.9):
        for _ in range(3 * UNSORTED_KEYS_MAX):
            key = b"%d" % rng.randrange(2 * UNSORTED_KEYS_MAX)
            if rng.random() < likely:
                lessor.attach(ONE, key)
                model.add(key)
            else:
                lessor.detach(ONE, key)
                model.discard(key)
            assert len(lessor.keys(ONE)) == len(model)
        assert lessor.keys(ONE) == sorted(model)
    assert len(model) > UNSORTED_KEYS_MAX
    for key in sorted(model):
        lessor.detach(ONE, key)
    assert lessor.keys(ONE) == []


def test_an_export_is_of_its_moment_and_comes_back_whole():
    lessor = Lessor(2)
    for index, (lease_id, ttl) in enumerate(((TWO, 20), (ONE, 10), (LeaseId(-3), 30)), 5):
        lessor.grant(lease_id, ttl, 0.0, index)
    lessor.checkpoint(TWO, 7)
    rows = lessor.export()
    lessor.revoke(ONE)
    lessor.checkpoint(TWO, 3)
    lessor.grant(THREE, 5, 0.0)
    exported = list(rows)
    assert exported == [(2, 20, 7, 5), (1, 10, 0, 6), (-3, 30, 0, 7)]
    copy = Lessor(2)
    copy.import_(exported[:2])
    copy.import_(exported[2:])
    assert list(copy.export()) == exported


@pytest.mark.parametrize(
    "row",
    [
        (0, 5, 0, 1),
        (1, 0, 0, 1),
        (1, TTL_SECONDS_MAX + 1, 0, 1),
        (1, 5, 6, 1),
        (1, 5, -1, 1),
        (9, 5, 0, 1),
        (1, 5, 0, -1),
    ],
)
def test_impossible_leases_are_not_imported(row):
    lessor = Lessor(2)
    lessor.grant(LeaseId(9), 5, 0.0)
    with pytest.raises(StateError):
        lessor.import_([row])


def test_a_checkpoint_stays_within_the_ttl_and_needs_a_lease():
    lessor = Lessor(2)
    lessor.grant(ONE, 10, 0.0)
    for remaining, kept in ((7, 7), (99, 10), (-1, 0)):
        lessor.checkpoint(ONE, remaining)
        lease = lessor.get(ONE)
        assert lease is not None
        assert lease.remaining_seconds == kept
    lessor.checkpoint(TWO, 5)
    assert lessor.get(TWO) is None


# --- the leader's clock --------------------------------------------------------------------------


def test_leases_expire_soonest_first_and_within_the_limit():
    lessor = leading()
    for lease_id, ttl in ((ONE, 9), (TWO, 5), (THREE, 7)):
        lessor.grant(lease_id, ttl, 0.0)
    assert lessor.expired(4.9, 10) == []
    assert lessor.expired(9.0, 2) == [TWO, THREE]
    assert lessor.expired(9.0, 2) == [ONE]
    assert lessor.expired(9.0, 2) == []


def test_an_expiry_is_handed_out_again_only_after_the_retry_interval():
    lessor = leading(expire_retry_seconds=3.0)
    lessor.grant(ONE, 5, 0.0)
    assert lessor.expired(5.0, 10) == [ONE]
    assert lessor.expired(7.9, 10) == []
    assert lessor.expired(8.0, 10) == [ONE]
    lessor.revoke(ONE)
    assert lessor.expired(99.0, 10) == []


def test_a_renewal_starts_the_time_anew():
    lessor = leading()
    lessor.grant(ONE, 5, 0.0)
    assert lessor.renew(ONE, 4.0) == 5
    assert lessor.remaining(ONE, 6.0) == 3.0
    assert lessor.expired(8.9, 10) == []
    assert lessor.expired(9.0, 10) == [ONE]


def test_what_cannot_be_renewed():
    lessor = leading()
    lessor.grant(ONE, 5, 0.0)
    assert lessor.renew(TWO, 0.0) is None
    # Run out but not yet revoked: still there, and nobody may bring it back.
    assert lessor.renew(ONE, 5.0) is None
    assert lessor.exists(ONE)
    assert lessor.remaining(ONE, 6.0) == 0.0
    lessor.demote()
    assert not lessor.primary
    assert lessor.renew(ONE, 0.0) is None
    assert lessor.expired(99.0, 10) == []
    assert lessor.due_checkpoints(9999.0, 10) == []


def test_a_new_leader_starts_from_the_checkpoint_or_the_ttl_plus_the_extension():
    lessor = Lessor(2)
    lessor.grant(ONE, 100, 0.0)
    lessor.grant(TWO, 50, 0.0)
    lessor.checkpoint(ONE, 40)
    assert lessor.remaining(ONE, 0.0) == 40.0
    assert lessor.remaining(THREE, 0.0) == -1.0
    lessor.promote(1000.0, 1.5)
    assert lessor.remaining(ONE, 1000.0) == 41.5
    assert lessor.remaining(TWO, 1010.0) == 41.5
    assert lessor.expired(1041.4, 10) == []
    assert lessor.expired(1051.5, 10) == [ONE, TWO]


def test_a_second_leadership_knows_nothing_of_the_first():
    lessor = leading()
    lessor.grant(ONE, 10, 0.0)
    lessor.demote()
    lessor.promote(100.0, 0.0)
    assert lessor.expired(109.9, 10) == []
    assert lessor.expired(110.0, 10) == [ONE]


def test_very_many_leases_are_taken_over_in_batches_and_none_is_forgotten():
    lessor = Lessor(2)
    count = 2 * TAKE_OVER_BATCH + 100
    for number in range(1, count + 1):
        lessor.grant(LeaseId(number), 5, 0.0)
    lessor.promote(0.0, 0.0)
    lessor.revoke(LeaseId(count))
    lessor.revoke(LeaseId(count - 1))
    lessor.grant(LeaseId(count - 1), 50, 1.0)
    assert lessor.renew(LeaseId(count - 2), 4.0) == 5
    batches = [lessor.expired(5.0, count) for _ in range(4)]
    assert [len(batch) for batch in batches] == [TAKE_OVER_BATCH, TAKE_OVER_BATCH, 97, 0]
    assert sorted(lease_id for batch in batches for lease_id in batch) == list(range(1, count - 2))
    assert lessor.expired(7.9, count) == []
    # The retry of the others, and those that were renewed.
    assert len(lessor.expired(9.0, count)) == count - 2


def test_by_expiry_is_in_the_order_of_what_is_left():
    lessor = Lessor(2)
    for lease_id, ttl in ((THREE, 9), (TWO, 5), (ONE, 9)):
        lessor.grant(lease_id, ttl, 0.0)
    assert lessor.by_expiry(0.0) == [TWO, ONE, THREE]
    lessor.promote(0.0, 0.0)
    lessor.renew(TWO, 4.5)
    lessor.renew(ONE, 4.5)
    assert lessor.by_expiry(4.5) == [THREE, TWO, ONE]


# --- checkpoints ---------------------------------------------------------------------------------


def test_only_long_leases_are_checkpointed_each_interval():
    lessor = leading(checkpoint_interval_seconds=300.0)
    lessor.grant(ONE, 300, 0.0)
    lessor.grant(TWO, 1000, 0.0)
    assert lessor.due_checkpoints(299.0, 10) == []
    assert lessor.due_checkpoints(300.5, 10) == [(TWO, 700)]
    assert lessor.due_checkpoints(301.0, 10) == []
    assert lessor.due_checkpoints(601.0, 10) == [(TWO, 399)]
    # Less than an interval is left.
    assert lessor.due_checkpoints(950.0, 10) == [(TWO, 50)]
    assert lessor.due_checkpoints(999.0, 10) == []


def test_a_checkpoint_does_not_move_the_deadline_of_this_leadership():
    lessor = Lessor(2)
    lessor.grant(ONE, 1000, 0.0)
    lessor.promote(0.0, 10.0)
    lessor.checkpoint(ONE, 700)
    assert lessor.remaining(ONE, 0.0) == 1010.0
    lessor.demote()
    lessor.promote(5000.0, 0.0)
    assert lessor.remaining(ONE, 5000.0) == 700.0


def test_a_checkpoint_never_exceeds_the_grant():
    lessor = Lessor(2, checkpoint_interval_seconds=5.0)
    lessor.grant(ONE, 100, 0.0)
    lessor.promote(0.0, 50.0)
    assert lessor.due_checkpoints(5.0, 10) == [(ONE, 100)]


def test_a_lease_with_a_checkpoint_is_renewed_only_after_it_was_cleared():
    lessor = leading(checkpoint_interval_seconds=300.0)
    lessor.grant(ONE, 1000, 0.0)
    assert not lessor.needs_checkpoint_clear(ONE)
    assert lessor.due_checkpoints(300.0, 10) == [(ONE, 700)]
    # On its way: a renewal now could be undone by it.
    assert lessor.needs_checkpoint_clear(ONE)
    lessor.checkpoint(ONE, 700)
    assert lessor.needs_checkpoint_clear(ONE)
    # Held back until the renewal, or the clearing could be followed by another.
    assert lessor.due_checkpoints(601.0, 10) == []
    lessor.checkpoint(ONE, 0)
    assert not lessor.needs_checkpoint_clear(ONE)
    assert lessor.due_checkpoints(902.0, 10) == []
    assert lessor.renew(ONE, 903.0) == 1000
    assert lessor.due_checkpoints(1203.0, 10) == [(ONE, 700)]


def test_a_renewal_over_a_checkpoint_is_our_own_mistake():
    lessor = leading()
    lessor.grant(ONE, 1000, 0.0)
    lessor.checkpoint(ONE, 500)
    with pytest.raises(AssertionError):
        lessor.renew(ONE, 1.0)


def test_unknown_leases_and_followers_need_no_clearing():
    lessor = leading()
    assert not lessor.needs_checkpoint_clear(ONE)
    lessor.grant(ONE, 1000, 0.0)
    lessor.checkpoint(ONE, 500)
    lessor.demote()
    assert not lessor.needs_checkpoint_clear(ONE)


# --- the promise ---------------------------------------------------------------------------------


class TwoMembers:
    """Two members, a log with commands on their way, and leadership that goes back and forth."""

    def __init__(self) -> None:
        self.members = [Lessor(2, checkpoint_interval_seconds=4.0) for _ in range(2)]
        self.leader = self.members[0]
        self.leader.promote(0.0, 0.0)
        self.log: list[tuple[LeaseId, int]] = []
        self.promised: dict[LeaseId, float] = {}
        self.ended = 0

    def grant(self, lease_id: LeaseId, ttl: int, now: float) -> None:
        if not self.leader.exists(lease_id):
            for member in self.members:
                member.grant(lease_id, ttl, now)
            self.promised[lease_id] = now + ttl

    def keep_alive(self, lease_id: LeaseId, now: float) -> None:
        if self.leader.needs_checkpoint_clear(lease_id):
            self.log.append((lease_id, 0))
            return
        ttl = self.leader.renew(lease_id, now)
        if ttl is not None:
            self.promised[lease_id] = now + ttl

    def apply(self, now: float) -> None:
        lease_id, remaining = self.log.pop(0)
        for member in self.members:
            member.checkpoint(lease_id, remaining)
        if not remaining:
            # The keep-alive that asked for the clearing goes on.
            self.keep_alive(lease_id, now)

    def change_leader(self, now: float) -> None:
        self.leader.demote()
        self.leader = self.members[self.leader is self.members[0]]
        self.leader.promote(now, 0.0)
        # Commands of the last term are refused.
        self.log.clear()

    def expire(self, now: float) -> None:
        for lease_id in self.leader.expired(now, 2):
            assert self.promised[lease_id] <= now, "a lease ends before its holder was told"
            self.ended += 1
            for member in self.members:
                member.revoke(lease_id)
            # The revocation stands behind them in the log.
            self.log = [entry for entry in self.log if entry[0] != lease_id]


@pytest.mark.parametrize("seed", range(30))
def test_no_lease_ends_before_the_time_its_holder_was_told(seed):
    # A grant, and a keep-alive that was answered, promise the whole TTL, whatever is checkpointed,
    # cleared or lost meanwhile and whoever leads then.
    rng = random.Random(seed)
    cluster = TwoMembers()
    now = 0.0
    for _ in range(1500):
        now += rng.random()
        step = rng.random()
        lease_id = LeaseId(rng.randint(1, 5))
        if step < 0.1:
            cluster.grant(lease_id, rng.randint(2, 30), now)
        elif step < 0.3:
            cluster.keep_alive(lease_id, now)
        elif step < 0.5:
            cluster.log += cluster.leader.due_checkpoints(now, 2)
        elif step < 0.52:
            cluster.change_leader(now)
        elif step < 0.8:
            if cluster.log:
                cluster.apply(now)
        else:
            cluster.expire(now)
        first, second = (list(member.export()) for member in cluster.members)
        assert first == second
    assert cluster.ended > 0


# --- many leases --------------------------------------------------------------------------------


def many(count: int, *, lead: bool) -> Lessor:
    rng = random.Random(3)
    lessor = Lessor(2)
    for _ in range(count // 2):
        lessor.grant(LeaseId(rng.getrandbits(62) + 1), rng.randrange(2, 20), 0.0)
    if lead:
        lessor.promote(3.0, 1.0)
    for _ in range(count - count // 2):
        lease = lessor.grant(LeaseId(rng.getrandbits(62) + 1), rng.randrange(2, 900), rng.random())
        lessor.attach(lease.id, b"key")
    return lessor


@pytest.mark.parametrize("lead", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2000])
def test_slices_order_leases_as_one_go_does(count, lead):
    lessor = many(count, lead=lead)
    for now in (0.0, 7.5, 1e6):
        ordered = finish(lessor.by_expiry_sliced(now, CountedBudget(1)), CountedBudget(1))
        assert len(ordered) == count
        assert ordered == lessor.by_expiry(now)
        assert ordered == sorted(ordered, key=lambda lease: (lessor.remaining(lease, now), lease))


def test_leases_that_come_and_go_between_the_slices_disturb_no_order():
    lessor = many(2000, lead=True)
    before = lessor.by_expiry(0.0)
    work = lessor.by_expiry_sliced(0.0, CountedBudget(1))
    for turn in range(20):
        # Eight turns sort, the others merge.
        next(work)
        lessor.revoke(before[100 * turn])
        lessor.grant(LeaseId(-1 - turn), 5, 0.0)
    ordered = finish(work, CountedBudget(1))
    kept = [lease for lease in before if lessor.exists(lease)]
    assert [lease for lease in ordered if lessor.exists(lease)] == kept


def test_a_lessor_is_dismantled_a_few_leases_at_a_time():
    lessor = many(2000, lead=True)
    lessor.expired(0.0, 1)
    clock = lessor._clock
    assert clock is not None
    containers: list[Sized] = [lessor._leases, lessor._keys, clock._deadline]
    for deadlines in (clock._expiries, clock._checkpoints):
        containers += [deadlines._heap, deadlines._at]

    def held() -> int:
        return sum([len(container) for container in containers])

    before = held()
    assert before > 5000
    for _ in lessor.dismantle(CountedBudget(1)):
        assert before - held() <= FREE_STEP
        before = held()
    assert held() == 0
    assert not lessor.primary

"""Bugs between the rooms: the order of duties, proposals, reads, snapshots on their way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kvstore.apply.machine import StateMachine
from kvstore.apply.origins import Origins
from kvstore.errors import KvError
from kvstore.mvcc.txn import is_read_only, read_txn
from kvstore.server.driver import Driver
from kvstore.server.reads import Reads
from kvstore.server.snapshots import SnapshotKeeper
from kvstore.service.kv import KvCalls
from kvstore.types import TxnRequest, TxnResponse
from raft.effects import Effects
from raft.events import Persisted
from raft.messages import AppendEntriesReply
from raft.types import NO_NODE, Role, Seq
from tests.sim.mutants.planting import Made, Planting, mutant
from wal.snapshot_file import SnapshotFile

LOOK_BYTES_MAX = 1 << 20
ROUNDS = 20


@mutant(
    wrong="A vote leaves before it is durable, if nothing but the vote is written.",
    source="Raft figure 2: persistent state is updated before responding",
    checker="durability",
)
def vote_leaves_before_the_disk(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def carry_out(self: Driver, effects: Effects) -> None:
            state = effects.hard_state
            if state is not None and not effects.entries and effects.snapshot is None:
                for message in effects.messages_after_sync:
                    self._peers.send(message)
                effects.messages_after_sync.clear()
            right(self, effects)

        return carry_out

    planting.method(Driver, "_carry_out", make)


@mutant(
    wrong="A candidate asks for votes, and counts its own, as soon as that is handed to the disk.",
    source="thesis §10.2.1 stretched from entries to votes",
    checker="durability",
)
def candidate_leads_before_its_own_vote_is_durable(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def carry_out(self: Driver, effects: Effects) -> None:
            if self.raft.role is not Role.CANDIDATE or effects.hard_state is None:
                right(self, effects)
                return
            for message in effects.messages_after_sync:
                self._peers.send(message)
            effects.messages_after_sync.clear()
            right(self, effects)
            self.step(Persisted(effects.seq))

        return carry_out

    planting.method(Driver, "_carry_out", make)


@mutant(
    wrong="When a write is durable, all that was queued since counts as durable, too.",
    source="PostgreSQL's and others' group commit: the wrong end of the batch is acknowledged",
    checker="durability",
)
def leader_counts_what_is_only_queued(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def persisted(self: Driver, seq: Seq) -> None:
            leads = self.role is Role.LEADER
            right(self, self._queued_seq if leads and self._queued_seq == seq + 1 else seq)

        return persisted

    planting.method(Driver, "persisted", make)


@mutant(
    wrong="Reads join a round that is under way already, but for the first rounds.",
    source="thesis §6.4, step 2: the read must wait for a round that began after it",
    checker="linearizability",
    blunt="from the first round on: tests/kvstore/server/test_reads_room.py",
)
def late_reads_share_an_old_round(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def take_context(self: Reads) -> int | None:
            under_way = max(self._rounds, default=0)
            if self._fresh and under_way > ROUNDS:
                self._rounds[under_way].extend(self._fresh)
                self._fresh = []
            context: int | None = right(self)
            return context

        return take_context

    planting.method(Reads, "take_context", make)


@mutant(
    wrong="A transaction whose compares fail here, and that would then write nothing, is answered"
    " at once.",
    source="a saving that etcd does not make: compares are evaluated when applied",
    checker="linearizability",
)
def compare_is_evaluated_before_proposing(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def do_txn(
            self: KvCalls,
            request: TxnRequest,
            caller: Any,
            reply: Callable[[Any], None],
            identity: Any,
        ) -> None:
            if request.failure or is_read_only(request) or not request.compare:
                right(self, request, caller, reply, identity)
                return
            budget = self.node.read_budget()
            look = TxnRequest(request.compare, [], [])
            work = read_txn(self.machine.store, look, budget, LOOK_BYTES_MAX)

            def looked(result: TxnResponse | KvError) -> None:
                if isinstance(result, KvError) or result.succeeded:
                    right(self, request, caller, reply, identity)
                else:
                    reply(result)

            self._run(work, budget, looked, identity)

        return do_txn

    planting.method(KvCalls, "_do_txn", make)


@mutant(
    wrong="A snapshot that is installed brings only the ids of this member's own commands.",
    source="thesis §6.3: the sessions of all clients are part of the state",
    checker="equality",
)
def forgotten_ids_of_others(planting: Planting) -> None:
    def make(right: Made) -> Made:
        async def load(self: SnapshotKeeper, file: SnapshotFile) -> StateMachine:
            machine: StateMachine = await right(self, file)
            own = [row for row in machine.origins.rows() if row[0] == self._member_id]
            machine.origins = Origins()
            for row in own:
                machine.origins.restore(row)
            return machine

        return load

    planting.method(SnapshotKeeper, "_load", make)


@mutant(
    wrong="A snapshot that arrived is acknowledged before its mark is in the log.",
    source="the order of LogCabin and etcd: file, mark, release",
    checker="durability",
)
def snapshot_is_acknowledged_before_its_mark(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def carry_out(self: Driver, effects: Effects) -> None:
            if effects.snapshot is not None:
                for message in effects.messages_after_sync:
                    self._peers.send(message)
                effects.messages_after_sync.clear()
            right(self, effects)

        return carry_out

    planting.method(Driver, "_carry_out", make)


@mutant(
    wrong="An acknowledgement that waits for the disk while its entries are cut off goes to the new"
    " leader, in its term.",
    source="the race of a truncation with writes in flight: etcd-io/raft,"
    " testdata/async_storage_writes_append_aba_race.txt",
    checker="durability",
)
def late_acknowledgement_goes_to_the_new_leader(planting: Planting) -> None:
    def make(right: Made) -> Made:
        def persisted(self: Driver, seq: Seq) -> None:
            for due, messages in self._held:
                for place, message in enumerate(messages if due <= seq else ()):
                    late = isinstance(message, AppendEntriesReply) and message.accepted
                    if late and message.term < self.raft.term and self.leader != NO_NODE:
                        messages[place] = msgspec.structs.replace(
                            message, receiver=self.leader, term=self.raft.term
                        )
            right(self, seq)

        return persisted

    planting.method(Driver, "persisted", make)

"""A cluster that is treated badly, by a seed: what can happen, and how often."""

from __future__ import annotations

from raft.events import (
    PeerUnreachable,
    Propose,
    ProposeMembership,
    TellCommit,
    Tick,
    TransferLeader,
)
from raft.types import Configuration, NodeId, Proposal, Role

from .cluster import ELECTION_TICKS, Cluster, Host


class Chaos:
    """Random steps on a cluster; with ``membership`` its configuration changes as well, with
    ``damage`` logs are damaged below their tails, of a minority at a time.
    """

    def __init__(self, cluster: Cluster, *, membership: bool = False, damage: bool = False) -> None:
        self.cluster = cluster
        self.rng = cluster.rng
        self.proposed = 0
        self.actions = [
            (self._deliver, 500),
            (self._tick, 70),
            (self._tell_commit, 20),
            (self._sync, 200),
            (self._propose, 60),
            (self._read, 30),
            (self._drop, 15),
            (self._duplicate, 15),
            (self._crash, 3),
            (self._restart, 12),
            (self._cut, 2),
            (self._heal, 6),
            (self._compact, 6),
            (self._transfer, 3),
            (self._unreachable, 4),
            (self._hurry, 8),
            (self._lose_leader, 3),
        ]
        if membership:
            self.actions.append((self._change, 8))
        if damage:
            self.actions.append((self._damage, 3))
        self.counts = dict.fromkeys([action.__name__ for action, _ in self.actions], 0)

    def run(self, steps: int) -> None:
        actions, weights = zip(*self.actions, strict=True)
        for action in self.rng.choices(actions, weights, k=steps):
            self.counts[action.__name__] += 1
            action()
            for host in self.cluster.hosts.values():
                host.pump()
            self.cluster.check_logs()

    def finish(self) -> None:
        """Everybody comes back, the network heals: all must agree, and nothing be lost."""
        cluster = self.cluster
        cluster.heal()
        for host in cluster.hosts.values():
            if not host.up:
                host.start()
        cluster.settle()
        for _ in range(200):
            cluster.tick()
            leader = cluster.wait_leader()
            if b"the end" not in leader.commands():
                # A leader that is handing over refuses it: try again.
                cluster.propose(leader.node_id, b"the end")
            members = leader.node.configuration.members()
            states = [cluster.hosts[each].commands() for each in members]
            if all(state == states[0] for state in states) and b"the end" in states[0]:
                break
        else:
            raise AssertionError("they never agree")
        assert leader.node.commit_index >= cluster.checker.committed_index
        cluster.check_logs()

    # ------------------------------------------------------------------------- what can happen

    def _host(self) -> Host:
        return self.cluster.hosts[self.rng.choice(list(self.cluster.hosts))]

    def _deliver(self) -> None:
        network = self.cluster.network
        if network:
            # Mostly in order; now and then one overtakes.
            place = 0 if self.rng.random() < 0.7 else self.rng.randrange(len(network))
            self.cluster.deliver(network.pop(place))

    def _drop(self) -> None:
        network = self.cluster.network
        if network:
            self.cluster.deliver_lost(network.pop(self.rng.randrange(len(network))))

    def _duplicate(self) -> None:
        network = self.cluster.network
        if network:
            network.append(self.rng.choice(network))

    def _tick(self) -> None:
        self._host().step(Tick())

    def _tell_commit(self) -> None:
        self._host().step(TellCommit())

    def _sync(self) -> None:
        host = self._host()
        if host.up:
            host.sync(self.rng.choice([1, 1, 2, None]))

    def _propose(self) -> None:
        host = self._host()
        proposals = []
        for _ in range(self.rng.choice([1, 1, 3, 12])):
            self.proposed += 1
            data = b"%d" % self.proposed + b"." * self.rng.choice([0, 10, 200])
            proposals.append(Proposal(self.proposed, data))
        host.step(Propose(proposals))

    def _read(self) -> None:
        host = self._host()
        if host.up:
            self.cluster.read(host.node_id)

    def _crash(self) -> None:
        host = self._host()
        if host.up:
            host.crash(synced=self.rng.randrange(len(host.unsynced) + 1))

    def _damage(self) -> None:
        host, hosts = self._host(), list(self.cluster.hosts.values())
        mute = [each for each in hosts if each.disk.required_index and each is not host]
        if not host.disk.last_index or 2 * (len(mute) + 1) > len(hosts):
            return
        if host.up:
            host.crash(synced=self.rng.randrange(len(host.unsynced) + 1))
        host.disk.lose_log()
        host.start()

    def _restart(self) -> None:
        host = self._host()
        if not host.up:
            host.start()

    def _cut(self) -> None:
        numbers = list(self.cluster.hosts)
        self.rng.shuffle(numbers)
        place = self.rng.randrange(1, len(numbers))
        self.cluster.cut(numbers[:place], numbers[place:])

    def _heal(self) -> None:
        self.cluster.heal()

    def _compact(self) -> None:
        host = self._host()
        if host.up:
            host.compact()

    def _transfer(self) -> None:
        host = self._host()
        host.step(TransferLeader(self._host().node_id))

    def _unreachable(self) -> None:
        self._host().step(PeerUnreachable(self._host().node_id))

    def _hurry(self) -> None:
        """One clock runs ahead: it wants an election now."""
        host = self._host()
        for _ in range(2 * ELECTION_TICKS):
            host.step(Tick())
            host.pump()

    def _lose_leader(self) -> None:
        leader = self.cluster.leader()
        if leader is not None:
            if self.rng.random() < 0.5:
                leader.crash(synced=self.rng.randrange(len(leader.unsynced) + 1))
            else:
                self.cluster.isolate(leader.node_id)

    def _change(self) -> None:
        leader = self.cluster.leader()
        if leader is None or leader.node.role is not Role.LEADER:
            return
        everybody = sorted(self.cluster.hosts)
        count = self.rng.randrange(1, len(everybody) + 1)
        chosen = sorted(self.rng.sample(everybody, count))
        learners = [each for each in everybody if each not in chosen and self.rng.random() < 0.5]
        target = Configuration(tuple(map(NodeId, chosen)), learners=tuple(map(NodeId, learners)))
        leader.step(ProposeMembership(0, target))

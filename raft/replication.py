"""How a leader's entries reach its followers (Raft §5.3, §7; flow control: thesis §10.2.1)."""

from raft.core import Core
from raft.errors import PeerError
from raft.events import PeerUnreachable, SnapshotSent
from raft.leader import advance_commit, append_up_to, confirm_reads, continue_transfer
from raft.leadership import Leadership
from raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
)
from raft.progress import UNSENT, Progress, ProgressState
from raft.types import Entry, Index

# A follower that got a whole snapshot has so many election timeouts to report it installed; then
# the leader asks.
_SNAPSHOT_PATIENCE = 4


def fill(core: Core, leadership: Leadership) -> None:
    """Build what is due: at most one append a follower, with all that is new to it."""
    leadership.unsent = leadership.untold = False
    shared: dict[Index, tuple[Entry, ...]] = {}
    for follower in leadership.progress.values():
        if follower.state is not ProgressState.SNAPSHOT:
            _send_append(core, leadership, follower, shared)


def _send_append(
    core: Core,
    leadership: Leadership,
    follower: Progress,
    shared: dict[Index, tuple[Entry, ...]],
) -> None:
    log, config = core.log, core.config
    first, last = follower.next, log.last_index
    if follower.state is ProgressState.PROBE:
        if follower.paused:
            return
    elif first <= last:
        if follower.window_full(config.inflight_appends_max, config.inflight_bytes_max):
            _note_commit(core, leadership, follower)
            return
    else:
        _note_commit(core, leadership, follower)
        return
    prev = Index(first - 1)
    prev_term = log.term_at(prev)
    if prev_term is None:
        _send_snapshot(core, follower)
        return
    entries: tuple[Entry, ...] = ()
    if first <= last:
        held = shared.get(first)
        if held is None:
            held = tuple(log.slice_bytes(first, last, config.append_bytes_max))
            shared[first] = held
        entries = held
    core.messages.append(
        AppendEntries(
            core.node_id,
            follower.node_id,
            core.term,
            prev,
            prev_term,
            core.commit_index,
            entries,
        )
    )
    end = Index(prev + len(entries))
    follower.sent_commit = min(core.commit_index, end)
    if follower.state is ProgressState.PROBE:
        follower.paused = True
    elif entries:
        follower.sent(end, log.bytes_between(prev, end), leadership.heartbeat_round)
        if end < last:
            leadership.unsent = True


def _note_commit(core: Core, leadership: Leadership, follower: Progress) -> None:
    """No append leaves to this follower now: it is told of a commit, at once or soon."""
    if follower.sent_commit < follower.awaited:
        _tell_commit(core, follower)
    elif follower.sent_commit < follower.committed(core.commit_index):
        leadership.untold = True


def on_tell_commit(core: Core) -> None:
    """Nothing carried the news of a commit for a while: it travels alone."""
    leadership = core.leadership
    if leadership is None or not leadership.untold:
        return
    leadership.untold = False
    for follower in leadership.progress.values():
        if follower.state is ProgressState.REPLICATE:
            _tell_commit(core, follower)


def _tell_commit(core: Core, follower: Progress) -> None:
    """Let a follower know what of that which it has is committed.

    A heartbeat of round 0 asks for no answer: there is nothing to learn from one, and a lone put
    would cost the leader as many answers to this as acknowledgements. If it is lost, the next
    heartbeat says the same.
    """
    told = follower.committed(core.commit_index)
    if told > follower.sent_commit:
        follower.sent_commit = told
        core.messages.append(Heartbeat(core.node_id, follower.node_id, core.term, told, 0))


def _send_snapshot(core: Core, follower: Progress) -> None:
    # To a follower that is silent a snapshot would be built in vain, again and again.
    if not follower.active and not follower.was_active:
        follower.paused = True
        return
    # Whichever snapshot the driver sends, it is of an index that the log still knows today.
    follower.become_snapshot(core.log.base_index)
    core.messages.append(InstallSnapshot(core.node_id, follower.node_id, core.term))


def on_append_reply(core: Core, message: AppendEntriesReply) -> None:
    """A follower took entries, or refused them.

    Raises:
        PeerError: It claims to hold more than this leader ever had.
    """
    leadership = core.leadership
    if leadership is None:
        return
    follower = leadership.progress.get(message.sender)
    if follower is None:
        return
    follower.active = True
    if message.accepted:
        _on_accepted(core, leadership, follower, message.match_index)
        return
    if message.required_index:
        _on_mute(core, leadership, follower, message.required_index)
        return
    retry_from = message.conflict_index
    log = core.log
    # Below this no entry of a newer term than the follower's can match: skip them all at once.
    retry_from = min(retry_from, log.last_index)
    while (term := log.term_at(retry_from)) is not None and term > message.conflict_term:
        retry_from = Index(retry_from - 1)
    if follower.rejected(message.prev_index, retry_from):
        leadership.unsent = True


def _on_accepted(core: Core, leadership: Leadership, follower: Progress, match: Index) -> None:
    if match > core.log.last_index:
        raise PeerError(
            f"node {follower.node_id} acknowledges entry {match}, the log ends at"
            f" {core.log.last_index}"
        )
    if match < follower.match:
        return
    news = match > follower.match or follower.required_index > 0
    follower.acknowledged(match)
    if follower.state is ProgressState.PROBE or (
        follower.state is ProgressState.SNAPSHOT and match >= core.log.base_index
    ):
        follower.become_replicate()
    leadership.unsent = True
    if news:
        advance_commit(core)
        continue_transfer(core)


def _on_mute(core: Core, leadership: Leadership, follower: Progress, required: Index) -> None:
    """A follower that lost its log asks for a snapshot that covers ``required``.

    It asks again at every heartbeat, so nothing has to be remembered but that it did.
    """
    follower.required_index = required
    if follower.state is ProgressState.SNAPSHOT:
        _await_installation(core, leadership, follower)
        return
    follower.become_probe(Index(follower.match + 1))
    # Nothing else is of use to it.
    follower.paused = True
    if core.log.last_index < required:
        append_up_to(core, required)
    elif core.applied_index >= required:
        _send_snapshot(core, follower)


def on_heartbeat_reply(core: Core, message: HeartbeatReply) -> None:
    """A follower lives: confirm reads, and see whether something sent to it was lost."""
    leadership = core.leadership
    if leadership is None:
        return
    follower = leadership.progress.get(message.sender)
    if follower is None:
        return
    follower.active = True
    number = message.read_round
    if number > leadership.heartbeat_round:
        raise PeerError(f"node {message.sender} answers heartbeat {number}, which was never sent")
    if number > follower.answered_round:
        follower.answered_round = number
        confirm_reads(core)
    _resume(core, leadership, follower, number)


def _resume(core: Core, leadership: Leadership, follower: Progress, number: int) -> None:
    """Start again what stands still: the follower is there, and owes nothing or never got it."""
    if follower.state is ProgressState.PROBE:
        follower.paused = False
        leadership.unsent = True
    elif follower.state is ProgressState.REPLICATE:
        if follower.lost(number):
            follower.become_probe(Index(follower.match + 1))
            leadership.unsent = True
        elif follower.match < core.log.last_index and not follower.inflight:
            leadership.unsent = True
    else:
        _await_installation(core, leadership, follower)


def _await_installation(core: Core, leadership: Leadership, follower: Progress) -> None:
    if follower.snapshot_index != UNSENT:
        patience = _SNAPSHOT_PATIENCE * core.config.election_ticks
        if leadership.ticks - follower.snapshot_tick >= patience:
            _probe_after_snapshot(leadership, follower)


def _probe_after_snapshot(leadership: Leadership, follower: Progress) -> None:
    follower.become_probe(Index(max(follower.match, follower.snapshot_index) + 1))
    leadership.unsent = True


def on_snapshot_sent(core: Core, event: SnapshotSent) -> None:
    """A transfer ended. The follower reports the installation by an ``AppendEntriesReply``.

    Until then nothing is sent: a probe in the meantime would be refused, and start another one.
    """
    leadership = core.leadership
    follower = leadership.progress.get(event.node_id) if leadership is not None else None
    if leadership is None or follower is None or follower.state is not ProgressState.SNAPSHOT:
        return
    if event.ok:
        follower.snapshot_index = min(event.index, core.log.last_index)
        follower.snapshot_tick = leadership.ticks
    else:
        follower.become_probe(Index(follower.match + 1))
        # The next heartbeat's answer begins another attempt; at once would be a tight loop.
        follower.paused = True


def on_peer_unreachable(core: Core, event: PeerUnreachable) -> None:
    """The link broke: what was in flight may be lost, an installed snapshot's report with it."""
    leadership = core.leadership
    follower = leadership.progress.get(event.node_id) if leadership is not None else None
    if leadership is None or follower is None:
        return
    if follower.state is ProgressState.REPLICATE:
        follower.become_probe(Index(follower.match + 1))
        leadership.unsent = True
    elif follower.state is ProgressState.SNAPSHOT and follower.snapshot_index != UNSENT:
        _probe_after_snapshot(leadership, follower)

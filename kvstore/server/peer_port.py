"""What the network asks of a member, and tells it: who may link with it, and what it says of the
cluster on its peer port.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvstore.commands import Kind, PublishMember, decode, decode_body
from kvstore.server import joining
from kvstore.server.network.base import Introduction, SnapshotOffer, SnapshotSink
from kvstore.types import MemberId
from kvstore.version import VERSION
from raft.types import EntryKind, Index, NodeId

if TYPE_CHECKING:
    from kvstore.apply.roster import Roster
    from kvstore.server.identity import Beginning
    from kvstore.server.node import Node


class PeerPort:
    """Implements ``NetworkReceiver``.

    Args:
        node: Whose; complete but for this.
        beginning: Of the log that it keeps.
    """

    def __init__(self, node: "Node", beginning: "Beginning") -> None:
        self._node = node
        self._beginning = beginning
        self.log_id = beginning.log_id

    @property
    def _roster(self) -> "Roster":
        return self._node.applier.machine.roster

    # --- what arrives -----------------------------------------------------------------------------

    def on_frame(self, member: int, frame: bytes) -> None:
        """A frame from a member; see ``Peers``."""
        self._node.peers.on_frame(member, frame)

    def on_link(self, member: int, *, up: bool) -> None:
        """A link came up or broke."""
        self._node.membership.on_link(member, up=up)
        self._node.replacements.on_link(member, up=up)
        self._node.peers.on_link(member, up=up)

    async def on_snapshot(self, offer: SnapshotOffer) -> SnapshotSink | str:
        """A leader offers a snapshot; see ``SnapshotKeeper``."""
        return await self._node.snapshots.receive(offer)

    def on_removed(self, teller: int) -> None:
        """A member says that this one is none any more; see ``MembershipKeeper``."""
        self._node.membership.on_removed(teller)

    def on_lost(self, member: int, introduction: Introduction) -> None:
        """Where a member listens it asks to be replaced; see ``ReplacementKeeper``."""
        self._node.replacements.on_lost(member, introduction)

    # --- who took part ----------------------------------------------------------------------------

    def _said_log_id(self, member: int) -> int:
        """Of the log that a member has said to be its own, where that is not applied; or 0."""
        own = (each.log_id for each in self._unapplied() if each.member_id == member)
        return next(own, 0)

    def _unapplied(self) -> Iterator[PublishMember]:
        """What members said of themselves that is in the log, and may not be committed yet.

        Whatever becomes of the entry, its member had that log. A member that was down since may
        know of none as committed; without this it would let one take part that lost its data, and
        both make a majority without what was acknowledged meanwhile.
        """
        applied = self._node.applier.machine.applied_index
        for entry in self._node.driver.raft.written_after(Index(applied)) or ():
            if entry.kind is EntryKind.COMMAND:
                command = decode(entry.data)
                if command.kind == Kind.PUBLISH_MEMBER:
                    body = decode_body(command)
                    assert isinstance(body, PublishMember), "that is what its kind says"
                    yield body

    # --- who may link -----------------------------------------------------------------------------

    def introduction(self) -> Introduction:
        """What this member says of itself."""
        replace_me = self.is_blank() and self._node.config.replace_damaged_member
        return Introduction(self._is_unused(), self.log_id, replace_me)

    def is_blank(self) -> bool:
        """Whether this member has nothing yet: no term, no entry."""
        raft = self._node.driver.raft
        return not (raft.term or raft.last_index)

    def _is_unused(self) -> bool:
        """Whether this member has taken part in nothing yet: it is as its directory was made, blank
        or out of a backup.
        """
        raft = self._node.driver.raft
        return (raft.last_index, raft.term) == self._beginning.restored

    def was_removed(self, member: int) -> bool:
        """Whether a member was taken out of the cluster, and nothing waits for it any more.

        As long as it is not committed that the configuration is without it, it may be needed for
        just that.
        """
        left = NodeId(member) not in self._node.driver.raft.involved
        return left and MemberId(member) in self._roster.removed

    def refuse_link(self, member: int, introduction: Introduction) -> str:
        """Why a link with this member is refused; "" if it is not.

        A member that has published itself had a term on its disk before. If it comes with another
        log now, or with one that was not used yet, it has forgotten whom it voted for and what it
        acknowledged, and with its vote a majority could be made of members that never saw what was
        promised. Members that were restored know each other's logs from the start: who comes with
        another one has another state.
        """
        if self.was_removed(member):
            return f"member {member:x} was removed from this cluster"
        known = self._roster.members.get(MemberId(member))
        if known is None and MemberId(member) not in self._roster.removed:
            return ""
        said = self._said_log_id(member)
        log_id = self._roster.log_ids.get(MemberId(member), 0)
        if introduction.blank and known is not None and (known.clientURLs or said):
            state = "a log that was not used yet, but it has been part of this cluster"
        elif introduction.log_id == (log_id or said or introduction.log_id):
            return ""
        elif known is not None and not (known.clientURLs or said):
            return (
                f"member {member:x} ({known.name}) was not made by the restore that made this one: "
                "restore all members from the same file, with the same flags"
            )
        else:
            state = "another log than it had"
        if known is None:
            # Its vote is asked for until the configuration is without it.
            return f"member {member:x}, which is about to be removed, comes with {state}"
        return (
            f"member {member:x} ({known.name}) comes with {state}: it lost its data; "
            + joining.REPLACE.format(who=known.name)
        )

    # --- what it says -----------------------------------------------------------------------------

    def members_json(self) -> bytes:
        """The body of GET /members on the peer port.

        Ids are numbers here, unlike in the client API.
        """
        rows = []
        for member in self._roster.listed():
            row: dict[str, object] = {
                "id": member.ID,
                "peerURLs": list(member.peerURLs),
                "name": member.name,
                "clientURLs": list(member.clientURLs),
            }
            if member.isLearner:
                row["isLearner"] = True
            rows.append(row)
        return json.dumps(rows).encode()

    def cluster_json(self) -> bytes:
        """The body of GET /kvstore/cluster."""
        identity = self._node.identity
        said = [each.member_id for each in self._unapplied()]
        view = joining.view_of(identity.cluster_id, identity.members, self._roster, said)
        return joining.encode_view(view)

    def version_json(self) -> bytes:
        """The body of GET /version."""
        cluster = self._node.applier.machine.cluster_version or "not_decided"
        storage = self._node.applier.machine.cluster_version or "unknown"
        return json.dumps(
            {"etcdserver": VERSION, "etcdcluster": cluster, "storage": storage}
        ).encode()

"""Where a member waits that lost its data, until its place is given to another.

It listens as the member that it was, and is linked with nobody. Whoever dials it is told so, and
that is how the leader learns of it: no one but who listens at a member's own URLs can have that
member replaced.
"""

import json
from typing import TYPE_CHECKING

from kvstore.server import joining
from kvstore.server.network.base import Introduction, Network, SnapshotOffer, SnapshotSink
from kvstore.version import VERSION

if TYPE_CHECKING:
    from kvstore.server.joining import ClusterView

_REFUSAL = "this member lost its data, and waits to be replaced"


class Lobby:
    """Implements ``NetworkReceiver``.

    Args:
        member_id: Who lost its data.
        log_id: Of the log that was lost; 0 if that is not known.
        view: The cluster as its members see it; others that join may ask here as well.
        network: Of the member that lost it; for this alone.
    """

    def __init__(self, member_id: int, log_id: int, view: "ClusterView", network: Network) -> None:
        self.member_id = member_id
        self.view = view
        self._log_id = log_id
        self._network = network

    async def start(self) -> None:
        """Listen.

        Raises:
            NetworkError: Somebody else does: the member runs elsewhere, and is not lost.
        """
        await self._network.start(self)

    async def stop(self) -> None:
        """Make room for the new member."""
        await self._network.stop()

    def introduction(self) -> Introduction:
        """That this one is to be replaced."""
        return Introduction(log_id=self._log_id, replace_me=True)

    def refuse_link(self, member: int, introduction: Introduction) -> str:  # noqa: ARG002
        """Nobody is linked with."""
        return _REFUSAL

    async def on_snapshot(self, offer: SnapshotOffer) -> SnapshotSink | str:  # noqa: ARG002
        """Nothing is taken."""
        return _REFUSAL

    def was_removed(self, member: int) -> bool:
        """As the roster has it."""
        return member in self.view.removed

    def on_frame(self, member: int, frame: bytes) -> None:
        """There is no link that a frame could come by."""

    def on_link(self, member: int, *, up: bool) -> None:
        """There is no link."""

    def on_removed(self, teller: int) -> None:
        """That is what this one waits for; the view will say it."""

    def on_lost(self, member: int, introduction: Introduction) -> None:
        """Nobody is dialled from here."""

    def members_json(self) -> bytes:
        """The body of GET /members, in short."""
        return json.dumps([{"id": one.ID, "name": one.name} for one in self.view.members]).encode()

    def cluster_json(self) -> bytes:
        """The body of GET /kvstore/cluster."""
        return joining.encode_view(self.view)

    def version_json(self) -> bytes:
        """The body of GET /version."""
        unknown = {"etcdcluster": "not_decided", "storage": "unknown"}
        return json.dumps({"etcdserver": VERSION, **unknown}).encode()

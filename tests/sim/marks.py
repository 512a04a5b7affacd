"""Rare situations, each counted when it comes up: a run proves little if it met none of them.

A mark is hit by whoever sees the situation (``observer.py``, a fault, a workload, a checker). A
campaign reports how often each came up, and those that never did. A fault can wait for a mark
(``Fault.on``) and strike in the very step in which it comes up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

MARKS = {
    "vote waits for its sync": "a vote was given or asked for, and is not durable yet",
    "leader elected": "a member began to lead",
    "leader stepped down": "a leader saw a newer term, or lost its quorum",
    "old leader still leads": "two members led at once, in different terms",
    "log truncated": "a follower cut entries that a newer leader did not have",
    "truncated in flight": "entries were cut while their write was under way",
    "entries sent before their sync": "a leader's append left before its own disk had it",
    "messages sent before the write was queued": "a leader's append left, its write is yet to come",
    "applied before the answer": "a member applied what it had proposed, nobody knows of it yet",
    "snapshot begun": "a member began to write a snapshot",
    "snapshot named": "a snapshot got its own name, which is not durable yet",
    "snapshot marked": "a snapshot's mark went to the log",
    "snapshot sent": "a leader began to send a snapshot",
    "snapshot installed": "a follower swapped its state for a snapshot",
    "segment prepared": "a segment got its name, which is not durable yet",
    "segment begun": "a log went on in its next segment",
    "segment released": "a segment that a snapshot covers was removed",
    "configuration cut": "a change of the members was taken back by a later leader",
    "configuration appended": "a change of members entered a log",
    "joint consensus": "two configurations were in force at once",
    "transfer begun": "a leader told another to campaign at once",
    "lease expiry proposed": "a leader proposed the end of a lease",
    "compaction applied": "history was forgotten",
    "history undecided": "the search for an order was given up: the run proves less than others",
    "huge command": "a command was applied in slices, with other things between them",
    "watcher compacted": "a watcher lost history that it was still owed",
    "watcher resumed": "a watcher went on elsewhere, where it had stopped",
    "lock held": "a client was told that a lock is its",
    "lock lost": "a client that held a lock found that it does not any more",
    "member added": "a machine joined a cluster that runs",
    "member removed": "a member that was taken out has ended by itself",
    "torn tail cut": "a log that was cut off by a power cut was opened",
    "directory entry lost": "a name that was not synced was gone after a power cut",
    "file torn": "a file that had grown was found with some of it after a power cut",
    "power cut in recovery": "the power went again while a member recovered",
    "killed with unsynced writes": "a process was killed, what it had written was not durable",
    "start refused": "a damaged member refused to start",
    "member begins mute": "a damaged member waits for a snapshot before it takes part",
    "member ended by itself": "a member ended when its disk failed it",
    "member replaced": "a new machine votes in the place of a damaged one",
    "member replaced itself": "a member that lost what it had promised votes again as another",
    "start": "a member was started for the first time",
    "restart": "a member came back on its disk",
}
"""Name to what it means."""


class Marks:
    """The counts of one run."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.on_hit: Callable[[str, int], None] | None = None
        """Called with the mark and the member's number, in the very step."""

    def hit(self, mark: str, member: int = -1) -> None:
        """A situation came up, at this member."""
        assert mark in MARKS, f"{mark!r} is not in MARKS"
        self.counts[mark] += 1
        if self.on_hit is not None:
            self.on_hit(mark, member)

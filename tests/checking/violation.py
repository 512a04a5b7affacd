"""What every checker says when it has found something."""

from __future__ import annotations


class ViolationError(AssertionError):
    """A promise was broken.

    Args:
        checker: Who found it: a name of ``CHECKERS``.
        message: What is wrong, with the evidence in a few lines: a person reads it first.
    """

    def __init__(self, checker: str, message: str) -> None:
        assert checker in CHECKERS, f"{checker} is no checker"
        super().__init__(f"{checker}: {message}")
        self.checker = checker


CHECKERS = {
    "election safety": "at most one leader a term (Raft §5.2)",
    "log matching": "equal index and term means equal logs up to there (Raft §5.3)",
    "leader completeness": "a leader has everything that is committed (Raft §5.4)",
    "state machine safety": "nobody applies another entry at an index (Raft §5.4.3)",
    "monotonic state": "a member's durable term, vote and commit index never go back",
    "one vote a term": "a member votes once a term, whatever happens to it in between (Raft §5.2)",
    "durability": "nothing is acknowledged before it is durable on a quorum, and nothing that was"
    " is lost",
    "linearizability": "there is one order of the calls that explains every answer",
    "watch": "events come ordered, once, whole revisions at a time, without a gap, resumable",
    "lease": "a lease and its keys live as long as was promised, and not much longer",
    "mutual exclusion": "a lock has one holder at a time, by its fence",
    "auth": "who lost a permission sees and changes nothing afterwards",
    "equality": "members that have applied the same hold the same",
    "recovery": "damage is refused or repaired, and said; never served",
    "liveness": "once the faults have ended, the cluster serves again",
    "no surprise": "no member ends, and nothing raises, unless it was made to",
}
"""Name to promise. A planted bug names the checker that is to find it."""

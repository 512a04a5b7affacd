"""What does a committed entry do?

The state machine takes entries in order and changes store, leases, alarms and members by them,
equally on every member; a capture of it can be written out while it goes on, and a loader builds
it anew from that.
"""

from kvstore.apply.capture import Capture
from kvstore.apply.hashes import hash_state, hash_versions
from kvstore.apply.loader import SnapshotLoader
from kvstore.apply.machine import StateMachine
from kvstore.apply.outcome import Outcome
from kvstore.apply.quota import StateLimits, request_cost
from kvstore.apply.refounding import refound

__all__ = [
    "Capture",
    "Outcome",
    "SnapshotLoader",
    "StateLimits",
    "StateMachine",
    "hash_state",
    "hash_versions",
    "refound",
    "request_cost",
]

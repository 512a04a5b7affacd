"""How does a node keep its promises? The driver between raft.

The log, the state machine, the peers and those who wait.
"""

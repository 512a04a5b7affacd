"""What must happen next? The Raft consensus core: events in, effects out.

Pure: no I/O, no clock, no asyncio, no randomness of its own. ``RaftNode.step(event)`` takes what
happened, ``RaftNode.take_effects()`` says what must be done about it. The driver does it and
reports back with further events.
"""

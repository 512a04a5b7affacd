"""Does it hold in real processes when machines, networks, disks and clocks fail on purpose?

``python -m tests.chaos --help``. A *round* is a mixed load on keys of its own, one or two *faults*
under it, the end of the faults, and the judgement of what the clients saw (``tests/checking``).

=================  ================================================================================
``sandbox.py``     namespaces of the kernel, in which everything dies with the run
``relay.py``       the network between the members, in user space
``members.py``     the processes, how they are started, and what they must be like in the end
``recording.py``   what clients did and saw, as a History
``load.py``        the clients, by kind; ``sessions.py``: leases and locks; ``watching.py``
``faults/``        what goes wrong
``rounds.py``      one round after the other; ``report.py`` counts
=================  ================================================================================
"""

"""Whole clusters from a seed: the real members on virtual time, and everything that can go wrong.

Nothing of the product is replaced but time, disk, network and randomness (``tests/support``). One
run:

- ``world.py`` builds the cluster, lets clients work and faults happen, ends the faults, and asks
  the judges;
- ``profile.py`` says how large and how rough it is; ``schedule.py`` draws the faults of a seed, as
  plain data that can be printed, shortened and replayed;
- ``faults/`` carries them out, one function a kind; ``workloads/`` are the clients;
- ``observer.py`` sees every step of every member; ``checkers/`` judge what it sees, while the
  judges of what clients saw are in ``tests/checking``;
- ``marks.py`` counts the rare situations that came up; faults can wait for one;
- ``trace.py`` is what happened, line by line: equal seeds, equal bytes.
"""

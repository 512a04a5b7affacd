"""``python -m tests.fuzz``: start a node, ask it everything for a while, tell what did not fit."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.e2e.cluster import Cluster
from tests.fuzz.fuzzing import Fuzzing


def main() -> int:
    """The exit code: 0 if every answer fits, 1 if some do not or the node failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long (default: 120)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is asked (default: 1)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        # Passwords are tried by the thousand: one that costs a second would be all that happens.
        cluster = Cluster(Path(directory), size=1, flags=["--bcrypt-cost=4"])
        (member,) = cluster.members
        try:
            cluster.start()
            fuzzing = Fuzzing(member.client_url, given.seed)
            fuzzing.run(given.seconds)
            alive = member.is_running
            log = member.log()
        finally:
            cluster.close()
    say = sys.stdout.write
    for finding in fuzzing.findings.values():
        say(f"\n{finding}\n")
    say(
        f"\n{fuzzing.asked} requests to {len(fuzzing.answered)} operations in {fuzzing.rounds} "
        f"rounds, seed {given.seed}: {len(fuzzing.findings)} findings\n"
    )
    for status, count in sorted(fuzzing.statuses.items()):
        say(f"  {status}: {count}\n")
    silent = sorted(fuzzing.operations - fuzzing.answered)
    if silent:
        say(f"never answered: {', '.join(silent)}\n")
    if not alive:
        say(f"the node ended:\n{log}\n")
    return 1 if fuzzing.findings or silent or not alive else 0


if __name__ == "__main__":
    sys.exit(main())

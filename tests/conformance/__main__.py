"""``python -m tests.conformance``: as many sequences as asked for."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.conformance.grpc_servers import GrpcServer
from tests.conformance.search import Search
from tests.conformance.servers import ETCD, Server

PROGRESS_EVERY = 20


def main() -> int:
    """Returns 0 if all sequences agree, 1 if one differs, 2 without etcd."""
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many sequences")
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first seed")
    parser.add_argument("--grpc", action="store_true", help="ask over gRPC what it can say")
    options = parser.parse_args()
    if ETCD is None:
        sys.stderr.write("etcd is not installed: there is nothing to compare with.\n")
        return 2
    start = time.monotonic()
    last = options.first + options.seeds - 1
    with tempfile.TemporaryDirectory(prefix="conformance") as directory:
        search = Search(Path(directory), make=GrpcServer if options.grpc else Server)
        with search:
            for number, seed in enumerate(range(options.first, last + 1), start=1):
                trouble = search.run(seed)
                if trouble is not None:
                    sys.stdout.write(trouble + "\n")
                    return 1
                if number % PROGRESS_EVERY == 0:
                    seconds = time.monotonic() - start
                    sys.stderr.write(f"\r{number} of {options.seeds} agree, {seconds:.0f} s ")
                    sys.stderr.flush()
        seconds = time.monotonic() - start
        sys.stdout.write(
            f"\n{options.seeds} sequences agree (seeds {options.first} to {last}), "
            f"{search.calls} calls, {seconds:.0f} s.\n"
        )
        for name, times in sorted(search.explained.items()):
            sys.stdout.write(f"{times:8} x {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

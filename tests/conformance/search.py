"""Seed after seed, until an answer differs; then the shortest sequence that shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.conformance.bench import Failure, Pair, Tamper, new_pair
from tests.conformance.calls import Call
from tests.conformance.generate import sequence
from tests.conformance.report import Transcript, describe
from tests.conformance.servers import Server
from tests.conformance.shrink import shortest

FRESH_EVERY: Final = 100
"""Sequences a pair of servers lives through: some begin on a store that was never compacted."""

FRESH_ATTEMPTS_MAX: Final = 60
"""How often servers are started to cut one sequence down."""


class Search:
    """Runs sequences on pairs of servers that it starts and ends.

    Args:
        directory: for the servers' data.
        tamper: as for ``Pair``.
        make: how the servers are asked.
    """

    def __init__(
        self, directory: Path, tamper: Tamper | None = None, make: type[Server] = Server
    ) -> None:
        self._directory = directory
        self._tamper = tamper
        self._make = make
        self._stack = contextlib.ExitStack()
        self._pairs = 0
        self._runs = 0
        self._pair: Pair | None = None
        self.calls = 0
        self.explained: dict[str, int] = {}

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_pair()

    def run(self, seed: int) -> str | None:
        """Run a seed's sequence; None if both servers agree, else what differs, in words."""
        calls = sequence(seed)
        if self._runs % FRESH_EVERY == 0:
            self._end_pair()
        self._runs += 1
        failure = self.try_(calls)
        if failure is None:
            return None
        return self._shortened(calls[: failure.index + 1], failure, seed)

    def try_(self, calls: Sequence[Call]) -> Failure | None:
        """One sequence, on the servers that are there."""
        pair = self._pair or self._begin_pair()
        try:
            return pair.run(calls)
        except (AssertionError, OSError):
            # Whatever it did, it must show on new servers too; that it did not is no proof.
            self._end_pair()
            return self._begin_pair().run(calls)

    def _shortened(self, calls: Sequence[Call], failure: Failure, seed: int) -> str:
        def fails(candidate: Sequence[Call]) -> bool:
            found = self.try_(candidate)
            return found is not None and found.kind == failure.kind

        def fails_on_fresh(candidate: Sequence[Call]) -> bool:
            self._end_pair()
            return fails(candidate)

        # Fresh servers first: what is printed can then be repeated by hand on such.
        if not fails_on_fresh(calls):
            return describe(calls, failure, ["(it does not happen again on fresh servers)"], seed)
        if fails(calls):
            least = shortest(calls, fails)
        else:
            # Only a store that has never been anything else shows it.
            least = shortest(calls, fails_on_fresh, FRESH_ATTEMPTS_MAX)
        self._end_pair()
        pair = self._begin_pair()
        transcript = Transcript()
        pair.before_call = lambda call: transcript.add(call, pair.kvstore)
        again = pair.run(least)
        return describe(least, again or failure, transcript.lines, seed)

    def _begin_pair(self) -> Pair:
        self._pairs += 1
        directory = self._directory / f"pair{self._pairs}"
        self._pair = self._stack.enter_context(new_pair(directory, self._tamper, self._make))
        return self._pair

    def _end_pair(self) -> None:
        if self._pair is not None:
            self.calls += self._pair.calls
            for name, times in self._pair.explained.items():
                self.explained[name] = self.explained.get(name, 0) + times
        self._pair = None
        self._stack.close()

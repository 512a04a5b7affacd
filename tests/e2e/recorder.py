"""Writers that keep a record of each write's fate, and the comparison of the record with a node."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, Self

from kvstore.client import Client, Tls, prefix_end
from kvstore.errors import KvError, UnknownOutcomeError
from kvstore.types import KeyValue
from tests.e2e.cluster import Cluster
from tests.e2e.processes import wait_for

WRITERS: Final = 6
WRITE_SECONDS: Final = 3.0
"""A writer that got no answer for so long counts its write as unknown, and goes elsewhere."""
PROGRESS_WRITES: Final = 50
PROGRESS_SECONDS: Final = 20.0
PAUSE_SECONDS: Final = 0.05


class Recorder:
    """Some writers, each with keys of its own, each key written once.

    ``acknowledged`` and ``unknown`` hold what was written; ``refused`` the keys of which the
    client said that nothing happened.
    """

    def __init__(
        self, urls: Sequence[str], prefix: bytes, writers: int = WRITERS, tls: Tls | None = None
    ) -> None:
        self.prefix = prefix
        self._tls = tls
        self.acknowledged: dict[bytes, bytes] = {}
        self.unknown: dict[bytes, bytes] = {}
        self.refused: set[bytes] = set()
        self.errors: list[Exception] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number, urls)) for number in range(writers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int, urls: Sequence[str]) -> None:
        try:
            # Each begins with another endpoint; the client goes on to the next when one fails.
            first = number % len(urls)
            urls = [*urls[first:], *urls[:first]]
            with Client(urls, WRITE_SECONDS, tls=self._tls) as client:
                self._write(client, number)
        except Exception as error:  # noqa: BLE001 - a writer that ends must not end unseen
            self.errors.append(error)

    def _write(self, client: Client, number: int) -> None:
        sequence = 0
        while not self._stop.is_set():
            key = b"%s%d/%08d" % (self.prefix, number, sequence)
            value = b"writer %d, write %d" % (number, sequence)
            sequence += 1
            try:
                client.put(key, value)
            except UnknownOutcomeError:
                self.unknown[key] = value
            except KvError:
                self.refused.add(key)
                self._stop.wait(PAUSE_SECONDS)
            else:
                self.acknowledged[key] = value

    def wait_progress(self) -> None:
        """Wait until more writes are acknowledged: the cluster goes on."""
        enough = len(self.acknowledged) + PROGRESS_WRITES
        wait_for(
            f"{PROGRESS_WRITES} more acknowledged writes",
            lambda: len(self.acknowledged) >= enough,
            PROGRESS_SECONDS,
        )

    def check(self, found: Sequence[KeyValue]) -> None:
        """Compare with what a node holds under the prefix.

        Raises:
            AssertionError: An acknowledged write is lost or differs, a write happened twice, or one
                that was refused happened.
        """
        assert self.errors == []
        held = {pair.key: pair for pair in found}
        lost = [
            key
            for key, value in self.acknowledged.items()
            if key not in held or held[key].value != value
        ]
        assert lost == [], f"{len(lost)} of {len(self.acknowledged)} acknowledged writes lost"
        written = self.acknowledged | self.unknown
        strange = [pair for key, pair in held.items() if written.get(key) != pair.value]
        assert strange == [], "there are writes that nobody made, or that were said not to be"
        twice = [pair.key for pair in found if pair.version != 1]
        assert twice == [], "writes that were sent once were applied more than once"


def check_everywhere(cluster: Cluster, recorder: Recorder) -> None:
    """Check each member's answers, and that all members hold the same at the same revision."""
    end = prefix_end(recorder.prefix)
    revisions = set()
    for member in cluster.members:
        with member.client(30.0) as client:
            response = client.get(recorder.prefix, end)
        recorder.check(response.kvs)
        assert response.header is not None
        revisions.add(response.header.revision)
    states = []
    for member in cluster.members:
        with member.client(30.0) as client:
            states.append(
                client.get(recorder.prefix, end, revision=min(revisions), serializable=True).kvs
            )
    assert all(state == states[0] for state in states)

"""Load a directory tree into a cluster over plain REST, path as key, bytes as value; read it back.

python -m tests.e2e.load_tree /etc --endpoints 127.0.0.1:2379,127.0.0.1:22379,127.0.0.1:32379
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import queue
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes, urlsplit

ATTEMPT_SECONDS: Final = 5.0
GIVE_UP_SECONDS: Final = 30.0
PAUSE_SECONDS: Final = 0.1
CONNECTIONS: Final = 8
ENDPOINTS: Final = "127.0.0.1:2379,127.0.0.1:22379,127.0.0.1:32379"
TOO_LARGE: Final = "etcdserver: request is too large"


class Answer(NamedTuple):
    """What a node said."""

    status: int
    body: bytes


class Loaded(NamedTuple):
    """What became of the files: keys that were acknowledged, and the errors of those refused."""

    stored: set[bytes]
    refused: dict[bytes, Answer]


def regular_files(root: Path) -> Iterator[Path]:
    """Every regular file below a directory, in order; links are not followed."""
    for directory, subdirectories, names in os.walk(root):
        subdirectories.sort()
        for name in sorted(names):
            path = Path(directory, name)
            try:
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path
            except OSError:
                continue  # Gone since the listing.


def read_files(paths: Iterable[Path]) -> Iterator[tuple[bytes, bytes]]:
    """Path and bytes of each file that may be read."""
    for path in paths:
        try:
            yield bytes(path), path.read_bytes()
        except OSError:
            continue  # Not for our eyes, or gone.


class Session:
    """One connection at a time, to the endpoint that answered last. Not for several threads."""

    def __init__(self, urls: Sequence[str], first: int = 0) -> None:
        self._urls = [urlsplit(url if "://" in url else f"http://{url}") for url in urls]
        self._position = first
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, key: bytes, body: bytes | None = None) -> Answer:
        """Ask one endpoint after the other until one decides.

        A put that is sent again carries the same value to the same key, so doing it twice is the
        same as once: here, unlike in general, a write may be repeated after an unknown outcome.

        Raises:
            TimeoutError: Nobody decided in time.
        """
        deadline = time.monotonic() + GIVE_UP_SECONDS
        last = "no attempt"
        while time.monotonic() < deadline:
            try:
                answer = self._attempt(method, "/v1/kv/" + quote_from_bytes(key, safe="/"), body)
            except (OSError, http.client.HTTPException) as error:
                last = repr(error)
                self.close()
            else:
                if answer.status < http.client.INTERNAL_SERVER_ERROR:
                    return answer
                last = f"{answer.status} {answer.body[:200]!r}"
            self._next_endpoint()
        raise TimeoutError(f"{method} {key!r}: no decision in {GIVE_UP_SECONDS} s, last: {last}")

    def _attempt(self, method: str, path: str, body: bytes | None) -> Answer:
        if self._connection is None:
            url = self._urls[self._position % len(self._urls)]
            assert url.hostname is not None, f"an endpoint must be http://host:port, not {url}"
            self._connection = http.client.HTTPConnection(
                url.hostname, url.port, timeout=ATTEMPT_SECONDS
            )
        self._connection.request(method, path, body)
        response = self._connection.getresponse()
        return Answer(response.status, response.read())

    def _next_endpoint(self) -> None:
        self.close()
        self._position += 1
        if self._position % len(self._urls) == 0:
            time.sleep(PAUSE_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _in_parallel(
    keys: Iterable[bytes],
    urls: Sequence[str],
    connections: int,
    work: Callable[[Session, bytes], None],
) -> None:
    """Call ``work`` for each key, on several connections; the first error is raised here."""
    todo: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for key in keys:
        todo.put(key)
    errors: list[Exception] = []

    def run(number: int) -> None:
        session = Session(urls, number)
        try:
            while not errors:
                work(session, todo.get_nowait())
        except queue.Empty:
            pass
        except Exception as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)
        finally:
            session.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def load(
    files: Mapping[bytes, bytes],
    urls: Sequence[str],
    *,
    connections: int = CONNECTIONS,
    on_stored: Callable[[int], None] = lambda count: None,
) -> Loaded:
    """Store every file; ``on_stored`` hears how many are.

    Raises:
        TimeoutError: A file could neither be stored nor was refused.
    """
    loaded = Loaded(set(), {})
    counter = itertools.count(1)

    def put(session: Session, key: bytes) -> None:
        answer = session.ask("PUT", key, files[key])
        if answer.status in (http.client.OK, http.client.CREATED):
            loaded.stored.add(key)
            on_stored(next(counter))
        else:
            loaded.refused[key] = answer

    _in_parallel(files, urls, connections, put)
    return loaded


def differing(
    files: Mapping[bytes, bytes],
    keys: Iterable[bytes],
    urls: Sequence[str],
    *,
    connections: int = CONNECTIONS,
) -> list[bytes]:
    """The keys whose value, read back over these endpoints, is not the file byte for byte."""
    wrong: list[bytes] = []

    def compare(session: Session, key: bytes) -> None:
        if session.ask("GET", key) != Answer(http.client.OK, files[key]):
            wrong.append(key)

    _in_parallel(keys, urls, connections, compare)
    return wrong


def reason(answer: Answer) -> str:
    """The message of a refusal."""
    try:
        return str(json.loads(answer.body)["message"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.status} {answer.body[:200]!r}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def main() -> int:
    """Load the trees that the command line names, read them back, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("roots", nargs="+", type=Path, help="directories")
    parser.add_argument(
        "--endpoints",
        default=os.environ.get("KVSTORE_ENDPOINTS", ENDPOINTS),
        help="members, host:port, separated by commas (default: %(default)s)",
    )
    arguments = parser.parse_args()
    urls = arguments.endpoints.split(",")
    files = dict(
        itertools.chain.from_iterable(read_files(regular_files(root)) for root in arguments.roots)
    )
    start = time.monotonic()
    loaded = load(files, urls)
    seconds = time.monotonic() - start
    for key, answer in sorted(loaded.refused.items()):
        _say(f"refused: {os.fsdecode(key)}: {reason(answer)}")
    size = sum(len(files[key]) for key in loaded.stored)
    _say(f"stored {len(loaded.stored)} files, {size:,} bytes, in {seconds:.1f} s")
    wrong = differing(files, loaded.stored, urls)
    _say(f"read back: {len(loaded.stored) - len(wrong)} equal, {len(wrong)} different")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

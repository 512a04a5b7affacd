"""What a client may make us do, and hold, beyond what its calls need."""

from collections import OrderedDict
from typing import Final, Protocol

RESET_BURST: Final = 4096
RESETS_PER_SECOND: Final = 200
"""Streams that a client opens and takes back, or breaks a rule on.

Each costs us a call that nobody waits for (CVE-2023-44487). One client that leaves may give up all
its streams at once; it does not do so all day.
"""
IDLE_BURST: Final = 1000
IDLE_PER_SECOND: Final = 100
"""Frames that bring nothing: empty DATA, PRIORITY, SETTINGS, late and unknown ones."""
UPDATES_PER_FRAME: Final = 4
"""WINDOW_UPDATEs for each DATA frame that we sent: a careful client sends two."""
UPDATE_BURST: Final = 10_000
UPDATES_PER_SECOND: Final = 2_000
"""Beyond that: grpc's own client sends one for each message that it reads, many of which may be in
a frame, and a hundred watch streams begin together.
"""

WINDOW_IN_BYTES: Final = 1024 * 1024
"""What a client may send before we say that it may send more; nothing waits for anybody there."""
GRANT_BYTES: Final = 16 * 1024 * 1024
"""Bytes of large messages that one connection may send at a time beyond the streams' windows."""


class Allowance:
    """So many at once, and so many a second from then on.

    Args:
        burst: most at once.
        per_second: how many more each second allows.
    """

    __slots__ = ("_burst", "_left", "_per_second", "_then")

    def __init__(self, burst: float, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = burst
        self._then = 0.0

    def spend(self, now: float) -> bool:
        """Count one; False if it is one too many.

        Args:
            now: seconds.
        """
        left = self._left + (now - self._then) * self._per_second
        self._then = now
        self._left = min(left, self._burst) - 1.0
        return self._left >= 0.0


class Granted(Protocol):
    """Whoever wants to send a message that is longer than a window."""

    def on_grant(self, size_bytes: int) -> None:
        """The message may come."""


class Grants:
    """Lets large messages come in whole, some at a time.

    A stream's window is small, so that a thousand streams hold little. A message that is larger
    gets a window of its own size once there is room: then it can always be finished. Were there one
    pool that all messages drew from piece by piece, they could fill it with parts and wait for each
    other for ever.

    Args:
        bytes_max: most bytes granted at a time; a message longer than this comes alone.
    """

    __slots__ = ("_bytes_max", "_granted", "_held", "_waiting")

    def __init__(self, bytes_max: int = GRANT_BYTES) -> None:
        self._bytes_max = bytes_max
        self._granted = 0
        self._held: dict[Granted, int] = {}
        self._waiting: OrderedDict[Granted, int] = OrderedDict()

    @property
    def granted_bytes(self) -> int:
        """What is granted now."""
        return self._granted

    def ask(self, whose: Granted, size_bytes: int) -> None:
        """Have ``on_grant`` called once there is room, perhaps at once; one message at a time."""
        self._waiting[whose] = size_bytes
        self._serve()

    def release(self, whose: Granted) -> None:
        """The message is there, or will not come: what it had goes to the next."""
        size = self._held.pop(whose, None)
        if size is None:
            self._waiting.pop(whose, None)
        else:
            self._granted -= size
        self._serve()

    def _serve(self) -> None:
        waiting = self._waiting
        while waiting:
            whose, size = next(iter(waiting.items()))
            if self._granted and self._granted + size > self._bytes_max:
                return
            del waiting[whose]
            self._granted += size
            self._held[whose] = size
            whose.on_grant(size)

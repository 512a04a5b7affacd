"""Tokens that mean nothing by themselves: each member remembers whose they are.

A token is 16 random letters, a dot, and the index of the entry that gave it out, so no two are
alike. They are no part of the replicated state: how long one lasts is each member's own clock.
"""

import string
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvstore.auth.identity import Identity
from kvstore.errors import ErrorKind

if TYPE_CHECKING:
    import random

PREFIX_LETTERS: Final = 16
TOKENS_MAX: Final = 100_000
"""Remembered at a time; when there are more, the one that was not used for longest is void."""


class SimpleTokens:
    """Whose each token is, until it was not used for ``ttl_seconds``.

    Args:
        clock: Monotonic seconds.
        ttl_seconds: How long a token lasts after its last use.
        rng: Where letters come from; nobody may guess it.
        count_max: At most so many tokens.

    What entries of a former life give out is not remembered (``outlive``): those tokens ended with
    it. Without this, a restart would renew tokens that have run out long ago.
    """

    __slots__ = (
        "_by_user",
        "_clock",
        "_count_max",
        "_deadlines",
        "_former_index",
        "_rng",
        "_ttl_seconds",
        "_users",
        "dropped_total",
    )

    def __init__(
        self,
        clock: Callable[[], float],
        ttl_seconds: float,
        rng: "random.Random",
        count_max: int = TOKENS_MAX,
    ) -> None:
        self._clock = clock
        self._ttl_seconds = ttl_seconds
        self._rng = rng
        self._count_max = count_max
        self._users: dict[str, str] = {}
        # In the order of last use, which is that of the deadlines: all last equally long.
        self._deadlines: dict[str, float] = {}
        self._by_user: dict[str, dict[str, None]] = {}
        self.dropped_total = 0
        self._former_index = 0

    def __len__(self) -> int:
        return len(self._users)

    def new_prefix(self) -> str:
        """The random part of a new token."""
        return "".join(self._rng.choices(string.ascii_letters, k=PREFIX_LETTERS))

    def identify(self, token: str, auth_revision: int) -> Identity:
        """Whose token it is, as of now; its time begins anew.

        Raises:
            KvError: INVALID_AUTH_TOKEN: nobody's, or not any more.
        """
        self._forget_late()
        user = self._users.get(token)
        if user is None:
            raise ErrorKind.INVALID_AUTH_TOKEN.error()
        del self._deadlines[token]
        self._deadlines[token] = self._clock() + self._ttl_seconds
        return Identity(user, auth_revision)

    def outlive(self, index: int) -> None:
        """The log goes up to here at the start: what these entries give out is void."""
        self._former_index = index

    # --- told by the state machine ----------------------------------------------------------------

    def assign(self, user: str, token: str) -> None:
        """From now on this token stands for this user."""
        _, _, index = token.rpartition(".")
        if int(index) <= self._former_index:
            return
        self._forget_late()
        if len(self._users) >= self._count_max:
            self.dropped_total += 1
            self._forget(next(iter(self._deadlines)))
        self._users[token] = user
        self._deadlines[token] = self._clock() + self._ttl_seconds
        self._by_user.setdefault(user, {})[token] = None

    def forget_user(self, user: str) -> None:
        """The user's password changed, or the user is gone."""
        for token in self._by_user.pop(user, ()):
            del self._users[token]
            del self._deadlines[token]

    def clear(self) -> None:
        """All tokens are void."""
        self._users.clear()
        self._deadlines.clear()
        self._by_user.clear()

    def _forget_late(self) -> None:
        now = self._clock()
        while self._deadlines:
            token, deadline = next(iter(self._deadlines.items()))
            if deadline > now:
                return
            self._forget(token)

    def _forget(self, token: str) -> None:
        user = self._users.pop(token)
        del self._deadlines[token]
        tokens = self._by_user[user]
        del tokens[token]
        if not tokens:
            del self._by_user[user]

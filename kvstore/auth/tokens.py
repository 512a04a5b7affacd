"""Who remembers which token stands for whom."""

from typing import Protocol


class TokenSink(Protocol):
    """Is told by the state machine of tokens that come and go.

    Tokens are no part of the replicated state: a member that restarts, or takes in a snapshot, has
    forgotten them, and its clients log in again.
    """

    def assign(self, user: str, token: str) -> None:
        """From now on this token stands for this user."""

    def forget_user(self, user: str) -> None:
        """The user's password changed, or the user is gone: its tokens are void."""

    def clear(self) -> None:
        """All tokens are void."""


class NoTokens:
    """Remembers nothing: where tokens prove themselves, or nobody logs in."""

    __slots__ = ()

    def assign(self, user: str, token: str) -> None:
        """Nothing to do."""

    def forget_user(self, user: str) -> None:
        """Nothing to do."""

    def clear(self) -> None:
        """Nothing to do."""

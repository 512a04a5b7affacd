"""Who calls, and how patient they are: what a face knows of a request beyond its message."""

import msgspec

from kvstore.types.base import masked


class Caller(msgspec.Struct, frozen=True, gc=False):
    """One caller.

    ``token`` is the bearer's token, if any; ``timeout_seconds`` the caller's own limit on the call
    (None: the server's; 0: it is over); ``has_leader`` asks for an error at once, rather than
    patience, while the cluster has no leader. ``common_name`` is that of a verified certificate,
    from faces where it may stand for a user.
    """

    token: str | None = None
    timeout_seconds: float | None = None
    has_leader: bool = False
    common_name: str | None = None

    def __repr__(self) -> str:
        return masked(self, "token")


ANYBODY = Caller()
"""A caller who said nothing about itself."""

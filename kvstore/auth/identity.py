"""Who asks, and as of which revision of users and roles that is known."""

from typing import Final

import msgspec

from kvstore.commands import SYSTEM_AUTH_REVISION


class Identity(msgspec.Struct, frozen=True, gc=False):
    """A user as of a revision of users, roles and permissions.

    Stamped into each command, so that a right that was taken away meanwhile counts no more.
    """

    user: str
    revision: int


NOBODY: Final = Identity("", 0)
"""Somebody who did not say; everybody, while authentication is off."""

SYSTEM: Final = Identity("", SYSTEM_AUTH_REVISION)
"""The members themselves."""

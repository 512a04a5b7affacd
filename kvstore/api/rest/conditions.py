"""If-Match and If-None-Match (RFC 9110 §13): compare-and-set, and answers that need not be sent.

A key's entity tag is its mod revision, quoted: ``"42"``. Revisions are never used twice, so the tag
is a strong one.
"""

import re
from typing import Final

from kvstore.api.rest.request import bad_request

_TAG: Final = re.compile(r'[ \t]*(?:(W/)?"([\x21\x23-\x7e\x80-\U0010ffff]*)"[ \t]*)?(?:,|$)')
_REVISION: Final = re.compile(r"[1-9][0-9]{0,18}")
_INT64_MAX: Final = (1 << 63) - 1

TAGS_MAX: Final = 32
"""How many tags a list may hold: each becomes a comparison in a transaction."""


class Tags:
    """What a condition names.

    Args:
        anything: the condition is ``*``.
        strong: revisions named by strong tags.
        weak: revisions named by any tag, weak or strong.
    """

    __slots__ = ("anything", "strong", "weak")

    def __init__(self, anything: bool, strong: frozenset[int], weak: frozenset[int]) -> None:
        self.anything = anything
        self.strong = strong
        self.weak = weak

    def has_strong(self, mod_revision: int) -> bool:
        """Whether a key at this revision matches by strong comparison; 0 is a missing key."""
        return mod_revision > 0 and (self.anything or mod_revision in self.strong)

    def has_weak(self, mod_revision: int) -> bool:
        """Whether a key at this revision matches by weak comparison; 0 is a missing key."""
        return mod_revision > 0 and (self.anything or mod_revision in self.weak)


def parse_tags(text: str | None, header: str) -> Tags | None:
    """The condition in a header; None if there is none.

    Raises:
        KvError: neither ``*`` nor a list of entity tags.
    """
    if text is None:
        return None
    if text.strip() == "*":
        return Tags(True, frozenset(), frozenset())
    strong: set[int] = set()
    weak: set[int] = set()
    found = at = 0
    while at < len(text):
        match = _TAG.match(text, at)
        if match is None:
            raise bad_request(f'{header} must be * or a list of entity tags such as "42"')
        at = match.end()
        opaque = match[2]
        if opaque is None:
            continue
        found += 1
        # A tag that is no revision was never ours: it matches nothing, which is not an error.
        if _REVISION.fullmatch(opaque) and int(opaque) <= _INT64_MAX:
            weak.add(int(opaque))
            if match[1] is None:
                strong.add(int(opaque))
    if not found or found > TAGS_MAX:
        raise bad_request(f"{header} must name between 1 and {TAGS_MAX} entity tags, or be *")
    return Tags(False, frozenset(strong), frozenset(weak))

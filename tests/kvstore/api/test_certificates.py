"""A name counts only if somebody verified the certificate that it stands in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kvstore.api.certificates import common_name_of


class Connection(asyncio.Transport):
    def __init__(self, certificate: Any) -> None:
        super().__init__({} if certificate is None else {"peercert": certificate})


def subject(*names: str) -> dict[str, Any]:
    parts = tuple((("commonName", name),) for name in names)
    return {"subject": ((("organizationName", "o"),), *parts)}


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        (None, None),
        ({}, None),
        (subject(), None),
        (subject(""), None),
        (subject("alice"), "alice"),
        (subject("alice", "bob"), "bob"),
    ],
)
def test_the_last_common_name_that_is_not_empty_is_the_clients(certificate, name):
    assert common_name_of(Connection(certificate)) == name

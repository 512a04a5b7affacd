"""Calls of the Auth service, and the few users and roles that they are about."""

from __future__ import annotations

from typing import Any, Final

from tests.conformance.calls import Call
from tests.conformance.material import Material

ROOT_PASSWORD: Final = "rootpw"

TABLE: Final[tuple[Any, ...]] = ()


def founding(material: Material) -> list[Call]:
    return []

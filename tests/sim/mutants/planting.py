"""How a bug is planted in the product, and pulled out again.

A *mutant* replaces methods and functions of ``raft``, ``wal`` or ``kvstore`` by wrong ones. Nothing
is changed in a file: the wrong one stands in the class, or wherever the right one was imported to.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import msgspec

from tests.checking.violation import CHECKERS

PACKAGES = ("raft", "wal", "kvstore")
LEFT_OUT = ("kvstore.cli.__main__",)
"""Importing it runs it."""

AGED = 60
"""Entries of a log that hardly a unit test reaches: many bugs are planted in what comes later, in
their plain form."""

Made = Callable[..., Any]
Make = Callable[[Made], Made]
"""Given the right function, returns the wrong one."""


class Planting:
    """Puts wrong functions where right ones are, and remembers what was there.

    Args:
        instead: Given the right and the wrong function, returns what is to stand there; the wrong
            one, unless somebody only wants to know who would meet it.
    """

    def __init__(self, instead: Callable[[Made, Made], Made] | None = None) -> None:
        self._instead = instead or (lambda _, wrong: wrong)
        self._undo: list[Callable[[], None]] = []

    def method(self, owner: type, name: str, make: Make) -> None:
        """Replace a method of a class."""
        right = owner.__dict__[name]
        setattr(owner, name, self._instead(right, make(right)))
        self._undo.append(lambda: setattr(owner, name, right))

    def function(self, right: Made, make: Make) -> None:
        """Replace a function of a module wherever it was imported to, in tables too."""
        tables = [vars(module) for module in product_modules()]
        tables += [each for table in tables for each in table.values() if type(each) is dict]
        places = [(table, key) for table in tables for key in table if _is(table[key], right)]
        assert places, f"nobody has {right}"
        there = places[0][0][places[0][1]]
        wrong = make(there)
        # So that whoever comes after finds it.
        wrong.__wrapped__ = there  # type: ignore[attr-defined]
        put = self._instead(there, wrong)
        for table, key in places:
            self._set(table, key, put)

    def imported(self, module: ModuleType, name: str, make: Make) -> None:
        """Replace a function as one module knows it."""
        right = vars(module)[name]
        self._set(vars(module), name, self._instead(right, make(right)))

    def _set(self, table: dict[Any, Any], key: object, put: object) -> None:
        before = table[key]
        table[key] = put
        self._undo.append(lambda: table.__setitem__(key, before))

    def undo(self) -> None:
        """Let everything be as it was."""
        while self._undo:
            self._undo.pop()()


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """A bug that can be planted.

    Attributes:
        name: Short, for a command line.
        wrong: What is wrong, in a sentence.
        source: Where it comes from: who made this mistake before, or the rule that it breaks.
        checker: Who is to find it: a name of ``CHECKERS``.
        blunt: The plain form of it that the unit tests find already, and what made it subtler; ""
            if the plain form survives them.
        plant: Plants it.
    """

    name: str
    wrong: str
    source: str
    checker: str
    plant: Callable[[Planting], None]
    blunt: str = ""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """While this lasts, the bug is in the product."""
        planting = Planting()
        try:
            self.plant(planting)
            yield
        finally:
            planting.undo()


def mutant(
    *, wrong: str, source: str, checker: str, blunt: str = ""
) -> Callable[[Callable[[Planting], None]], Mutant]:
    """Make a mutant of a function that plants one; its name is the function's."""
    assert checker in CHECKERS, f"{checker} is no checker"

    def made(plant: Callable[[Planting], None]) -> Mutant:
        return Mutant(
            name=plant.__name__.replace("_", "-"),
            wrong=wrong,
            source=source,
            checker=checker,
            plant=plant,
            blunt=blunt,
        )

    return made


def _is(held: object, function: Made) -> bool:
    """Whether this is that function, or what was put in its place."""
    while held is not function:
        if not callable(held) or "__wrapped__" not in getattr(held, "__dict__", ()):
            return False
        held = held.__wrapped__  # type: ignore[attr-defined]
    return True


class Stand:
    """Stands for an object, but for some of its attributes."""

    def __init__(self, of: object, **instead: Any) -> None:
        self._of = of
        vars(self).update(instead)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


def import_product() -> None:
    """Import every module of the product, so that none can come later and keep the right one."""
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        for found in pkgutil.walk_packages(path, f"{package}."):
            if found.name not in LEFT_OUT:
                importlib.import_module(found.name)


def product_modules() -> list[ModuleType]:
    """Every module of the product that is imported, in the order of their names."""
    return [
        module
        for name, module in sorted(sys.modules.items())
        if name.partition(".")[0] in PACKAGES and isinstance(module, ModuleType)
    ]

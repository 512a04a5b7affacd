"""Plant bugs for a run of pytest: ``pytest -p tests.sim.mutants.plugin --mutant NAME``.

``--mutant-reach FILE`` plants nothing, and writes down which test meets the place of which mutant;
with ``--mutant-reached FILE`` besides ``--mutant`` only those tests run that meet its place: to all
others it makes no difference.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim.mutants.catalog import MUTANTS, find
from tests.sim.mutants.planting import Made, Planting, import_product

_reached: defaultdict[str, dict[str, None]] = defaultdict(dict)
_running = [""]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("mutants")
    group.addoption("--mutant", action="append", default=[], help="plant this bug")
    group.addoption("--mutant-reach", help="write down which tests meet which mutant's place")
    group.addoption("--mutant-reached", help="run only the tests that meet the mutant's place")


def pytest_configure(config: pytest.Config) -> None:
    """Plant what was asked for, for good: the process ends with the run."""
    import_product()
    for name in config.getoption("--mutant"):
        find(name).plant(Planting())
    if config.getoption("--mutant-reach"):
        for mutant in MUTANTS:
            mutant.plant(Planting(functools.partial(_note, mutant.name)))


def _note(name: str, right: Made, _wrong: Made) -> Made:
    tests = _reached[name]

    @functools.wraps(right)
    def noted(*args: object, **kwargs: object) -> object:
        tests[_running[0]] = None
        return right(*args, **kwargs)

    return noted


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note whose turn it is."""
    _running[0] = item.nodeid
    return (yield)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that do not meet the mutant."""
    file = config.getoption("--mutant-reached")
    if not file:
        return
    reached = json.loads(Path(file).read_text())
    wanted = {test for name in config.getoption("--mutant") for test in reached.get(name, ())}
    left_out = [item for item in items if item.nodeid not in wanted]
    items[:] = [item for item in items if item.nodeid in wanted]
    config.hook.pytest_deselected(items=left_out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write down who met what."""
    file = session.config.getoption("--mutant-reach")
    if file:
        Path(file).write_text(json.dumps({name: list(tests) for name, tests in _reached.items()}))

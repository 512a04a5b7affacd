"""The bugs themselves: are they what the catalog says, and do they come out again?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sim.mutants.catalog import MUTANTS, find
from tests.sim.mutants.hunt import Hunt, hunt
from tests.sim.mutants.planting import Mutant, import_product, product_modules
from tests.sim.profile import PROFILES

MUTANTS_MIN = 28
TESTS = Path(__file__).resolve().parents[2]


def _product() -> dict[tuple[str, str], object]:
    """Everything that a mutant may have replaced, by module or class and by name."""
    found: dict[tuple[str, str], object] = {}
    for module in product_modules():
        for name, value in vars(module).items():
            found[module.__name__, name] = value
            if isinstance(value, type) and value.__module__ == module.__name__:
                for attribute, held in vars(value).items():
                    found[f"{module.__name__}.{name}", attribute] = held
            elif type(value) is dict:
                for key, held in value.items():
                    found[f"{module.__name__}.{name}", str(key)] = held
    return found


def test_there_are_enough_and_each_has_a_name_of_its_own():
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) >= MUTANTS_MIN
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_is_planted_is_there_and_comes_out_again(mutant: Mutant):
    import_product()
    before = _product()
    with mutant.planted():
        planted = _product()
    after = _product()
    assert any(planted[place] is not held for place, held in before.items()), "nothing is planted"
    assert all(after[place] is held for place, held in before.items()), "something stays"


def test_what_a_bug_is_said_to_fail_plainly_is_a_test_that_there_is():
    there = "".join(path.read_text() for path in sorted(TESTS.rglob("test_*.py")))
    for mutant in MUTANTS:
        for name in re.findall(r"(?<!/)\btest_\w+", mutant.blunt):
            assert f"def {name}(" in there, (mutant.name, name)


def test_a_bug_is_hunted_until_the_checker_that_is_meant_to_finds_it():
    result = hunt(find("news-before-the-sync"), PROFILES["default"], range(1, 20))
    assert result.found, result.row()
    assert result.evidence


def test_a_bug_that_is_none_is_not_found():
    harmless = Mutant(name="none", wrong="", source="", checker="durability", plant=lambda _: None)
    result = hunt(harmless, PROFILES["default"], range(1, 3))
    assert (result.found, result.others, result.seeds) == (False, {}, 2)
    assert "NOT FOUND" in Hunt(harmless).row()

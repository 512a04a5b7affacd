"""A failing sequence is made shorter: it still fails, and nothing is in it that need not be."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conformance.generate import CALLS, sequence
from tests.conformance.shrink import ATTEMPTS_MAX, shortest


@given(st.sets(st.integers(0, 49), min_size=1, max_size=4))
def test_only_the_items_that_the_failure_needs_are_left(needed: set[int]) -> None:
    assert shortest(range(50), needed.issubset) == sorted(needed)


def test_order_is_kept() -> None:
    def fails(items: Sequence[str]) -> bool:
        text = "".join(items)
        return "a" in text and "b" in text[text.index("a") :]

    assert shortest("xxaybxxzab", fails) in (["a", "b"], ["b", "a", "b"])


def test_a_failure_that_needs_everything_ends_the_search() -> None:
    tried: list[int] = []

    def fails(items: Sequence[int]) -> bool:
        tried.append(len(items))
        return False

    assert shortest(range(500), fails) == list(range(500))
    assert len(tried) == ATTEMPTS_MAX


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_seed_means_the_same_sequence_every_time(seed: int) -> None:
    assert sequence(seed) == sequence(seed)
    assert len(sequence(seed)) == CALLS


def test_seeds_mean_different_sequences() -> None:
    assert sequence(1) != sequence(2)

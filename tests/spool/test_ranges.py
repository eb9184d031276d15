"""Ranges of numbers, beside a plain set."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from recorder.spool.ranges import Ranges

PAIRS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12)


def numbers(ranges: Ranges) -> set[int]:
    return {number for first, end in ranges for number in range(first, end)}


@given(PAIRS, st.integers(0, 41), st.integers(0, 41), st.integers(0, 41))
def test_ranges_hold_what_a_set_would(pairs: list[tuple[int, int]], first: int, end: int, cut: int) -> None:
    """Adding, cutting and asking for what is missing give what the same does with a set."""
    ranges, model = Ranges(pairs), {number for pair in pairs for number in range(*pair)}
    assert numbers(ranges) == model
    missing = ranges.missing(first, end)
    assert {number for pair in missing for number in range(*pair)} == set(range(first, end)) - model
    ranges.cut(cut)
    assert numbers(ranges) == {number for number in model if number < cut}


@given(PAIRS)
def test_ranges_that_touch_are_one(pairs: list[tuple[int, int]]) -> None:
    """Ranges are in order, not empty, and at least one number apart."""
    found = list(Ranges(pairs))
    assert all(first < end for first, end in found)
    assert all(one[1] < other[0] for one, other in pairwise(found))

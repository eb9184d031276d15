"""Buckets and cells: where days begin, and merging in any order."""

from datetime import date, datetime, time
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.store.buckets import DAY, STEPS, Buckets, Cells, Step, add_sample, merge

Samples = list[tuple[str, float, float]]
values = st.floats(-1e6, 1e6, allow_subnormal=False)
samples = st.lists(st.tuples(st.sampled_from(["a", "b"]), values, st.floats(0.001, 60)), max_size=20)


def cells_of(some: Samples) -> Cells:
    cells: Cells = {}
    for name, value, weight in some:
        add_sample(cells, {name: value}, weight)
    return cells


@given(samples, samples)
def test_merged_cells_are_those_of_all_samples(one: Samples, other: Samples) -> None:
    """Two buckets merged are the bucket that all samples would have made, whichever comes first."""
    whole = cells_of(one + other)
    for first, second in ((one, other), (other, one)):
        merged = cells_of(first)
        merge(merged, cells_of(second))
        assert merged.keys() == whole.keys()
        for name, (weight, total, low, high) in merged.items():
            assert (low, high) == tuple(whole[name][2:])
            assert (weight, total) == pytest.approx(tuple(whole[name][:2]), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("Europe/Berlin", date(2026, 6, 1), 24),
        ("Asia/Kathmandu", date(2026, 6, 1), 24),
        # Summer time begins at midnight there: the day begins at one o'clock.
        ("America/Santiago", date(2026, 9, 6), 23),
    ],
)
def test_days_are_local(zone: str, day: date, hours: int) -> None:
    """A day begins at local midnight and has the hours that it has."""
    buckets = Buckets(zone)
    noon = datetime.combine(day, time(12), ZoneInfo(zone))
    begin = buckets.begin(DAY, noon.timestamp())
    assert datetime.fromtimestamp(begin, ZoneInfo(zone)).date() == noon.date()
    assert datetime.fromtimestamp(begin - 1, ZoneInfo(zone)).date() < noon.date()
    assert buckets.following(DAY, begin) - begin == hours * 3600


@given(st.floats(0, 4e9), st.sampled_from(STEPS), st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia"]))
def test_each_time_is_in_one_bucket(at_s: float, step: Step, zone: str) -> None:
    """A bucket holds its own beginning and ends where the next begins."""
    buckets = Buckets(zone)
    begin = buckets.begin(step, at_s)
    following = buckets.following(step, begin)
    assert begin <= at_s < following
    assert buckets.begin(step, following) == following
    run = list(buckets.beginnings(step, begin, following + 5 * step.width_seconds))
    assert all(buckets.following(step, one) == other for one, other in pairwise(run))

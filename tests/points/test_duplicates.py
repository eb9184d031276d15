"""Samples of one device over several connections: each is taken once."""

from collections import Counter

import pytest

from recorder.points.duplicates import DeviceOwners, Sample, Stream
from tests.pipeline.test_pipeline import catalogue

SECOND = 10**9
NOW = 1_795_331_980 * SECOND


def sample(number: int, off_ns: int = 0, value: float | None = None) -> Sample:
    """The sample of a second, with a value of its own unless one is given."""
    values = {"active_power": float(number) if value is None else value}
    return Sample(catalogue().profiles[0], values, NOW + number * SECOND + off_ns, off_ns)


class Site:
    """Streams of one site, and the seconds whose samples were stored."""

    def __init__(self) -> None:
        self.owners = DeviceOwners()
        self.stored: list[int] = []
        self.streams = {name: Stream(Counter()) for name in "abc"}

    def bring(self, name: str, one: Sample) -> None:
        self._store(self.owners.admit(self.streams[name], one))

    def leave(self, name: str) -> None:
        self._store(self.owners.leave(self.streams[name]))

    def duplicates(self, name: str) -> int:
        return self.streams[name].counts["duplicate_samples"]

    def _store(self, samples: object) -> None:
        for one in samples:  # type: ignore[attr-defined]
            self.stored.append(((one.time_ns or 0) - one.offset_ns - NOW) // SECOND)


@pytest.mark.parametrize("value", [None, 1.0])
@pytest.mark.parametrize("off_s", [0, 0.4, -0.4])
def test_owner_that_falls_silent_is_followed_without_a_gap(off_s: float, value: float | None) -> None:
    """Also where all samples have the same values."""
    site, off_ns = Site(), round(off_s * SECOND)
    for number in range(20):
        if number < 10:
            site.bring("a", sample(number, value=value))
        site.bring("b", sample(number, off_ns, value))
    assert site.stored == list(range(20))
    assert site.duplicates("b") == 10


def test_clocks_that_differ_by_seconds_do_not_matter() -> None:
    """The copy is ten seconds ahead by its own clock."""
    site = Site()
    for number in range(30):
        if number < 10:
            site.bring("a", sample(number))
        site.bring("b", sample(number, 10 * SECOND))
    assert site.stored == list(range(30))


def test_owner_that_is_late_with_what_another_has_brought_adds_nothing() -> None:
    """Its network stalls for ten seconds; then it brings all of that at once."""
    site = Site()
    for number in range(5):
        site.bring("a", sample(number))
        site.bring("b", sample(number))
    for number in range(5, 15):
        site.bring("b", sample(number))
    for number in range(5, 15):
        site.bring("a", sample(number))
    for number in range(15, 20):
        site.bring("a", sample(number))
        site.bring("b", sample(number))
    assert site.stored == list(range(20))


def test_what_an_old_connection_brings_late_is_stored() -> None:
    """A new connection is ahead by a minute; the old one brings its last samples after that."""
    site = Site()
    for number in range(5):
        site.bring("a", sample(number))
    for number in range(60, 65):
        site.bring("b", sample(number))
    for number in range(5, 8):
        site.bring("a", sample(number))
    site.leave("a")
    assert sorted(site.stored) == [*range(8), *range(60, 65)]


def test_copy_that_comes_after_the_owner_has_gone_adds_nothing() -> None:
    """All of it is known, or older than what is remembered."""
    site = Site()
    for number in range(200):
        site.bring("a", sample(number))
    site.leave("a")
    for number in range(205):
        site.bring("b", sample(number, SECOND // 100))
    assert site.stored == list(range(205))


def test_connection_that_ends_leaves_what_the_owner_did_not_bring() -> None:
    """The owner was gone without a word, and the new connection ends after two samples."""
    site = Site()
    for number in range(5):
        site.bring("a", sample(number))
    for number in (10, 11):
        site.bring("b", sample(number))
    site.leave("b")
    site.bring("c", sample(12))
    assert site.stored == [*range(5), 10, 11, 12]


@pytest.mark.parametrize("by_s", [-1800, 1800])
def test_own_clock_that_is_set_makes_no_duplicate_and_no_gap(by_s: int) -> None:
    """While two streams bring a device."""
    site = Site()
    for number in range(20):
        if number == 10:
            site.owners.clock_was_set(by_s * SECOND)
        off_ns = by_s * SECOND if number >= 10 else 0
        site.bring("a", sample(number, off_ns))
        site.bring("b", sample(number, off_ns))
    assert site.stored == list(range(20))


@pytest.mark.parametrize("held", [2, 3, 5, 7])
@pytest.mark.parametrize("overlap", [1, 3, 8])
def test_hand_over_of_values_that_repeat_loses_nothing(held: int, overlap: int) -> None:
    """The new connection overlaps the old one by some samples; each value is held for some seconds."""
    for begin in range(20, 20 + held):
        site = Site()
        for number in range(60):
            one = sample(number, value=float(number // held))
            if number >= begin:
                site.bring("b", one)
            if number < begin + overlap:
                site.bring("a", one)
            if number == begin + overlap:
                site.leave("a")
        assert site.stored == list(range(60))


def test_second_meter_of_the_same_unit_never_takes_over() -> None:
    """Its values differ at the same times: while the owner is silent, none of them is stored."""
    site = Site()
    for number in range(60):
        if not 20 <= number < 40:
            site.bring("a", sample(number))
        site.bring("b", sample(number, SECOND // 10, value=1000.0 + number))
    assert site.stored == [*range(20), *range(40, 60)]

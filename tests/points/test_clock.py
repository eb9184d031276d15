"""The controller's clock: kept while it is right, corrected by one held offset while it is not."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from recorder.points.clock import ControllerClock

SECOND = 10**9
NOW = 1_795_331_980 * SECOND
HOUR = 3600 * SECOND


def test_stamps_of_a_right_clock_are_kept() -> None:
    """Within the tolerance the stamp is the time, to the nanosecond."""
    clock = ControllerClock(Counter())
    assert [clock.correct(NOW + i, NOW + i + SECOND) for i in range(3)] == [NOW, NOW + 1, NOW + 2]


def test_wrong_clock_is_corrected_by_one_offset() -> None:
    """Distances between stamps are kept, whatever the network does."""
    clock = ControllerClock(Counter())
    first = clock.correct(NOW - HOUR, NOW)
    second = clock.correct(NOW - HOUR + SECOND, NOW + SECOND + SECOND // 2)
    assert (first, second) == (NOW, NOW + SECOND)


def test_text_that_waited_before_the_connection_keeps_its_time() -> None:
    """The first lines of a connection may be old: half a minute is no wrong clock."""
    clock = ControllerClock(Counter())
    assert clock.correct(NOW - 30 * SECOND, NOW) == NOW - 30 * SECOND
    assert clock.correct(NOW, NOW) == NOW


def test_clock_set_back_is_noticed_at_once() -> None:
    """After a step of an hour, back or forth, points go on at the recorder's time."""
    counts: Counter[str] = Counter()
    clock = ControllerClock(counts)
    clock.correct(NOW, NOW)
    assert clock.correct(NOW + SECOND - HOUR, NOW + SECOND) == NOW + SECOND
    assert clock.correct(NOW + 2 * SECOND, NOW + 2 * SECOND) == NOW + 2 * SECOND
    assert counts["clock_steps"] == 2


def test_stalled_network_moves_no_point() -> None:
    """Text that was held back for 30 s keeps the time at which it was written."""
    counts: Counter[str] = Counter()
    clock = ControllerClock(counts)
    clock.correct(NOW, NOW)
    assert [clock.correct(NOW + i * SECOND, NOW + 30 * SECOND) for i in range(1, 31)] == [
        NOW + i * SECOND for i in range(1, 31)
    ]
    assert counts["clock_steps"] == 0


def test_slow_drift_is_corrected_in_steps() -> None:
    """A clock that stays behind by more than the tolerance is corrected after a minute."""
    counts: Counter[str] = Counter()
    clock = ControllerClock(counts)
    clock.correct(NOW, NOW)
    times = [clock.correct(NOW + i * SECOND - 3 * SECOND, NOW + i * SECOND) for i in range(1, 100)]
    assert times[0] == NOW - 2 * SECOND
    assert times[-1] == NOW + 99 * SECOND
    assert counts["clock_steps"] == 1


@given(st.lists(st.tuples(st.integers(0, 2 * NOW), st.integers(0, 2 * NOW))))
def test_no_stamp_raises(stamps: list[tuple[int, int]]) -> None:
    """Any stamp at any time gives some time."""
    clock = ControllerClock(Counter())
    assert all(isinstance(clock.correct(stamp, at), int) for stamp, at in stamps)

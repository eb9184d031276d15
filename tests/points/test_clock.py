"""The controller's clock: kept while it is right, corrected by one held offset while it is not."""

from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from recorder.points.clock import ControllerClock

SECOND = 10**9
NOW = 1_795_331_980 * SECOND
HOUR = 3600 * SECOND
YEAR = 365 * 24 * HOUR
TOLERANCE = 2 * SECOND
TIMES = st.integers(-2 * NOW, 2 * NOW)


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


def test_slow_drift_is_told_from_the_network() -> None:
    """Where text comes 3 or 4 s late for a minute, the clock is 3 s behind: the rest is the network's."""
    clock = ControllerClock(Counter())
    for second in range(100):
        clock.correct(NOW + second * SECOND, NOW + (second + 4 - second % 2) * SECOND)
    assert clock.offset_seconds == 3


def test_pause_ends_the_lateness_of_text() -> None:
    """Text was 40 s late, then nothing came for a minute: what another clock stamps then is new."""
    clock = ControllerClock(Counter())
    assert clock.correct(NOW - 40 * SECOND, NOW) == NOW - 40 * SECOND
    assert clock.correct(NOW + HOUR, NOW + 60 * SECOND) == NOW + 60 * SECOND


def test_clock_set_back_by_seconds_is_noticed_by_its_stamps() -> None:
    """Stamps that go back by 10 s are a set clock at once, though text may be as late as that."""
    counts: Counter[str] = Counter()
    clock = ControllerClock(counts)
    clock.correct(NOW, NOW)
    times = [clock.correct(NOW + i * SECOND - 10 * SECOND, NOW + i * SECOND) for i in range(1, 5)]
    assert times == [NOW + i * SECOND for i in range(1, 5)]
    assert counts["clock_steps"] == 1


@given(st.integers(0, 50 * SECOND))
def test_clock_set_right_gives_its_own_stamps(late_ns: int) -> None:
    """However late the first text after that comes, a right stamp is the time."""
    clock = ControllerClock(Counter())
    assert clock.correct(NOW + HOUR, NOW) == NOW
    assert clock.correct(NOW + SECOND, NOW + SECOND + late_ns) == NOW + SECOND


@given(
    st.sampled_from((-YEAR, -HOUR, HOUR, YEAR)),
    st.integers(0, 49 * SECOND),
    st.integers(1, SECOND),
)
def test_late_text_that_holds_a_step_keeps_its_time(ahead_ns: int, late_ns: int, apart_ns: int) -> None:
    """Lines of both clocks in one late chunk are as far apart as they were written, but for one distance."""
    clock = ControllerClock(Counter())
    received_at_ns = NOW + 4 * apart_ns + late_ns
    ahead = (0, 0, ahead_ns, ahead_ns, 0)
    times = [clock.correct(NOW + line * apart_ns + by_ns, received_at_ns) for line, by_ns in enumerate(ahead)]
    errors_ns = [time_ns - NOW - line * apart_ns for line, time_ns in enumerate(times)]
    assert errors_ns[:2] == [0, 0]
    assert all(-apart_ns <= error_ns <= TOLERANCE for error_ns in errors_ns[2:4])
    assert errors_ns[4] == 0


# Two clocks of which each is set to any time, or goes on for a while.
STEPS = st.one_of(st.integers(-3 * SECOND, 3 * SECOND), st.integers(-100 * SECOND, 100 * SECOND), TIMES)
MOVES = st.lists(st.tuples(STEPS, STEPS), max_size=30)


def lines_of(moves: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stamps and receipts, each moved from the line before."""
    stamped_at_ns, received_at_ns = NOW, NOW
    lines = []
    for stamp_by_ns, receipt_by_ns in moves:
        stamped_at_ns, received_at_ns = stamped_at_ns + stamp_by_ns, received_at_ns + receipt_by_ns
        lines.append((stamped_at_ns, received_at_ns))
    return lines


@given(MOVES)
def test_no_point_is_of_the_future(moves: list[tuple[int, int]]) -> None:
    """Whatever is set, no time is later than the receipt by more than the tolerance."""
    clock = ControllerClock(Counter())
    for stamped_at_ns, received_at_ns in lines_of(moves):
        assert clock.correct(stamped_at_ns, received_at_ns) <= received_at_ns + TOLERANCE


@given(MOVES)
def test_each_change_of_the_offset_is_counted(moves: list[tuple[int, int]]) -> None:
    """After the first line, no stamp is corrected otherwise than before without a step that is counted."""
    counts: Counter[str] = Counter()
    clock = ControllerClock(counts)
    clock.correct(NOW, NOW)
    for stamped_at_ns, received_at_ns in lines_of(moves):
        before = (clock.offset_seconds, counts["clock_steps"])
        clock.correct(stamped_at_ns, received_at_ns)
        assert clock.offset_seconds == before[0] or counts["clock_steps"] == before[1] + 1


@example([], -10 * SECOND, HOUR, [0] * 65)
@given(MOVES, STEPS, st.integers(0, HOUR), st.lists(st.integers(0, SECOND), min_size=65, max_size=65))
def test_once_steady_for_a_minute_times_are_right(
    moves: list[tuple[int, int]], ahead_ns: int, pause_ns: int, late_ns: list[int]
) -> None:
    """Whatever was set before, after a minute of steady clocks the time is that of the receipt.

    It is off by the tolerance at most, beside the second for which text is on its way.
    """
    clock = ControllerClock(Counter())
    lines = [(NOW, NOW), *lines_of(moves)]
    for stamped_at_ns, received_at_ns in lines:
        clock.correct(stamped_at_ns, received_at_ns)
    began_ns = lines[-1][1] + pause_ns
    for second, on_its_way_ns in enumerate(late_ns):
        written_at_ns = began_ns + second * SECOND
        time_ns = clock.correct(written_at_ns + ahead_ns, written_at_ns + on_its_way_ns)
    assert abs(time_ns - written_at_ns) <= TOLERANCE + SECOND


def descending(lags: list[int]) -> list[int]:
    return sorted(lags, reverse=True)


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(-130, 130) | st.integers(-3, 3), min_size=1, max_size=5)
            | st.lists(st.integers(-3, 3) | st.integers(3, 60), min_size=1, max_size=3).map(descending),
            st.integers(-3, 90),
        ),
        max_size=20,
    )
)
def test_lines_of_a_chunk_are_corrected_as_one_by_one(chunks: list[tuple[list[int], int]]) -> None:
    """Times, offset and counted steps are the same, whatever the clocks do."""
    one: Counter[str] = Counter()
    other: Counter[str] = Counter()
    singly, together = ControllerClock(one), ControllerClock(other)
    received_at_ns = 1_795_000_000 * 10**9
    for late_seconds, pause_seconds in chunks:
        received_at_ns += pause_seconds * 10**9
        stamps_ns = [received_at_ns - late * 10**9 for late in late_seconds]
        expected = [singly.correct(stamp_ns, received_at_ns) for stamp_ns in stamps_ns]
        in_order = stamps_ns == sorted(stamps_ns)
        offset_ns = together.offset_of(stamps_ns[0], stamps_ns[-1], received_at_ns) if in_order else None
        if offset_ns is None:
            found = [together.correct(stamp_ns, received_at_ns) for stamp_ns in stamps_ns]
        else:
            found = [stamp_ns + offset_ns for stamp_ns in stamps_ns]
        assert found == expected
        assert together.offset_seconds == singly.offset_seconds
    assert other == one

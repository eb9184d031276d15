"""The controller's clock: kept while it is right, corrected by one held offset while it is not."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.points.clock import ControllerClock, Sender

SECOND = 10**9
NOW = 1_795_331_980 * SECOND
HOUR = 3600 * SECOND
YEAR = 365 * 24 * HOUR
TOLERANCE = 2 * SECOND

Line = tuple[int, int]
"""Stamp and receipt, in ns."""


def timed(clock: ControllerClock, chunks: list[list[Line]], *, end: bool = True) -> list[int]:
    """Times of all lines, in their order; lines that the clock is not sure of wait, as in the pipeline."""
    times: list[int] = []
    held: list[tuple[int, int]] = []
    for chunk in chunks:
        stamps = [stamp_ns for stamp_ns, _ in chunk]
        received_ns = chunk[0][1]
        is_sorted = stamps == sorted(stamps)
        offset_ns = None
        if is_sorted and not held:
            offset_ns = clock.offset_of(stamps[0], stamps[-1], received_ns)
        if offset_ns is not None:
            times += [stamp_ns + offset_ns for stamp_ns in stamps]
            continue
        held += [(stamp_ns, clock.place(stamp_ns, received_ns)) for stamp_ns in stamps]
        clock.end_chunk()
        if not clock.is_learning:
            times += [stamp_ns + clock.offset_in(segment) for stamp_ns, segment in held]
            held.clear()
    if end:
        clock.decide()
        times += [stamp_ns + clock.offset_in(segment) for stamp_ns, segment in held]
    return times


def live(seconds: int, ahead_ns: int = 0, late_ns: int = 0, start_ns: int = NOW) -> list[list[Line]]:
    """A line a second, of a clock that is ahead by so much, each received so late."""
    return [
        [(start_ns + second * SECOND + ahead_ns, start_ns + second * SECOND + late_ns)]
        for second in range(seconds)
    ]


def truth(seconds: int) -> list[int]:
    return [NOW + second * SECOND for second in range(seconds)]


def new_clock(counts: Counter[str] | None = None, sender: Sender | None = None) -> ControllerClock:
    return ControllerClock(Counter() if counts is None else counts, sender=sender)


@pytest.mark.parametrize("ahead_ns", [0, SECOND, -SECOND, -SECOND * 17 // 10])
def test_stamps_of_a_right_clock_are_kept(ahead_ns: int) -> None:
    """Within the tolerance the stamp is the time, to the nanosecond."""
    assert timed(new_clock(), live(20, ahead_ns)) == [time_ns + ahead_ns for time_ns in truth(20)]


@pytest.mark.parametrize("ahead_ns", [-3 * SECOND, 5 * SECOND, -30 * SECOND, 60 * SECOND, -HOUR, YEAR])
def test_wrong_clock_is_corrected_from_the_first_line_on(ahead_ns: int) -> None:
    """Lines wait until the offset is known, and all have the same one."""
    counts: Counter[str] = Counter()
    assert timed(new_clock(counts), live(20, ahead_ns)) == truth(20)
    assert counts["clock_steps"] == 0


@pytest.mark.parametrize("late_s", [1, 5, 30])
@pytest.mark.parametrize("ahead_ns", [0, 5 * SECOND, -5 * SECOND, -30 * SECOND, HOUR])
def test_first_lines_that_are_read_late_shift_nothing(ahead_ns: int, late_s: int) -> None:
    """The offset is learned from the lines that come in time."""
    received_ns = NOW + late_s * SECOND
    waiting = [(time_ns + ahead_ns, received_ns) for time_ns in truth(late_s + 1)]
    chunks = [waiting, *live(10, ahead_ns, start_ns=received_ns + SECOND)]
    assert timed(new_clock(), chunks) == truth(late_s + 11)


@pytest.mark.parametrize("ahead_ns", [0, 10 * SECOND, -10 * SECOND])
def test_what_was_learned_outlives_the_connection(ahead_ns: int) -> None:
    """The first line of the next connection has the offset of the one before, at once."""
    sender = Sender()
    timed(new_clock(sender=sender), live(10, ahead_ns))
    again = new_clock(sender=sender)
    assert timed(again, live(1, ahead_ns), end=False) == [NOW]
    assert not again.is_learning


def test_offset_of_the_connection_before_that_no_longer_holds_is_learned_anew() -> None:
    """A controller whose clock was set while it was away is corrected from its first line on."""
    for before_ns, after_ns in ((0, -10 * SECOND), (0, 10 * SECOND), (-10 * SECOND, 0), (HOUR, -HOUR)):
        sender = Sender()
        timed(new_clock(sender=sender), live(10, before_ns))
        assert timed(new_clock(sender=sender), live(20, after_ns)) == truth(20)


def test_line_that_comes_alone_is_kept() -> None:
    """A connection that ends at once gives its line: one that is ten seconds late is no wrong clock."""
    assert timed(new_clock(), [[(NOW - 10 * SECOND, NOW)]]) == [NOW - 10 * SECOND]
    assert timed(new_clock(), [[(NOW - HOUR, NOW)]]) == [NOW]
    assert timed(new_clock(), [[(NOW + 10 * SECOND, NOW)]]) == [NOW]


@pytest.mark.parametrize("late_s", [5, 30, 300])
@pytest.mark.parametrize("ahead_ns", [0, 5 * SECOND, -HOUR])
def test_stalled_network_moves_no_point(ahead_ns: int, late_s: int) -> None:
    """Text that was held back keeps the time at which it was written, however long that was."""
    counts: Counter[str] = Counter()
    clock = new_clock(counts)
    times = timed(clock, live(10, ahead_ns), end=False)
    received_ns = NOW + (10 + late_s) * SECOND
    waiting = [(NOW + (10 + i) * SECOND + ahead_ns, received_ns) for i in range(late_s + 1)]
    pieces = [waiting[start : start + 16] for start in range(0, len(waiting), 16)]
    assert [*times, *timed(clock, pieces)] == truth(late_s + 11)
    assert counts["clock_steps"] == 0


def test_text_that_comes_ever_later_keeps_its_time() -> None:
    """A recorder that falls behind, by half a second each second, does not shift what it reads."""
    chunks = [[(NOW + i * SECOND, NOW + i * SECOND * 3 // 2)] for i in range(120)]
    clock = new_clock(sender=Sender(0))
    assert timed(clock, chunks) == truth(120)


@pytest.mark.parametrize("by_ns", [-3 * SECOND, 3 * SECOND, -40 * SECOND, HOUR, -YEAR])
def test_clock_that_was_set_is_noticed_at_once(by_ns: int) -> None:
    """Lines before and behind the step are right, and nothing waits."""
    counts: Counter[str] = Counter()
    clock = new_clock(counts, Sender(0))
    chunks = [
        [(NOW + i * SECOND // 5 + (by_ns if i >= 20 else 0), NOW + i * SECOND // 5 + 1000)] for i in range(40)
    ]
    times = timed(clock, chunks, end=False)
    assert len(times) == 40
    for i, time_ns in enumerate(times):
        assert abs(time_ns - NOW - i * SECOND // 5) <= SECOND // 4
    assert counts["clock_steps"] == 1


def test_late_text_after_a_pause_waits_for_what_it_proves() -> None:
    """Ten seconds late for good is a clock that was set back; late for a moment is the network."""
    for is_set in (True, False):
        clock = new_clock(sender=Sender(0))
        timed(clock, live(5), end=False)
        after_ns = NOW + 60 * SECOND
        first = [[(after_ns - 10 * SECOND, after_ns)]]
        assert timed(clock, first, end=False) == []
        later = live(5, -10 * SECOND if is_set else 0, start_ns=after_ns + SECOND)
        held = timed_behind(clock, first, later)
        assert held[0] == (after_ns if is_set else after_ns - 10 * SECOND)


def timed_behind(clock: ControllerClock, placed: list[list[Line]], chunks: list[list[Line]]) -> list[int]:
    """Times of lines that were placed before, once the chunks behind them have come."""
    segment = clock._segment
    timed(clock, chunks, end=False)
    return [stamp_ns + clock.offset_in(segment) for ((stamp_ns, _),) in placed]


@pytest.mark.parametrize("apart_s", [5, 10])
@pytest.mark.parametrize("ppm", [100, -100, 1000, -1000])
def test_drift_is_corrected_within_the_tolerance(ppm: int, apart_s: int) -> None:
    """By rare steps, of a bus that is polled every five or ten seconds; the order of samples is kept."""
    seconds = 6_000_000 // abs(ppm)
    counts: Counter[str] = Counter()
    lines = [
        [(NOW + i * SECOND + i * ppm * 1000, NOW + i * SECOND + i * 7919 % 101 * SECOND // 500)]
        for i in range(0, seconds, apart_s)
    ]
    times = timed(new_clock(counts), lines)
    assert len(times) == len(lines)
    assert max(abs(time_ns - NOW - i * apart_s * SECOND) for i, time_ns in enumerate(times)) <= TOLERANCE
    assert counts["clock_steps"] <= 2 + seconds * abs(ppm) // 500_000
    assert times == sorted(times)


def test_clock_set_right_gives_its_own_stamps() -> None:
    """However wrong it was, a right stamp is the time."""
    clock = new_clock()
    timed(clock, live(5, HOUR), end=False)
    assert timed(clock, live(5, start_ns=NOW + 5 * SECOND)) == [NOW + i * SECOND for i in range(5, 10)]
    assert clock.offset_ns == 0


@pytest.mark.parametrize("by_ns", [SECOND, -3 * SECOND, 1800 * SECOND, -1800 * SECOND, YEAR, -YEAR])
@pytest.mark.parametrize("ahead_ns", [0, -10 * SECOND, HOUR])
def test_own_clock_that_is_set_moves_times_at_once(ahead_ns: int, by_ns: int) -> None:
    """The next line has a time by the new clock, and no step of the controller's clock is counted."""
    counts: Counter[str] = Counter()
    clock = new_clock(counts)
    timed(clock, live(10, ahead_ns), end=False)
    clock.clock_was_set(by_ns)
    chunks = [[(stamp_ns, received_ns + by_ns)] for ((stamp_ns, received_ns),) in live(20, ahead_ns)[10:]]
    times = timed(clock, chunks, end=False)
    right = [NOW + i * SECOND + by_ns for i in range(10, 20)]
    assert max(abs(time_ns - right_ns) for time_ns, right_ns in zip(times, right, strict=True)) <= TOLERANCE
    assert counts["clock_steps"] == 0


def test_own_clock_that_is_set_while_lines_wait_moves_them_too() -> None:
    """Lines whose offset is not known yet have times by the new clock."""
    clock = new_clock()
    segment = clock.place(NOW - 10 * SECOND, NOW)
    clock.end_chunk()
    clock.clock_was_set(HOUR)
    for second in range(1, 5):
        clock.place(NOW + (second - 10) * SECOND, NOW + second * SECOND + HOUR)
        clock.end_chunk()
    assert not clock.is_learning
    assert NOW - 10 * SECOND + clock.offset_in(segment) == NOW + HOUR


# Stamps and receipts of lines, each from the line before: of our own clock the caller tells that it was set.
STEPS = st.one_of(st.integers(-3 * SECOND, 3 * SECOND), st.integers(-100 * SECOND, 100 * SECOND))
MOVES = st.lists(st.tuples(STEPS, st.integers(0, 3 * SECOND) | st.integers(0, 100 * SECOND)), max_size=30)


def lines_of(moves: list[tuple[int, int]]) -> list[list[Line]]:
    """Stamps and receipts, each moved from the line before."""
    stamp_ns, received_ns, chunks = NOW, NOW, []
    for stamp_by_ns, receipt_by_ns in moves:
        stamp_ns, received_ns = stamp_ns + stamp_by_ns, received_ns + receipt_by_ns
        chunks.append([(stamp_ns, received_ns)])
    return chunks


@settings(deadline=None)
@given(MOVES)
def test_every_line_gets_a_time(moves: list[tuple[int, int]]) -> None:
    """Whatever is set, no line is lost, and each change of the offset is counted."""
    counts: Counter[str] = Counter()
    clock = new_clock(counts, Sender(0))
    offsets = [0]
    for chunk in lines_of(moves):
        timed(clock, [chunk], end=False)
        if not clock.is_learning:
            offsets.append(clock.offset_ns)
    clock.decide()
    offsets.append(clock.offset_ns)
    assert counts["clock_steps"] >= sum(before != after for before, after in pairwise(offsets[1:]))
    assert len(timed(new_clock(), lines_of(moves))) == len(moves)


@settings(deadline=None)
@given(MOVES, STEPS, st.lists(st.integers(0, SECOND // 2), min_size=65, max_size=65))
def test_once_steady_for_a_minute_times_are_right(
    moves: list[tuple[int, int]], ahead_ns: int, late_ns: list[int]
) -> None:
    """Whatever was set before, after a minute of steady clocks the time is right within the tolerance."""
    clock = new_clock()
    chunks = [*lines_of(moves), [(NOW, NOW)]]
    timed(clock, chunks, end=False)
    began_ns = chunks[-1][0][1]
    steady = [
        [(began_ns + i * SECOND + ahead_ns, began_ns + i * SECOND + by_ns)] for i, by_ns in enumerate(late_ns)
    ]
    times = timed(clock, steady)
    assert abs(times[-1] - began_ns - 64 * SECOND) <= TOLERANCE + SECOND // 2


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(-3, 60), min_size=1, max_size=4).map(
                lambda late: sorted(late, reverse=True)
            ),
            st.integers(0, 20),
        ),
        max_size=20,
    )
)
def test_lines_of_a_chunk_are_corrected_as_one_by_one(chunks: list[tuple[list[int], int]]) -> None:
    """Times and state are the same where the clock takes a chunk at once."""
    one: Counter[str] = Counter()
    other: Counter[str] = Counter()
    singly, together = new_clock(one, Sender(0)), new_clock(other, Sender(0))
    received_ns = NOW
    for late_seconds, pause_seconds in chunks:
        received_ns += pause_seconds * SECOND
        stamps_ns = [received_ns - late * SECOND for late in late_seconds]
        offset_ns = together.offset_of(stamps_ns[0], stamps_ns[-1], received_ns)
        segments = [singly.place(stamp_ns, received_ns) for stamp_ns in stamps_ns]
        singly.end_chunk()
        if offset_ns is None:
            for stamp_ns in stamps_ns:
                together.place(stamp_ns, received_ns)
            together.end_chunk()
        else:
            assert not singly.is_learning
            assert {singly.offset_in(segment) for segment in segments} == {offset_ns}
        assert together.offset_ns == singly.offset_ns
        assert together.is_learning == singly.is_learning
    assert other == one

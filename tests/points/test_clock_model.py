"""Clock cases by a model of their own: every stored time is within the tolerance of the truth, once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pipeline.test_pipeline import NOON_S
from tests.points.clock_model import (
    CASES,
    NS,
    TOLERANCE_S,
    Case,
    Notes,
    Recorder,
    chunks,
    compare,
    constant,
    outcome,
    replayed,
    run,
    steps,
)

# One of each kind; `python -m tests.points.clock_model` runs all of them.
KINDS = (
    "controller 10 s behind, of 7 s",
    "controller 60 s ahead, connections of 50 s",
    "controller drifts by 5000 ppm from 10 s, connections of 50 s",
    "controller 20 s behind, each connection's first lines 20 s late",
    "controller -5 s behind, each connection's first lines 5 s late",
    "controller -5 s behind, network stalls of 5, 20 and 40 s",
    "controller 30 s behind, read every 0 to 8 s, connected 50 s",
    "controller set by -10 s while it streams",
    "controller set by 10 s while the network stalls",
    "own clock set by -1800 s, controller 10 s behind",
    "own clock set by -1800 s just after a connection began",
)


@pytest.mark.parametrize("name", KINDS)
def test_no_time_is_further_from_the_truth_than_the_tolerance(name: str) -> None:
    """And each sample is stored once."""
    result = outcome(CASES[name])
    assert result.farthest_s <= TOLERANCE_S
    assert (result.duplicates, result.missing) == (0, 0)
    assert len(result.deviations) > 100


@settings(deadline=None, max_examples=10)
@given(
    st.floats(-70, 70),
    st.floats(0, 30),
    st.sampled_from([7.0, 50.0, 1e9]),
    # A recorder that reads every few nanoseconds takes the model forever.
    st.just(0.0) | st.floats(0.05, 5),
    st.integers(0, 1000),
)
def test_any_offset_with_any_lateness_is_within_the_tolerance(
    ahead_s: float, late_s: float, connected_s: float, busy_s: float, seed: int
) -> None:
    """First lines of each connection are late, and the recorder is busy."""
    case = Case(
        constant(ahead_s),
        connected_s=connected_s,
        first_read_after_s=min(late_s, connected_s / 2),
        busy_s=busy_s,
    )
    result = outcome(case, seed)
    assert result.farthest_s <= TOLERANCE_S
    assert (result.duplicates, result.missing) == (0, 0)


@pytest.mark.parametrize(
    "controller", [constant(3600), constant(-10), steps((50.3, -45), (120.7, 0)), steps((60, 3600))]
)
def test_replay_gives_the_times_of_the_live_recording(controller: object) -> None:
    """To the nanosecond, whatever the clock was set to meanwhile."""
    notes = Notes()
    recorder, fed = run(Case(controller), notes=notes)  # type: ignore[arg-type]
    text = b"".join(chunk.text for chunk in fed)
    live = {(p.measurement, p.time_ns, *sorted(p.fields.items())) for p in recorder.points}
    again = {(p.measurement, p.time_ns, *sorted(p.fields.items())) for p in replayed(notes, text)}
    of_devices = {point for point in again if point[0] in {"pcs", "powermeter"}}
    assert of_devices == {point for point in live if point[0] in {"pcs", "powermeter"}}


@pytest.mark.parametrize("apart_s", [0.0, 0.3, -0.7, 5.0])
@pytest.mark.parametrize("stamped", [True, False])
def test_sample_of_two_connections_is_stored_once(apart_s: float, *, stamped: bool) -> None:
    """A copy that comes earlier or later, over a connection of its own, adds nothing."""
    case = Case(constant(10), stamped=stamped, seconds=60)
    both = sorted(
        [(chunk.at_ns + 10 * NS, "one", chunk.text) for chunk in chunks(case, 1)]
        + [(chunk.at_ns + round((10 + apart_s) * NS), "other", chunk.text) for chunk in chunks(case, 2)]
    )
    recorder = fed_by(both, {})
    found = compare(recorder, Case(constant(0)), 0)
    assert (found.duplicates, -found.missing) == (0, len(found.deviations))
    stored = sum(point.measurement in {"pcs", "powermeter"} for point in recorder.points)
    assert recorder.counts["duplicate_samples"] == stored
    assert len(found.deviations) > 60


@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("apart_s", [0.0, 0.3, -0.7])
def test_other_connection_takes_over_without_a_gap(apart_s: float, *, closes: bool) -> None:
    """Where the first connection ends or falls silent, each sample still is stored once."""
    case = Case(constant(10), seconds=90)
    one = [(chunk.at_ns + 10 * NS, "one", chunk.text) for chunk in chunks(case, 1) if chunk.at_ns < 40 * NS]
    other = [(chunk.at_ns + round((10 + apart_s) * NS), "other", chunk.text) for chunk in chunks(case, 2)]
    recorder = fed_by(sorted([*one, *other]), {"one": one[-1][0]} if closes else {})
    alone = fed_by(other, {})
    found, expected = (compare(this, Case(constant(0)), 0) for this in (recorder, alone))
    assert found.duplicates == 0
    # A scan that was under way in both may come out in parts.
    assert len(found.deviations) >= len(expected.deviations) - 1


def fed_by(fed: list[tuple[int, str, bytes]], closed_at: dict[str, int]) -> Recorder:
    """A recorder to which text came at a time over a connection each; what is not closed ends at last."""
    recorder = Recorder()
    open_ = set()
    for at_ns, name, text in fed:
        if name not in open_:
            recorder.connect(name, name)
            open_.add(name)
        recorder.feed(name, at_ns, text)
        if closed_at.get(name) == at_ns:
            recorder.close(name)
            closed_at[name] = -1
    for name in sorted(open_):
        if closed_at.get(name) != -1:
            recorder.close(name)
    assert recorder.points[0].time_ns is None or recorder.points[0].time_ns > NOON_S * NS
    return recorder

"""A plant in time lapse, and its past."""

from collections.abc import Iterator
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.commands.configuration import load_configuration
from recorder.points.site import Site
from recorder.simulator.plant import Plant, PlantState
from recorder.simulator.time_lapse import TimeLapsePlant, past_of

JUNE_S = 1_782_000_000
PROFILES = load_configuration(None, {}).profiles


def states(speed: float, seconds: int) -> Iterator[PlantState]:
    before = Plant(1, JUNE_S).state
    plant = TimeLapsePlant(1, JUNE_S, speed, before)
    yield before
    for second in range(1, seconds + 1):
        yield plant.sample(before.at_s + second)


@settings(max_examples=20)
@given(st.floats(1, 1440))
def test_time_lapse_counts_what_was_shown(speed: float) -> None:
    """At any speed a second of the bus adds one poll, and one second of each power to its counter."""
    for before, after in pairwise(states(speed, 30)):
        assert after.at_s == before.at_s + 1
        assert after.poll_counter == before.poll_counter + 1
        assert after.imported_cws - before.imported_cws == max(0, after.meter_power_cw)
        assert after.exported_cws - before.exported_cws == max(0, -after.meter_power_cw)
        assert after.charged_ws - before.charged_ws == max(0, -after.battery_power_w)
        assert after.discharged_ws - before.discharged_ws == max(0, after.battery_power_w)


def test_day_in_ten_minutes_has_a_night_and_a_noon() -> None:
    """600 s of the bus at 144 times show both no sun at all and most of what the panels can give."""
    powers_w = [sum(state.pv_powers_w) for state in states(144, 600)]
    assert min(powers_w) == 0
    assert max(powers_w) > 3000


def test_past_is_whole_minutes_up_to_its_end_with_exact_balances() -> None:
    """Each minute has a point of either device and a flow, by real time, and home is what the plant used."""
    shift_seconds = 86400 * 30
    end_s = JUNE_S + 3600 + shift_seconds
    minutes = list(past_of(Plant(1, JUNE_S), Site("home", PROFILES), PROFILES, end_s, shift_seconds))
    assert len(minutes) == 60
    for all_points, state in minutes:
        points = [point for point in all_points if point.measurement != "energy_10s"]
        assert [point.measurement for point in points] == ["powermeter", "pcs", "flow"]
        assert {point.time_ns for point in points} == {state.at_s * 10**9}
        assert points[2].fields["home"] == state.home_power_cw / 100
    assert minutes[-1].state.at_s == end_s

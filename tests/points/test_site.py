"""What is derived from a site's points: flows and energies, with a clock that is passed in."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.commands.configuration import load_configuration
from recorder.points.counters import Reading
from recorder.points.point import Point
from recorder.points.site import Site
from recorder.profiles.model import Profile

SECOND = 10**9
START_S = 1_781_780_400
PCS, METER = load_configuration(None, {}).profiles
HEAT_PUMP = replace(METER, device="heat_pump", unit=2, role="submeter")
DEVICES = {one.device: one for one in (PCS, METER, HEAT_PUMP)}


class Recording:
    """A site that is fed point by point, with what it returned."""

    def __init__(self, *profiles: Profile) -> None:
        self.site = Site("home", profiles)
        self.points: list[Point] = []
        self.counts: Counter[str] = Counter()

    def take(self, at_s: float, device: str, **fields: float) -> None:
        tags = (("device", device), ("site", "home"))
        at_ns = round((START_S + at_s) * SECOND)
        point = Point(DEVICES[device].measurement, tags, dict(fields), at_ns)
        self.points += self.site.take(device, point, self.counts)

    def energies(self, device: str = "pcs") -> dict[str, float]:
        """Return the kWh of everything so far."""
        self.points += self.site.finish()
        total: dict[str, float] = {}
        for point in self.points:
            if point.measurement == "energy_10s" and dict(point.tags)["device"] == device:
                for name, value in point.fields.items():
                    total[name] = round(total.get(name, 0.0) + value, 9)
        return total


def power(recording: Recording, at_s: float, *, ac: float = 1000.0, grid: float = 500.0) -> None:
    recording.take(at_s, "meter", active_power=grid)
    recording.take(at_s, "pcs", active_power=ac, pv_power=ac, battery_power=0.0)


def test_power_becomes_energy_of_the_time_that_it_lasted() -> None:
    """An hour of 1.5 kW in the home is 1.5 kWh; the first sample stands for no time."""
    recording = Recording(PCS, METER)
    for second in range(3601):
        power(recording, second)
    energies = recording.energies()
    assert energies["home"] == pytest.approx(1.5)
    assert energies["grid_import"] == pytest.approx(0.5)
    assert energies["pv_to_home"] == pytest.approx(1.0)


def test_pause_adds_no_energy() -> None:
    """After a pause of more than a minute a sample stands for as long as the one before the pause did."""
    recording = Recording(PCS, METER)
    for second in (*range(11), *range(7200, 7211)):
        power(recording, second)
    assert recording.energies()["home"] == pytest.approx(1.5 * 21 / 3600)


def test_counter_is_the_source_of_energy_where_there_is_one() -> None:
    """The counter's gain has the plain name, and the integral stands beside it.

    The first step of 0.01 kWh counts as far as the power shows: how far the counter was in it is not known.
    """
    recording = Recording(PCS, METER)
    for second in range(601):
        recording.take(second, "meter", active_power=500.0, active_import=100 + (second // 60) / 100)
        recording.take(second, "pcs", active_power=0.0, pv_power=0.0, battery_power=0.0)
    energies = recording.energies()
    assert energies["grid_import"] == pytest.approx(0.09 + 500 * 60 / 3.6e6)
    assert energies["grid_import_integrated"] == pytest.approx(500 * 600 / 3.6e6)
    assert energies["grid_export"] == 0.0


def test_glitch_of_a_counter_leaves_no_trace() -> None:
    """A single reading of 0 is absent from the point, counted, and adds no energy."""
    recording = Recording(METER)
    for second, kwh in enumerate((12345.0, 12345.01, 0.0, 12345.02)):
        recording.take(second, "meter", active_power=0.0, active_import=kwh)
    meter = [point.fields for point in recording.points if point.measurement == "powermeter"]
    assert [fields.get("active_import") for fields in meter] == [12345.0, 12345.01, None, 12345.02]
    assert recording.counts["withheld_counters"] == 1
    assert recording.energies("meter")["grid_import"] == 0.01


def test_energy_of_the_time_without_a_recorder_is_counted() -> None:
    """What a counter gained between two runs is in the first energy of the second."""
    recording = Recording(METER)
    recording.site.start_counters("meter", {"active_import": Reading(99.0, (START_S - 3600) * SECOND)})
    for second in range(3):
        recording.take(second, "meter", active_power=0.0, active_import=100.0)
    assert recording.energies("meter")["grid_import"] == 1.0


def test_submeter_has_energies_of_its_own() -> None:
    """A heat pump's counter is a series of its device, and no part of the grid's."""
    recording = Recording(PCS, METER, HEAT_PUMP)
    for second in range(3601):
        recording.take(second, "heat_pump", active_power=3600.0, active_import=round(7 + second / 1000, 3))
        recording.take(second, "meter", active_power=3600.0, active_import=round(9 + second / 1000, 3))
    assert recording.energies("heat_pump") == {"submeter_import": 3.6}
    assert recording.energies("pcs")["grid_import"] == pytest.approx(3.6, abs=0.01)


def test_flow_is_counted_only_where_all_its_devices_have_counters() -> None:
    """Of two batteries, one without counters, the energy is integrated: else a part would be missing."""
    other = replace(PCS, device="other", unit=9, quantities=PCS.quantities[:4])
    site = Site("home", (PCS, METER, other))
    counts: Counter[str] = Counter()
    points: list[Point] = []
    for second in range(3601):
        at_ns = (START_S + second) * SECOND
        fields = {
            "active_power": 0.0,
            "pv_power": 0.0,
            "battery_power": -500.0,
            "battery_energy_charged": 5.0,
        }
        for device, measurement, values in (
            ("meter", "powermeter", {"active_power": 1000.0}),
            ("other", "pcs", fields),
            ("pcs", "pcs", fields),
        ):
            tags = (("device", device), ("site", "home"))
            points += site.take(device, Point(measurement, tags, dict(values), at_ns), counts)
    points += site.finish()
    energies = [point.fields for point in points if point.measurement == "energy_10s"]
    assert sum(one["battery_charge"] for one in energies) == pytest.approx(1.0, rel=1e-3)


def test_energies_have_whole_tens_of_seconds() -> None:
    """So the same samples, decoded again from another start, give the same points and not more."""

    def decoded(first_s: int) -> dict[int | None, dict[str, float]]:
        recording = Recording(PCS, METER)
        for second in range(first_s, 120):
            power(recording, second + 0.3, ac=1000.0 + second)
        recording.points += recording.site.finish()
        return {
            point.time_ns: point.fields for point in recording.points if point.measurement == "energy_10s"
        }

    whole, later = decoded(0), decoded(37)
    assert all(time_ns is not None and time_ns % (10 * SECOND) == 0 for time_ns in whole)
    assert later.keys() < whole.keys()
    assert [later[at] for at in sorted(later, key=str)[1:]] == [
        whole[at] for at in sorted(later, key=str)[1:]
    ]


def test_clock_that_is_set_back_costs_no_energy() -> None:
    """Energies of times that come twice are points of their own, which sums add up."""
    recording = Recording(PCS, METER)
    for second in (*range(600), *range(300, 900)):
        power(recording, second)
    energies = [point for point in recording.points if point.measurement == "energy_10s"]
    assert len({point.time_ns for point in energies}) == len(energies)
    assert recording.energies()["home"] == pytest.approx(1.5 * 1199 / 3600)


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(-5000, 5000), st.integers(-5000, 5000)), max_size=40)
)
def test_site_continues_from_its_state(samples: list[tuple[int, int, int]]) -> None:
    """A site that resumes another's state returns what that one returns."""
    first, resumed = Recording(PCS, METER), Recording(PCS, METER)
    at_s, middle = 0, len(samples) // 2
    for index, (pause, ac, grid) in enumerate(samples):
        at_s += pause
        power(first, at_s, ac=ac, grid=grid)
        if index == middle:
            resumed.site.resume(first.site.state)
            first.points.clear()
        elif index > middle:
            power(resumed, at_s, ac=ac, grid=grid)
    if samples:
        assert resumed.points == first.points
        assert resumed.site.state == first.site.state


@pytest.mark.parametrize("by_s", [-3600, -30, 30, 86400])
def test_clock_that_is_set_changes_no_energy(by_s: int) -> None:
    """Flows go on at once by the new time, and neither power nor counters gain anything by the step."""
    recording = Recording(PCS, METER)
    for second in range(300):
        recording.take(second, "meter", active_power=500.0, active_import=round(7 + second / 7200, 2))
        recording.take(second, "pcs", active_power=1000.0, pv_power=1000.0, battery_power=0.0)
    recording.site.clock_was_set(by_s * SECOND)
    before = sum(point.measurement == "flow" for point in recording.points)
    for second in range(300, 600):
        at_s = second + by_s
        recording.take(at_s, "meter", active_power=500.0, active_import=round(7 + second / 7200, 2))
        recording.take(at_s, "pcs", active_power=1000.0, pv_power=1000.0, battery_power=0.0)
    assert sum(point.measurement == "flow" for point in recording.points) == before + 300
    energies = recording.energies()
    assert energies["home"] == pytest.approx(1.5 * 599 / 3600)
    assert energies["grid_import"] == pytest.approx(0.08, abs=0.011)

"""An hour of each home: what the page and InfluxDB say of its energy is what the plant did."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest

from recorder.simulator.homes import HOMES
from recorder.simulator.stream import ExpectedSample
from tests.homes.recording import (
    FIGURES,
    LARGEST_DEVIATION,
    Case,
    Recorded,
    deviation,
    figures,
    figures_of_api,
    from_api,
    from_influxdb,
    record,
    replay,
)
from tests.support.home_truth import AcSide, flows_of, total
from tests.support.influxd import Influxd

BERLIN = ZoneInfo("Europe/Berlin")
HOUR_SECONDS = 3600
STARTS = {
    "night-charge": datetime(2026, 1, 14, 2, tzinfo=BERLIN),
    "heat-pump": datetime(2026, 3, 20, 10, tzinfo=BERLIN),
    "two-inverters": datetime(2026, 6, 21, 6, 30, tzinfo=BERLIN),
}
QUARTER = 900
NS = 10**9


class Hour(NamedTuple):
    """A recorded home, with the answers of the page and of InfluxDB about it, by quarter of an hour."""

    recorded: Recorded
    answer: dict[str, Any]
    rollups: dict[int, dict[str, float]]
    flows: dict[int, dict[str, float]]


@pytest.fixture(
    scope="module", params=[pytest.param(home, marks=pytest.mark.xdist_group(home)) for home in HOMES]
)
def hour(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Hour:
    """Record an hour of one home."""
    home, directory = request.param, tmp_path_factory.mktemp("home")
    start = STARTS.get(home, datetime(2026, 6, 21, 17, tzinfo=BERLIN))
    case = Case(home, start, HOUR_SECONDS)
    recorded = record(case, directory / "home", keep=True)
    end_s = case.start_s + case.seconds + QUARTER
    with _influxd(directory) as influxd:
        replay(recorded, influxd, "ess")
        (answer,) = from_api(recorded, [(case.start_s, end_s, "15m")])
        rollups = from_influxdb(influxd, "ess", "energy_15m", case.start_s, end_s)
        flows = {
            row["time"]: {name: value for name, value in row.items() if isinstance(value, float | int)}
            for row in influxd.query('SELECT * FROM "flow"', "ess")
        }
    return Hour(recorded, answer, rollups, flows)


def _influxd(directory: Path) -> Influxd:
    return Influxd(directory / "influxd", sections={"continuous_queries": {"enabled": "false"}})


def test_energies_are_those_of_the_plant(hour: Hour) -> None:
    """Each energy and both ratios are within 0.5 % of the truth, on the page and in InfluxDB."""
    truth = figures(total(hour.recorded.truth.quarters.values()))
    assert_same(figures_of_api(hour.answer), truth)
    assert_same(figures(total(hour.rollups.values())), truth)


def assert_same(found: dict[str, float | None], truth: dict[str, float | None]) -> None:
    far = {
        name: (found[name], truth[name])
        for name in FIGURES
        if deviation(name, found[name], truth[name]) > LARGEST_DEVIATION
    }
    assert not far


def test_page_and_influxdb_say_the_same_of_each_quarter_hour(hour: Hour) -> None:
    """Every flow of every quarter of an hour, but for what rounding does.

    The recording begins to balance once the meter's bus is known to be in sync; the replay, which puts points
    in order, a few seconds before that.
    """
    answer = hour.answer
    first = min(hour.flows) // NS // QUARTER * QUARTER
    for index, at_s in enumerate(answer["time"]):
        rollup = hour.rollups.get(at_s, {})
        before_kwh = 10 / 3600 * max(hour.flows[min(hour.flows)].values()) / 1000 if at_s == first else 0.0
        for name, column in answer["energy"].items():
            expected = pytest.approx(rollup.get(name, 0.0), abs=before_kwh + 2e-6)
            assert (column[index] or 0.0) == expected, (at_s, name)


def test_flows_are_the_balance_of_the_latest_samples(hour: Hour) -> None:
    """At every single moment each flow is what DESIGN.md makes of the samples up to then."""
    expected = dict(_expected_flows(hour.recorded))
    found = hour.flows
    # Before every bus is known to be in step, and every inverter has spoken, there is no balance.
    first_ns = min(found)
    assert first_ns - hour.recorded.case.start_s * NS < 30 * NS
    assert found.keys() == {at_ns for at_ns in expected if at_ns >= first_ns}
    for at_ns, flows in found.items():
        for name, watts in expected[at_ns].items():
            assert flows[name] == pytest.approx(watts, abs=0.011), (at_ns, name)


def _expected_flows(recorded: Recorded) -> Iterator[tuple[int, dict[str, float]]]:
    inverters = {device.name for device in HOMES[recorded.case.home].devices} & {"pcs", "inverter"}
    latest: dict[str, ExpectedSample] = {}
    for sample in sorted(recorded.samples, key=lambda one: one.at_ns):
        latest[sample.device] = sample
        wanted = sample.device in inverters or (not inverters and sample.device == "powermeter")
        if wanted and latest.keys() >= inverters | {"powermeter"}:
            yield sample.at_ns, flows_of(_ac_side(latest, recorded.case.pv_side))


def _ac_side(latest: dict[str, ExpectedSample], pv_side: str) -> AcSide:
    pcs, inverter = (latest[name].fields if name in latest else {} for name in ("pcs", "inverter"))
    return AcSide(
        inverters=pcs.get("active_power", 0.0) + inverter.get("ac_power", 0.0),
        grid=latest["powermeter"].fields["active_power"],
        battery=pcs.get("battery_power", 0.0),
        pv=pcs.get("pv_power", 0.0) + inverter.get("pv_power" if pv_side == "dc" else "ac_power", 0.0),
    )


def test_heat_pump_is_shown_as_a_part_of_the_home(hour: Hour) -> None:
    """The submeter's energy is beside the flows, and only where there is one."""
    answer = hour.answer["totals"]["submeters"]
    if hour.recorded.case.home != "heat-pump":
        assert answer == {}
        return
    truth = total(hour.recorded.truth.quarters.values())["heat_pump"]
    assert answer["heat_pump"] == pytest.approx(truth, abs=0.011)
    assert total(hour.rollups.values())["submeter_import"] == pytest.approx(truth, abs=0.011)

"""The energy balance: definitions by example, identities by property."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.points.flow import FLOW_FIELDS, FlowBalance, balance
from recorder.points.point import Point

CASES = {
    # name: (pcs, pv, battery, meter) -> the parts that are not 0
    "sun and export": ((4800, 5000, 0, -3800), {"pv_to_home": 1000, "pv_to_grid": 3800}),
    "sun and charging": ((1000, 4000, -2900, 0), {"pv_to_home": 1000, "pv_to_battery": 2900}),
    "night on battery": ((500, 0, 550, 0), {"battery_to_home": 500}),
    "night on grid": ((0, 0, 0, 700), {"grid_to_home": 700}),
    "grid charging": ((-2100, 0, -2000, 2600), {"grid_to_home": 500, "grid_to_battery": 2000}),
    "battery to grid": ((3000, 0, 3150, -2500), {"battery_to_home": 500, "battery_to_grid": 2500}),
    "mixed": ((1900, 800, 1200, 600), {"pv_to_home": 800, "battery_to_home": 1200, "grid_to_home": 500}),
    "export without battery is the sun's": ((1000, 990, 0, -995), {"pv_to_home": 5, "pv_to_grid": 995}),
    "meter and PCS out of step": ((100, 0, 0, -300), {"pv_to_grid": 300}),
}


@pytest.mark.parametrize("name", CASES)
def test_parts_follow_the_definitions(name: str) -> None:
    """Each situation is split as the published definitions say."""
    powers, parts = CASES[name]
    flow = balance(*powers)
    assert {field: value for field, value in flow.items() if "_to_" in field and value} == parts


watts = st.integers(-20_000, 20_000)
centiwatts = st.integers(-2_000_000, 2_000_000).map(lambda value: value / 100)


@given(watts, st.integers(0, 20_000), watts, centiwatts)
def test_what_arrives_adds_up_exactly(pcs: float, pv: float, battery: float, meter: float) -> None:
    """Totals equal the sums of their parts to the last bit, and nothing but loss is negative."""
    flow = balance(pcs, pv, battery, meter)
    assert tuple(flow) == FLOW_FIELDS
    assert flow["home"] == flow["pv_to_home"] + flow["battery_to_home"] + flow["grid_to_home"]
    assert flow["battery_charge"] == flow["pv_to_battery"] + flow["grid_to_battery"]
    assert flow["grid_export"] == flow["pv_to_grid"] + flow["battery_to_grid"]
    assert all(value >= 0 for field, value in flow.items() if field != "loss")


@given(watts, st.integers(0, 20_000), watts, centiwatts)
def test_totals_are_what_the_devices_say(pcs: float, pv: float, battery: float, meter: float) -> None:
    """Home, grid, battery and loss are the devices' own figures."""
    flow = balance(pcs, pv, battery, meter)
    assert flow["home"] == pytest.approx(max(0, pcs + meter), abs=1e-9)
    assert flow["grid_import"] - flow["grid_export"] == pytest.approx(meter, abs=1e-9)
    assert flow["battery_discharge"] - flow["battery_charge"] == battery
    assert flow["loss"] == pv + battery - pcs


def pcs_point(time_ns: int | None, **fields: float) -> Point:
    values = {"active_power": 1000.0, "pv_power": 1100.0, "battery_power": 0.0} | fields
    return Point("pcs", (("device", "pcs"), ("site", "home")), values, time_ns)


def meter_point(time_ns: int | None, **fields: float) -> Point:
    return Point("powermeter", (("device", "meter"), ("site", "home")), fields, time_ns)


SECOND = 10**9


def test_pcs_point_with_a_fresh_meter_makes_a_flow() -> None:
    """The flow has the time and the tags of its PCS point."""
    balance_of_site = FlowBalance()
    balance_of_site.feed(meter_point(0, active_power=-600.0))
    flow = balance_of_site.feed(pcs_point(5 * SECOND))
    assert flow is not None
    assert (flow.measurement, flow.tags, flow.time_ns) == (
        "flow",
        (("device", "pcs"), ("site", "home")),
        5 * SECOND,
    )
    assert (flow.fields["home"], flow.fields["grid_export"]) == (400.0, 600.0)


def test_old_meter_makes_no_flow() -> None:
    """A meter point older than the bound says nothing about now."""
    balance_of_site = FlowBalance()
    balance_of_site.feed(meter_point(0, active_power=1.0))
    assert balance_of_site.feed(pcs_point(5 * SECOND + 1)) is None


def test_meter_point_without_power_changes_nothing() -> None:
    """A scan that missed the power leaves the last power to age."""
    balance_of_site = FlowBalance()
    balance_of_site.feed(meter_point(0, active_power=1.0))
    balance_of_site.feed(meter_point(4 * SECOND, voltage_l1=230.0))
    assert balance_of_site.feed(pcs_point(6 * SECOND)) is None


def test_points_without_time_make_no_flow() -> None:
    """Where no time is known, no age is."""
    balance_of_site = FlowBalance()
    balance_of_site.feed(meter_point(None, active_power=1.0))
    assert balance_of_site.feed(pcs_point(None)) is None

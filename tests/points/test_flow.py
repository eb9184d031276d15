"""The energy balance: definitions by example, identities by property."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.commands.configuration import load_configuration
from recorder.points.flow import FLOW_FIELDS, FlowBalance, balance, self_consumption, self_sufficiency
from recorder.points.point import Point
from recorder.profiles.model import Profile, Register

CASES = {
    # name: (ac, pv, battery, grid) -> the parts that are not 0
    "sun and export": ((4800, 5000, 0, -3800), {"pv_to_home": 1000, "pv_to_grid": 3800}),
    "sun and charging": ((1000, 4000, -2900, 0), {"pv_to_home": 1000, "pv_to_battery": 2900}),
    "night on battery": ((500, 0, 550, 0), {"battery_to_home": 500}),
    "night on grid": ((0, 0, 0, 700), {"grid_to_home": 700}),
    "grid charging": ((-2100, 0, -2000, 2600), {"grid_to_home": 500, "grid_to_battery": 2000}),
    "battery to grid": ((3000, 0, 3150, -2500), {"battery_to_home": 500, "battery_to_grid": 2500}),
    # 1,900 W AC of 800 W PV and 1,200 W battery: 40 and 60 %.
    "mixed": ((1900, 800, 1200, 600), {"pv_to_home": 760, "battery_to_home": 1140, "grid_to_home": 600}),
    "charging from both": ((200, 1000, -1100, 300), {
        "pv_to_battery": 1000, "grid_to_battery": 100, "battery_to_home": 200, "grid_to_home": 300,
    }),
    "sun that does not reach the inverter's own use": ((-300, 100, 0, 900), {"grid_to_home": 600}),
    "export without battery is the sun's": ((1000, 990, 0, -995), {"pv_to_home": 5, "pv_to_grid": 995}),
    "meter and inverter out of step": ((100, 0, 0, -300), {"battery_to_grid": 100, "pv_to_grid": 200}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_parts_follow_the_definitions(name: str) -> None:
    """Each situation is split as the published definitions say."""
    powers, parts = CASES[name]
    flow = balance(*powers)
    assert {field: value for field, value in flow.items() if "_to_" in field and value} == parts


watts = st.integers(-20_000, 20_000)
centiwatts = st.integers(-2_000_000, 2_000_000).map(lambda value: value / 100)


def test_fields_are_in_the_order_of_their_names() -> None:
    """Energies are added up by the place of a flow."""
    assert tuple(balance(1.0, 2.0, 3.0, 4.0)) == FLOW_FIELDS


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


@given(watts, st.integers(0, 20_000), watts, centiwatts)
def test_grid_supplies_the_home_with_what_is_purchased(
    ac: float, pv: float, battery: float, grid: float
) -> None:
    """Where the inverter delivers and the home uses power, `grid_to_home` is the purchased power."""
    flow = balance(max(0, ac), pv, battery, grid)
    if flow["home"] > 0:
        assert flow["grid_to_home"] == flow["grid_import"]


SECOND = 10**9
PCS, METER = load_configuration(None, {}).profiles
PV_INVERTER = Profile(
    "pv", "roof", "roof", 3, 3,
    (Register(1, "watts", "s32", unit="W"),),
    role="inverter", quantities=(("ac_power", "watts"),),
)  # fmt: skip
AC_BATTERY = replace(PV_INVERTER, name="battery", device="battery", role="battery")
HEAT_PUMP = replace(METER, device="heat_pump", unit=2, role="submeter")
PCS_FIELDS = {"active_power": 1000.0, "pv_power": 1100.0, "battery_power": 0.0}


def site(*profiles: Profile) -> FlowBalance:
    return FlowBalance("home", profiles)


def fed(balance_of_site: FlowBalance, at_s: float, device: str, **fields: float) -> Point | None:
    return balance_of_site.feed(device, fields, round(at_s * SECOND))


def test_inverter_point_with_a_fresh_grid_point_makes_a_flow() -> None:
    """The flow has the time and the tags of its inverter's point."""
    home = site(PCS, METER)
    fed(home, 0, "meter", active_power=-600.0)
    flow = fed(home, 5, "pcs", **PCS_FIELDS)
    assert flow is not None
    assert (flow.measurement, flow.tags, flow.time_ns) == (
        "flow",
        (("device", "pcs"), ("site", "home")),
        5 * SECOND,
    )
    assert (flow.fields["home"], flow.fields["grid_export"]) == (400.0, 600.0)


def test_old_grid_point_makes_no_flow() -> None:
    """A meter point older than the bound says nothing about now."""
    home = site(PCS, METER)
    fed(home, 0, "meter", active_power=1.0)
    assert fed(home, 5.1, "pcs", **PCS_FIELDS) is None


def test_grid_point_without_power_changes_nothing() -> None:
    """A scan that missed the power leaves the last power to age."""
    home = site(PCS, METER)
    fed(home, 0, "meter", active_power=1.0)
    fed(home, 4, "meter", voltage_l1=230.0)
    assert fed(home, 6, "pcs", **PCS_FIELDS) is None


def test_submeter_is_never_the_grid() -> None:
    """A second meter, wherever it stands in the settings, leaves the balance as it is."""
    home = site(HEAT_PUMP, PCS, METER)
    fed(home, 0, "meter", active_power=-600.0)
    fed(home, 0, "heat_pump", active_power=5000.0)
    flow = fed(home, 1, "pcs", **PCS_FIELDS)
    assert flow is not None
    assert flow.fields["grid_export"] == 600.0


def test_inverters_and_batteries_add_up() -> None:
    """The home takes what all of them deliver; a battery with its own inverter is charged from PV first."""
    home = site(PCS, METER, PV_INVERTER, AC_BATTERY)
    fed(home, 0, "meter", active_power=200.0)
    fed(home, 0.1, "roof", watts=2000.0)
    fed(home, 0.2, "battery", watts=-1500.0)
    flow = fed(home, 0.3, "pcs", **PCS_FIELDS)
    assert flow is not None
    assert flow.tags == (("device", "pcs"), ("site", "home"))
    assert (flow.fields["home"], flow.fields["pv"], flow.fields["battery_charge"]) == (1700.0, 3100.0, 1500.0)
    assert flow.fields["pv_to_battery"] == 1500.0
    assert flow.fields["loss"] == 100.0


def test_no_flow_while_an_inverter_that_delivers_is_silent() -> None:
    """The home's power is not known then."""
    home = site(PCS, METER, PV_INVERTER)
    fed(home, 0, "roof", watts=2000.0)
    fed(home, 9, "meter", active_power=200.0)
    assert fed(home, 9, "pcs", **PCS_FIELDS) is None


def test_inverter_that_went_to_sleep_delivers_nothing() -> None:
    """One that fell silent with little power has switched itself off for the night."""
    home = site(PCS, METER, PV_INVERTER)
    fed(home, 0, "roof", watts=12.0)
    fed(home, 9, "meter", active_power=200.0)
    flow = fed(home, 9, "pcs", **PCS_FIELDS)
    assert flow is not None
    assert flow.fields["home"] == 1200.0


def test_home_has_a_flow_while_its_only_inverter_sleeps() -> None:
    """At night the points of the grid meter make the flows of a home with PV and no battery."""
    home = site(PV_INVERTER, METER)
    fed(home, 0, "roof", watts=12.0)
    assert fed(home, 4, "meter", active_power=200.0) is None
    flow = fed(home, 9, "meter", active_power=200.0)
    assert flow is not None
    assert flow.tags == (("device", "roof"), ("site", "home"))
    assert (flow.fields["home"], flow.fields["pv"]) == (200.0, 0.0)


@pytest.mark.parametrize("spoken", [False, True])
def test_hybrid_inverter_never_sleeps(spoken: bool) -> None:
    """One with a battery may supply the home unseen: while it is silent there is no flow."""
    home = site(PCS, METER)
    if spoken:
        fed(home, 0, "meter", active_power=200.0)
        fed(home, 0, "pcs", active_power=-14.0, pv_power=0.0, battery_power=0.0)
    for at_s in (1, 9, 40, 4000):
        assert fed(home, at_s, "meter", active_power=200.0) is None


def test_only_an_inverter_without_a_battery_may_be_asleep() -> None:
    """And only while it delivers nothing, or has not spoken yet, as after a start at night."""
    home = site(PCS, METER, PV_INVERTER)
    assert [home.may_be_asleep(one) for one in ("pcs", "meter", "roof", "other")] == [
        False,
        False,
        True,
        False,
    ]
    fed(home, 0, "pcs", active_power=0.0, pv_power=0.0, battery_power=0.0)
    fed(home, 0, "roof", watts=49.0)
    assert [home.may_be_asleep(one) for one in ("pcs", "roof")] == [False, True]
    fed(home, 1, "roof", watts=51.0)
    assert not home.may_be_asleep("roof")


def test_first_flow_waits_for_every_inverter() -> None:
    """For half a minute: one that has not spoken by then is off."""
    home = site(PCS, METER, PV_INVERTER)
    fed(home, 0, "meter", active_power=200.0)
    assert fed(home, 1, "pcs", **PCS_FIELDS) is None
    fed(home, 31, "meter", active_power=200.0)
    assert fed(home, 31, "pcs", **PCS_FIELDS) is not None


def test_meter_alone_has_a_flow() -> None:
    """Without any inverter in the settings the home takes what the grid delivers."""
    flow = fed(site(METER), 0, "meter", active_power=750.0)
    assert flow is not None
    assert flow.tags == (("device", "meter"), ("site", "home"))
    assert (flow.fields["home"], flow.fields["grid_to_home"], flow.fields["pv"]) == (750.0, 750.0, 0.0)


def test_plain_inverter_and_meter_have_a_flow() -> None:
    """PV without a battery: what the inverter delivers is PV."""
    home = site(PV_INVERTER, METER)
    fed(home, 0, "meter", active_power=-1500.0)
    flow = fed(home, 1, "roof", watts=2000.0)
    assert flow is not None
    assert {name: value for name, value in flow.fields.items() if value} == {
        "home": 500.0, "pv": 2000.0, "grid_export": 1500.0, "pv_to_home": 500.0, "pv_to_grid": 1500.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("purchased", "home", "ratio"),
    [(0, 10, 1.0), (4, 10, 0.6), (15, 10, 0.0), (1, 0, None), (None, 10, None)],
)
def test_self_sufficiency(purchased: float | None, home: float | None, ratio: float | None) -> None:
    """1 - purchased / home, within 0 to 1: energy bought for the battery is not self-sufficient."""
    assert self_sufficiency(purchased, home) == ratio


@pytest.mark.parametrize(
    ("to_home", "to_battery", "to_grid", "ratio"),
    [(3, 1, 4, 0.5), (3, 1, 0, 1.0), (0, 0, 2, 0.0), (0, 0, 0, None), (3, None, 3, 0.5)],
)
def test_self_consumption(to_home: float, to_battery: float | None, to_grid: float, ratio: float) -> None:
    """1 - what is sold of PV, by all that PV delivered."""
    assert self_consumption(to_home, to_battery, to_grid) == ratio

"""The plant: energy is conserved, limits hold, and a day looks like a day."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.simulator.plant import (
    CWS_PER_CKWH,
    SOC_RAW_EMPTY,
    SOC_RAW_SPAN,
    Plant,
    PlantSettings,
    PlantState,
    PvString,
)

MINUTE = 60
DAY_MINUTES = 1440


def _epoch(month: int, day: int = 20) -> int:
    return int(datetime(2024, month, day, tzinfo=UTC).timestamp())


def _day(seed: int, month: int, options: PlantSettings | None = None) -> list[PlantState]:
    """Give the state at each minute of a day, the midnight before it first."""
    plant = Plant(seed, _epoch(month), options)
    states = [plant.state]
    for _ in range(DAY_MINUTES):
        plant.advance(MINUTE, step_seconds=MINUTE)
        states.append(plant.state)
    return states


def _pv_kwh(states: list[PlantState]) -> float:
    return sum(sum(state.pv_powers_w) for state in states[1:]) / 60 / 1000


@pytest.mark.parametrize("month", [1, 6])
def test_home_is_pcs_plus_meter(month: int) -> None:
    """In register units the balance is exact, in every state of a day."""
    for state in _day(3, month):
        assert state.home_power_cw == state.pcs_active_power_w * 100 + state.meter_power_cw
        assert state.meter_power_cw == sum(state.phase_powers_cw)


@pytest.mark.parametrize("month", [1, 6])
def test_conversion_always_loses(month: int) -> None:
    """The DC side gives more than the AC side takes, by less than 6 % and 20 W."""
    for state in _day(4, month):
        through_w = sum(state.pv_powers_w) + abs(state.battery_power_w)
        assert 0 < state.loss_w <= 20 + 0.06 * through_w


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("month", [1, 4, 6])
def test_battery_stays_within_its_limits(seed: int, month: int) -> None:
    """Power and state of charge keep to the settings all day."""
    limits = PlantSettings()
    for state in _day(seed, month):
        assert abs(state.battery_power_w) <= limits.battery_limit_w
        percent = (state.soc_raw_permille - SOC_RAW_EMPTY) * 100 / SOC_RAW_SPAN
        assert limits.soc_min_percent - 0.1 <= percent <= limits.soc_max_percent + 0.1


def test_battery_current_has_the_opposite_sign_of_its_power() -> None:
    """The PCS counts current + charging and power + discharging."""
    moving = [state for state in _day(1, 4) if abs(state.battery_power_w) > 100]
    assert moving
    for state in moving:
        assert state.battery_current_da * state.battery_power_w < 0
        power_w = -state.battery_current_da * state.battery_voltage_dv / 100
        assert power_w == pytest.approx(state.battery_power_w, abs=11)


def test_counters_are_the_integral_of_the_powers() -> None:
    """Second by second, each counter grows by exactly the power that is published."""
    plant = Plant(5, _epoch(4) + 9 * 3600)
    before = plant.state
    for _ in range(1800):
        plant.advance(1)
        state = plant.state
        assert state.imported_cws - before.imported_cws == max(0, state.meter_power_cw)
        assert state.exported_cws - before.exported_cws == max(0, -state.meter_power_cw)
        assert state.discharged_ws - before.discharged_ws == max(0, state.battery_power_w)
        assert state.charged_ws - before.charged_ws == max(0, -state.battery_power_w)
        for phase, power_cw in enumerate(state.phase_powers_cw):
            bought_cws = state.phase_imported_cws[phase] - before.phase_imported_cws[phase]
            sold_cws = state.phase_exported_cws[phase] - before.phase_exported_cws[phase]
            assert bought_cws - sold_cws == power_cw
        before = state


def test_counters_never_fall() -> None:
    """All published counters are monotone over a day, and some of each kind moves."""
    states = _day(2, 4)
    for name in ("imported_ckwh", "exported_ckwh", "charged_dkwh", "discharged_dkwh"):
        values = [getattr(state, name) for state in states]
        assert all(low <= high for low, high in pairwise(values))
        assert values[0] < values[-1]
    assert states[-1].imported_ckwh == states[-1].imported_cws // CWS_PER_CKWH


def test_stored_energy_is_what_was_charged_less_losses() -> None:
    """Over a day the state of charge follows the two counters and the efficiency."""
    states = _day(1, 6)
    limits = PlantSettings()
    charged_ws = states[-1].charged_ws - states[0].charged_ws
    discharged_ws = states[-1].discharged_ws - states[0].discharged_ws
    efficiency = limits.battery_one_way_efficiency
    stored_wh = (charged_ws * efficiency - discharged_ws / efficiency) / 3600
    percent = stored_wh / limits.battery_capacity_wh * 100
    raw = states[-1].soc_raw_permille - states[0].soc_raw_permille
    assert raw == pytest.approx(percent / 100 * SOC_RAW_SPAN, abs=1)


def test_one_seed_gives_one_plant() -> None:
    """The same seed gives the same states; another seed gives others."""
    first, again, other = (Plant(seed, _epoch(6)) for seed in (7, 7, 8))
    for plant in (first, again, other):
        plant.advance(500)
    assert first.state == again.state
    assert first.state != other.state


def test_sample_advances_to_the_time_asked_for() -> None:
    """A sample is the state at that second, as advancing would give it."""
    sampled, advanced = Plant(1, _epoch(6)), Plant(1, _epoch(6))
    advanced.advance(77)
    assert sampled.sample(_epoch(6) + 77) == advanced.state


def test_a_plant_never_runs_backward() -> None:
    """The past cannot be sampled."""
    plant = Plant(1, _epoch(6))
    with pytest.raises(ValueError, match="forward"):
        plant.sample(_epoch(6) - 1)


@pytest.mark.parametrize("seed", range(6))
def test_a_june_day_is_plausible(seed: int) -> None:
    """Dark at night, strongest around noon, and 10 to 45 kWh."""
    states = _day(seed, 6)
    assert all(sum(state.pv_powers_w) == 0 for state in states[:120])
    assert all(sum(state.pv_powers_w) == 0 for state in states[-60:])
    assert 10 <= _pv_kwh(states) <= 45
    by_hour = [sum(sum(state.pv_powers_w) for state in states[h * 60 : h * 60 + 60]) for h in range(24)]
    assert sum(by_hour[8:15]) > sum(by_hour) / 2


def test_winter_brings_less_than_summer() -> None:
    """Over some homes, January has under half of June's PV energy."""
    winter, summer = (sum(_pv_kwh(_day(seed, month)) for seed in range(4)) for month in (1, 6))
    assert winter < summer / 2


def test_strings_follow_their_orientation() -> None:
    """The string that looks east leads in the morning, the other one in the evening."""
    strings = (PvString(3000, 35, 100, 350), PvString(3000, 35, 260, 350))
    states = _day(1, 6, PlantSettings(strings=strings))
    morning, evening = states[6 * 60].pv_powers_w, states[16 * 60].pv_powers_w
    assert morning[0] > morning[1]
    assert evening[0] < evening[1]


def test_the_ac_side_is_curtailed() -> None:
    """Panels that could give more are held near the inverter's limit."""
    large = (PvString(9000, 35, 180, 350), PvString(9000, 35, 180, 350))
    states = _day(1, 6, PlantSettings(strings=large))
    most_w = max(state.pcs_active_power_w for state in states)
    assert 4900 <= most_w <= 5500


def test_the_heartbeat_wraps() -> None:
    """After 255 comes 0, and the poll counter goes on by one."""
    plant = Plant(1, _epoch(6))
    states = []
    for _ in range(300):
        plant.advance(1)
        states.append(plant.state)
    beats = [state.heartbeat for state in states]
    assert max(beats) == 255
    assert beats[beats.index(255) + 1] == 0
    assert all(after.poll_counter - before.poll_counter == 1 for before, after in pairwise(states))


def test_phases_differ_and_sag_under_load() -> None:
    """Voltages within 10 % of 230 V, unequal but for chance, lower on a phase that feeds the hob."""
    states = _day(2, 1)
    assert sum(len(set(state.phase_voltages_dv)) == 3 for state in states) > 0.9 * len(states)
    light, heavy = (
        [state.phase_voltages_dv[1] for state in states if (state.phase_powers_cw[1] > 150_000) == loaded]
        for loaded in (False, True)
    )
    assert sum(heavy) / len(heavy) < sum(light) / len(light) - 5
    for state in states:
        assert all(2070 <= voltage <= 2530 for voltage in state.phase_voltages_dv)
        assert abs(state.frequency_chz - 5000) <= 10


@settings(max_examples=30)
@given(
    seed=st.integers(),
    start=st.integers(0, 4_000_000_000),
    step=st.integers(1, 3600),
    latitude=st.floats(-66, 66),
    longitude=st.floats(-180, 180),
)
def test_the_balance_holds_anywhere(
    seed: int, start: int, step: int, latitude: float, longitude: float
) -> None:
    """Whatever the place, time and step: the balance is exact and the loss is above 0."""
    plant = Plant(
        seed, start, PlantSettings(latitude_deg=latitude, longitude_deg=longitude, warm_up_seconds=0)
    )
    for _ in range(20):
        plant.advance(step, step_seconds=step)
        state = plant.state
        assert state.home_power_cw == state.pcs_active_power_w * 100 + state.meter_power_cw
        assert state.loss_w > 0
        assert state.home_power_cw > 0

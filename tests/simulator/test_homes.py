"""Homes: what each is made of, and that a receiver finds every device of it."""

import hashlib
from collections import Counter
from itertools import islice, pairwise
from random import Random

import pytest

from recorder.simulator.faults import FaultInjector, FaultRates, parse_faults
from recorder.simulator.homes import HOMES
from recorder.simulator.plant import Plant, PlantState
from recorder.simulator.polls import Master
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream, StreamSecond
from tests.simulator.decoding import Decoder
from tests.support.home_truth import HomeTruth, ac_side, flows_of, self_consumption, self_sufficiency
from tests.support.homes import profiles_of

JUNE_S, JANUARY_S = 1_782_000_000 // 86_400 * 86_400, 1_768_348_800
ALL = pytest.mark.parametrize("home", HOMES)


def _day(home: str, start_s: int, seed: int = 1) -> list[PlantState]:
    """The state at each minute of a day, with every power constant for that minute."""
    plant = Plant(seed, start_s, HOMES[home].settings)
    states = []
    for _ in range(1440):
        plant.advance(60, step_seconds=60)
        states.append(plant.state)
    return states


def _stream(home: str, faults: str = "none", *, both: bool = True) -> SiteStream:
    """The home's stream from noon of a June day on."""
    kind = HOMES[home]
    plant = Plant(1, JUNE_S + 43_200, kind.settings)
    return SiteStream(plant, DIALECTS["ttt"], parse_faults(faults), 1, both=both, devices=kind.devices)


@pytest.mark.parametrize(
    ("both", "digest"),
    [
        (True, "f87ed451158db92968dec0e540eada32052cdc3ac9ec3929f60f16335d7bfea1"),
        (False, "6923f6d9062f286752845bea7dcd59c29a010eedf69c52f144491d0036b6bb00"),
    ],
)
def test_the_first_home_never_changes(both: bool, digest: str) -> None:
    """Text, breaks and truth of the LG ESS are, to the bit, those from before there were other homes."""
    seen = hashlib.sha256()
    for seed in (1, 2):
        for start_s in (1_718_960_000, 1_737_400_000):
            plant = Plant(seed, start_s)
            stream = SiteStream(plant, DIALECTS["ttt"], parse_faults("all"), seed, both=both)
            for second in islice(stream, 600):
                for text in second.texts:
                    seen.update(text)
                seen.update(repr((second.tears, [sample[:3] for sample in second.truth])).encode())
    assert seen.hexdigest() == digest


@ALL
@pytest.mark.parametrize("start_s", [JANUARY_S, JUNE_S], ids=["winter", "summer"])
def test_a_home_is_its_inverters_and_its_meter(home: str, start_s: int) -> None:
    """In register units the balance is exact, and the flows of the oracle add up, all day."""
    for state in _day(home, start_s):
        inverters_w = state.pcs_active_power_w + state.inverter_power_w
        assert state.home_power_cw == inverters_w * 100 + state.meter_power_cw
        flows = flows_of(ac_side(state))
        assert flows["home"] == pytest.approx(state.home_power_cw / 100)
        assert flows["home"] == pytest.approx(
            flows["pv_to_home"] + flows["battery_to_home"] + flows["grid_to_home"]
        )
        assert flows["battery_charge"] == flows["pv_to_battery"] + flows["grid_to_battery"]
        assert flows["grid_export"] == pytest.approx(flows["pv_to_grid"] + flows["battery_to_grid"], abs=1e-6)
        # What the home buys is what it is told to buy, where the battery buys nothing beside it.
        if inverters_w >= 0:
            assert flows["grid_to_home"] == pytest.approx(flows["grid_import"], abs=1e-6)
        assert all(value >= 0 for name, value in flows.items() if name != "loss")


@ALL
def test_each_device_is_found_in_the_stream(home: str) -> None:
    """Every sample of the truth has its time and fields, with its measurement, and there are no others."""
    stream, decoder = _stream(home), Decoder(profiles_of(home))
    seconds = list(islice(stream, 30))
    found = [answer for second in seconds for answer in decoder.feed(second.texts[0])]
    truth = [sample for second in seconds for sample in second.truth]
    assert {sample.device for sample in truth} == {device.name for device in HOMES[home].devices}
    assert all(sample.certain for sample in truth)
    answers: Counter[str] = Counter(measurement for measurement, _, _ in found)
    assert answers == {device.name: 30 * len(device.requests) for device in HOMES[home].devices}
    for sample in truth:
        joined: dict[str, float] = {}
        for name, at_ns, fields in found:
            if name == sample.device and at_ns is not None and -(10**9) < at_ns - sample.at_ns <= 0:
                joined |= fields
        assert joined == sample.fields


@ALL
def test_no_bus_carries_two_requests_at_once(home: str) -> None:
    """On each bus a request begins after the answer to the one before it."""
    plant, random = Plant(1, JUNE_S, HOMES[home].settings), Random(1)
    buses: dict[Master, list[tuple[int, int]]] = {}
    for _ in range(50):
        state = plant.sample(plant.now_s + 1)
        for device in HOMES[home].devices:
            master = Master(device.process, device.descriptor)
            for poll in device.poll(state, master, random):
                buses.setdefault(master, []).append((poll.asked_at_ns, poll.answered_at_ns))
    for times in buses.values():
        for before, after in pairwise(sorted(times)):
            assert before[1] < after[0]


@ALL
def test_a_refusal_names_the_device_that_was_asked(home: str) -> None:
    """The exception response has the unit of its request."""
    injector = FaultInjector(FaultRates({"exception": 1.0}), Random(1))
    state = Plant(1, JUNE_S + 43_200, HOMES[home].settings).state
    for device in HOMES[home].devices:
        for poll in injector.damage_polls(device.poll(state, Master(1, 4), Random(1))):
            assert poll.response[:2] == bytes((device.unit, 0x83))


@ALL
@pytest.mark.parametrize("both", [True, False], ids=["both", "separate"])
def test_among_faults_every_certain_answer_is_found(home: str, both: bool) -> None:
    """With all faults, samples that come in one answer still have exactly their fields."""
    stream = _stream(home, faults="all", both=both)
    seconds: list[StreamSecond] = list(islice(stream, 300))
    decoders = [Decoder(profiles_of(home)) for _ in seconds[0].texts]
    found = {
        (name, at_ns): fields
        for second in seconds
        for decoder, text in zip(decoders, second.texts, strict=True)
        for name, at_ns, fields in decoder.feed(text)
    }
    certain = [
        sample
        for second in seconds[:-2]
        for sample in second.truth
        if sample.certain and sample.device in {"pcs", "inverter"}
    ]
    assert len(certain) > 250 or home == "meter"
    for sample in certain:
        assert found[sample.device, sample.at_ns] == sample.fields


def test_the_heat_pump_is_a_part_of_the_home() -> None:
    """It draws on all phases, never more than the home, and some kWh a day."""
    states = _day("heat-pump", JANUARY_S)
    assert all(0 < state.heat_pump_power_cw < state.home_power_cw for state in states)
    kwh = (states[-1].heat_pump_cws - states[0].heat_pump_cws) / 100 / 3_600_000
    assert 5 < kwh < 40


def test_homes_without_a_battery_have_none() -> None:
    """PV and meter, and a meter alone: no PCS, no battery, and at noon power to sell with PV only."""
    for state in [*_day("pv", JUNE_S), *_day("meter", JUNE_S)]:
        assert state.pcs_active_power_w == state.battery_power_w == sum(state.pv_powers_w) == 0
    assert min(state.meter_power_cw for state in _day("pv", JUNE_S)) < -100_000
    assert min(state.meter_power_cw for state in _day("meter", JUNE_S)) > 0


def test_the_inverter_without_a_battery_sleeps_at_night() -> None:
    """Its master goes on asking, and nothing answers; there is no sample to find."""
    kind = HOMES["pv"]
    stream = SiteStream(Plant(1, JUNE_S, kind.settings), DIALECTS["ttt"], devices=kind.devices)
    second = next(stream)
    assert b"\\x03\\x03\\x75\\x00" in second.texts[0]
    assert {sample.device for sample in second.truth} == {"powermeter"}


def test_the_second_inverter_also_charges_the_battery() -> None:
    """At some moment its power goes through the PCS, which then draws AC power, and nothing is bought."""
    states = _day("two-inverters", JUNE_S)
    assert any(state.pcs_active_power_w < -100 and state.meter_power_cw <= 0 for state in states)


def test_a_battery_that_is_charged_at_night_is_used_by_day() -> None:
    """In winter the PCS draws AC power at night, with losses, and supplies the home by day."""
    states = _day("night-charge", JANUARY_S)
    night = [state for state in states if state.pcs_active_power_w < -1000]
    assert len(night) > 60
    assert all(state.battery_power_w < 0 and state.meter_power_cw > 100_000 for state in night)
    assert all(-state.pcs_active_power_w > -state.battery_power_w * 1.05 for state in night)
    truth = HomeTruth()
    for state in states:
        truth.add(state)
    energy = truth.between(JANUARY_S, JANUARY_S + 86_400)
    assert energy["grid_to_battery"] > 2 * energy["pv_to_battery"]
    assert energy["battery_to_home"] > 0.01


def test_purchased_energy_in_the_battery_is_not_self_sufficiency() -> None:
    """The example of DESIGN.md by hand: 4 kWh bought, 3 of them for the battery, 2 reach the home."""
    energy = {"home": 3.0, "grid_import": 4.0, "pv_to_home": 0.0, "pv_to_battery": 0.0, "pv_to_grid": 0.0}
    assert self_sufficiency(energy) == 0
    assert self_consumption(energy) is None

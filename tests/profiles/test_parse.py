"""Profiles from YAML: what is shipped, and that nothing is lost on the way."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.commands.configuration import load_configuration
from recorder.profiles.model import DerivedField, Profile, Register, ValidityRule
from recorder.profiles.parse import parse_profile
from recorder.resources import shipped_config_dir
from recorder.yaml_document import ConfigurationError

PCS, METER = load_configuration(None, {}).profiles

FULL = """
name: heat-pump
description: A heat pump
measurement: pump
device: pump
unit: 17
function: 4
point_per: scan
scan_closed_by: power
scan_timeout_seconds: 2.5
valid_when: {address: 0x20, type: u16, above: 3}
energy: {home: energy}
role: submeter
quantities: {grid_power: total, pv_power: {field: power, side: ac}}
poll_counter: energy
registers:
  - {address: 0x10, name: power, type: s16, scale: 0.1, offset: -7, unit: W, range: [-9.5, 9],extremes: true}
  - {address: 18, name: energy, type: u64, unit: kWh, kind: counter, description: "So far, all phases"}
derived:
  - {name: total, sum_of: [power, energy], unit: W, kind: state, extremes: true, description: Nonsense}
"""


def test_every_key_reaches_the_profile() -> None:
    """A profile that uses every key holds what each of them says."""
    assert parse_profile(FULL, "profile.yaml") == Profile(
        name="heat-pump",
        description="A heat pump",
        measurement="pump",
        device="pump",
        unit=17,
        function=4,
        point_per="scan",
        scan_closed_by="power",
        scan_timeout_seconds=2.5,
        validity=ValidityRule(0x20, "u16", 3),
        role="submeter",
        quantities=(("home", "energy"), ("grid_power", "total"), ("pv_power", "power")),
        pv_side="ac",
        poll_counter="energy",
        registers=(
            Register(0x10, "power", "s16", Fraction(1, 10), -7, "W", -9.5, 9.0, extremes=True),
            Register(18, "energy", "u64", unit="kWh", kind="counter", description="So far, all phases"),
        ),
        derived=(
            DerivedField("total", ("power", "energy"), "W", "state", extremes=True, description="Nonsense"),
        ),
    )


@pytest.mark.parametrize(
    ("text", "scale"),
    [
        ("0.1", Fraction(1, 10)),
        ("100/905", Fraction(20, 181)),
        ("-1", Fraction(-1)),
        ("0.10", Fraction(1, 10)),
        ('"0.001"', Fraction(1, 1000)),
        ("0.5/3", Fraction(1, 6)),
        ("0.123456789012", Fraction(123456789012, 10**12)),
    ],
)
def test_scale_is_exact(text: str, scale: Fraction) -> None:
    """A scale is the fraction that its text says, and not the float nearest to it."""
    assert (
        parse_profile(FULL.replace("scale: 0.1", f"scale: {text}"), "profile.yaml").registers[0].scale
        == scale
    )


@pytest.mark.parametrize(
    "text", ["0", "0.0", "1/0", "1e3", "1/-2", "0x10", "1/2/3", "", "''", "9" * 5000, "[1]", "1 / 2"]
)
def test_scale_that_is_no_plain_number_is_refused(text: str) -> None:
    """Zero, powers, hexadecimal, nothing and endless digits are errors at the scale."""
    with pytest.raises(
        ConfigurationError, match=r"registers\[0\]\.scale: .*allowed is a decimal such as 0\.1"
    ):
        parse_profile(FULL.replace("scale: 0.1", f"scale: {text}"), "profile.yaml")


def test_pcs_has_the_fields_of_the_data_model() -> None:
    """The shipped PCS profile fills the measurement pcs, tagged pcs, and counts if 0x9CA4 is above 0."""
    assert {field.name for field in PCS.fields} == {
        "active_power",
        "pv_power",
        "pv1_power",
        "pv2_power",
        "pv1_voltage",
        "pv2_voltage",
        "battery_power",
        "battery_current",
        "battery_voltage",
        "battery_soc",
        "battery_soc_raw",
        "battery_soc_max",
        "battery_temperature_max",
        "battery_temperature_min",
        "battery_energy_charged",
        "battery_energy_discharged",
        "battery_status",
        "status",
        "frequency",
        "polls",
    }
    assert (PCS.measurement, PCS.device, PCS.unit, PCS.function, PCS.point_per) == (
        "pcs",
        "pcs",
        1,
        3,
        "answer",
    )
    assert PCS.validity == ValidityRule(0x9CA4, "s32", 0)


def test_meter_has_the_fields_of_the_data_model() -> None:
    """The shipped meter profile fills the measurement powermeter, tagged meter, once a scan."""
    assert [field.name for field in METER.fields] == (
        [
            "active_import",
            "active_export",
            "voltage_l1",
            "voltage_l2",
            "voltage_l3",
            "active_power",
            "frequency",
        ]
    )
    assert (METER.measurement, METER.device, METER.unit, METER.function) == ("powermeter", "meter", 1, 3)
    assert (METER.point_per, METER.scan_closed_by, METER.scan_timeout_seconds) == ("scan", "frequency", 5.0)


@pytest.mark.parametrize("profile", [PCS, METER], ids=lambda profile: profile.name)
def test_every_field_is_described(profile: Profile) -> None:
    """Each shipped field has a description, and every one that is no state or count of polls has a unit."""
    assert all(field.description for field in profile.fields)
    assert {field.name for field in profile.fields if not field.unit} <= {"status", "battery_status", "polls"}


@pytest.mark.parametrize("profile", [PCS, METER], ids=lambda profile: profile.name)
def test_commented_registers_can_be_used(profile: Profile) -> None:
    """Each register that the shipped file offers in a comment is one that the profile accepts."""
    text = (shipped_config_dir() / "profiles" / f"{profile.name}.yaml").read_text()
    offered = [line.removeprefix("#") for line in text.splitlines() if line.startswith("#  - {address")]
    assert len(offered) >= 4
    wider = parse_profile(
        text.replace("registers:\n", "registers:\n" + "\n".join(offered) + "\n"), "profile.yaml"
    )
    assert len(wider.registers) == len(profile.registers) + len(offered)


@given(
    first=st.integers(0, 20),
    second=st.integers(0, 20),
    kinds=st.tuples(*[st.sampled_from(["u16", "s32", "u64"])] * 2),
)
def test_values_share_all_of_their_address_or_none(first: int, second: int, kinds: tuple[str, str]) -> None:
    """Two registers are accepted exactly when they are apart, or the same address and type."""
    text = f"{FULL.split('registers:', maxsplit=1)[0].split('point_per', maxsplit=1)[0]}registers:\n"
    for name, address, kind in (("a", first, kinds[0]), ("b", second, kinds[1])):
        text += f"  - {{address: {address}, name: {name}, type: {kind}}}\n"
    words = {"u16": 1, "s32": 2, "u64": 4}
    one, other = (
        set(range(start, start + words[kind])) for start, kind in ((first, kinds[0]), (second, kinds[1]))
    )
    if one.isdisjoint(other) or (first, kinds[0]) == (second, kinds[1]):
        assert len(parse_profile(text, "profile.yaml").registers) == 2
    else:
        with pytest.raises(ConfigurationError, match="overlaps"):
            parse_profile(text, "profile.yaml")


OLDER = """
name: {name}
measurement: {name}
device: {name}
unit: 1
function: 3
energy: {energy}
registers:
  - {{address: 0, name: active_power, type: s32, unit: W}}
  - {{address: 2, name: pv_power, type: s32, unit: W}}
  - {{address: 4, name: battery_power, type: s32, unit: W}}
  - {{address: 6, name: counted, type: u32, unit: kWh, kind: counter}}
  - {{address: 8, name: polls, type: u32, kind: counter}}
"""


@pytest.mark.parametrize(
    ("energy", "role"),
    [("{grid_import: counted}", "grid_meter"), ("{battery_charge: counted}", "hybrid_inverter")],
)
def test_copy_of_a_shipped_profile_from_before_roles_keeps_its_role(energy: str, role: str) -> None:
    """A profile that states no role is what it was: told by its counters, with its poll counter."""
    profile = parse_profile(OLDER.format(name="mine", energy=energy), "mine.yaml")
    assert profile.role == role
    assert profile.field_of("grid_power" if role == "grid_meter" else "ac_power") == "active_power"
    assert profile.poll_counter == "polls"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("grid_power: total", "grid_power: totl", "no field is named totl; did you mean total"),
        ("grid_power: total", "grid_pwr: total", "unknown quantity; did you mean grid_power"),
        ("grid_power: total", "soc: total", "soc is in %, and total in W"),
        ("{field: power, side: ac}", "power", "the side of the inverter is missing"),
        ("grid_power: total", "grid_power: {field: total, side: ac}", "grid_power has no side"),
        ("role: submeter", "role: inverter", None),
        ("role: submeter", "role: hybrid_inverter", "needs the quantity ac_power"),
        ("poll_counter: energy", "poll_counter: power", "no register of kind counter is named power"),
        ("measurement: pump", "measurement: energy_15m", "the recorder writes energy_15m itself"),
        ("measurement: pump", "measurement: flow", "the recorder writes flow itself"),
        ("name: total,", "name: time,", "time is the name of a point's time"),
    ],
)
def test_balance_that_cannot_be_is_refused(before: str, after: str, said: str | None) -> None:
    """Roles, quantities and names that do not fit are errors that name what is allowed."""
    text = FULL.replace(before, after)
    if said is None:
        parse_profile(text, "profile.yaml")
    else:
        with pytest.raises(ConfigurationError, match=said.replace("%", ".")):
            parse_profile(text, "profile.yaml")

"""Values from register bytes: exact, or absent."""

import math
import struct
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pymodbus.client.mixin import ModbusClientMixin

from recorder.commands.configuration import load_configuration
from recorder.profiles.model import WORDS_OF_TYPE, Profile, Register, RegisterType, ValidityRule
from recorder.profiles.readings import INVALID, Readings, plan_answer

PCS, METER = load_configuration(None, {}).profiles
VALID_INDEX = (0x9CA4 - 0x9C72) // 2

TYPES: list[RegisterType] = ["u16", "s16", "u32", "s32", "u64", "s64", "f32"]
INTEGERS: list[RegisterType] = ["u16", "s16", "u32", "s32", "u64", "s64"]
THEIRS = {
    "u16": ModbusClientMixin.DATATYPE.UINT16,
    "s16": ModbusClientMixin.DATATYPE.INT16,
    "u32": ModbusClientMixin.DATATYPE.UINT32,
    "s32": ModbusClientMixin.DATATYPE.INT32,
    "u64": ModbusClientMixin.DATATYPE.UINT64,
    "s64": ModbusClientMixin.DATATYPE.INT64,
    "f32": ModbusClientMixin.DATATYPE.FLOAT32,
}
scales = st.fractions(max_denominator=10**6).filter(bool)


def device(*registers: Register, validity: ValidityRule | None = None) -> Profile:
    """A profile of these registers."""
    return Profile("test", "test", "test", 1, 3, registers, validity=validity)


def decode_readings(profile: Profile, address: int, register_bytes: bytes) -> Readings:
    """What the registers from `address` say, by the plan of their shape."""
    plan = plan_answer(profile, address, len(register_bytes) // 2)
    return INVALID if plan is None else plan.read(register_bytes)


def one(kind: RegisterType, data: bytes, scale: Fraction = Fraction(1), offset: int = 0) -> Readings:
    """The readings of a single register of this type."""
    return decode_readings(device(Register(0, "x", kind, scale, offset)), 0, data)


def is_absent(kind: RegisterType, data: bytes) -> bool:
    """Whether the bytes are the type's "not available"."""
    return data == (b"\x7f" if kind[0] == "s" else b"\xff") + b"\xff" * (len(data) - 1)


def pcs_answer(**values: int) -> bytes:
    """The 92 registers of a valid answer with these raw values at `i<index>`."""
    raws = [0] * 46
    raws[VALID_INDEX] = 1
    for key, value in values.items():
        raws[int(key[1:])] = value
    return struct.pack(">46i", *raws)


@given(
    kind=st.sampled_from(INTEGERS),
    bits=st.binary(min_size=8, max_size=8),
    scale=scales,
    offset=st.integers(-999, 999),
)
def test_value_is_the_float_nearest_to_the_exact_one(
    kind: RegisterType, bits: bytes, scale: Fraction, offset: int
) -> None:
    """Scaling integers rounds once: the result is the exact fraction rounded to a float."""
    data = bits[: 2 * WORDS_OF_TYPE[kind]]
    assume(not is_absent(kind, data))
    raw = int.from_bytes(data, "big", signed=kind[0] == "s")
    assert one(kind, data, scale, offset).values == {"x": float((raw + offset) * scale)}


@given(
    raw=st.floats(width=32, allow_nan=False, allow_infinity=False),
    scale=scales,
    offset=st.integers(-999, 999),
)
def test_float_register_is_scaled_exactly(raw: float, scale: Fraction, offset: int) -> None:
    """Scaling a float register rounds once, and gives a float."""
    values = one("f32", struct.pack(">f", raw), scale, offset).values
    assert values == {"x": float((Fraction(raw) + offset) * scale)}
    assert type(values["x"]) is float


@given(kind=st.sampled_from(TYPES), bits=st.binary(min_size=8, max_size=8))
def test_raw_value_agrees_with_pymodbus(kind: RegisterType, bits: bytes) -> None:
    """Signedness, word order and float format are those of an independent Modbus library."""
    data = bits[: 2 * WORDS_OF_TYPE[kind]]
    registers = list(struct.unpack(f">{len(data) // 2}H", data))
    theirs = ModbusClientMixin.convert_from_registers(registers, THEIRS[kind], word_order="big")
    assert isinstance(theirs, int | float)
    assume(math.isfinite(theirs) and not (kind != "f32" and is_absent(kind, data)))
    assert one(kind, data).values == {"x": float(theirs)}


@pytest.mark.parametrize("kind", INTEGERS)
def test_not_available_is_no_reading(kind: RegisterType) -> None:
    """The largest signed value and all ones in an unsigned one are counted and left out; one less is read."""
    bits = 16 * WORDS_OF_TYPE[kind]
    absent = (1 << bits - 1) - 1 if kind[0] == "s" else (1 << bits) - 1
    assert one(kind, absent.to_bytes(bits // 8, "big")) == Readings({}, unavailable=1)
    assert one(kind, (absent - 1).to_bytes(bits // 8, "big")).values == {"x": float(absent - 1)}


@pytest.mark.parametrize("raw", [math.nan, math.inf, -math.inf])
def test_float_that_is_no_number_is_no_reading(raw: float) -> None:
    """NaN and infinity are counted as not available."""
    assert one("f32", struct.pack(">f", raw)) == Readings({}, unavailable=1)


@given(first=st.integers(0, 14), count=st.integers(0, 14), odd=st.booleans())
def test_only_registers_wholly_inside_the_answer_are_read(first: int, count: int, odd: bool) -> None:
    """Whatever part of the registers an answer holds, a value at its edge is absent and never made up."""
    profile = device(
        Register(2, "a", "u16"), Register(4, "b", "u32"), Register(6, "c", "u64"), Register(12, "d", "f32")
    )
    image = struct.pack(">6H", 0, 0, 7, 0, 0, 8) + struct.pack(">Q", 9) + struct.pack(">4xf", 1.5) + bytes(40)
    data = image[2 * first : 2 * (first + count)] + b"\x01" * odd
    expected = {
        name: value
        for name, start, words, value in (
            ("a", 2, 1, 7.0),
            ("b", 4, 2, 8.0),
            ("c", 6, 4, 9.0),
            ("d", 12, 2, 1.5),
        )
        if first <= start and start + words <= first + count
    }
    assert decode_readings(profile, first, data) == Readings(expected)


@pytest.mark.parametrize("witness", [0, -1, -(1 << 31), (1 << 31) - 1])
def test_sample_without_its_witness_is_not_valid(witness: int) -> None:
    """A PCS answer whose 0x9CA4 is not above 0, or not available, has no value at all."""
    assert decode_readings(PCS, 0x9C72, pcs_answer(i6=100, i25=witness)) == Readings({}, valid=False)


def test_answer_that_lacks_the_witness_is_not_valid() -> None:
    """An answer that ends before 0x9CA4 cannot show that it is valid."""
    assert decode_readings(PCS, 0x9C72, pcs_answer(i6=100)[: 2 * 40]) == Readings({}, valid=False)


def test_witness_of_float_type_may_be_no_number() -> None:
    """NaN in the validity register makes the sample not valid."""
    profile = device(Register(2, "a", "u16"), validity=ValidityRule(0, "f32", 0))
    assert decode_readings(profile, 0, struct.pack(">fH", math.nan, 1)) == Readings({}, valid=False)
    assert decode_readings(profile, 0, struct.pack(">fH", 0.5, 1)) == Readings({"a": 1.0})


def test_pcs_answer_gives_every_field_in_its_unit() -> None:
    """One valid answer gives the twenty fields of the data model, scaled and with their signs."""
    raws = {
        0: 3,
        6: -250,
        9: 341,
        10: 110,
        12: 219,
        13: 63,
        15: 46882115,
        16: 4997,
        17: 1989,
        18: 21,
        19: -418,
    }
    raws |= {22: 1, 25: 1, 26: 497, 27: 910, 28: 213, 29: -20, 30: 57379, 31: 48906}
    readings = decode_readings(PCS, 0x9C72, pcs_answer(**{f"i{index}": raw for index, raw in raws.items()}))
    assert readings == Readings(
        {
            "status": 3.0,
            "active_power": -250.0,
            "pv1_voltage": 341.0,
            "pv1_power": 110.0,
            "pv2_voltage": 219.0,
            "pv2_power": 63.0,
            "pv_power": 173.0,
            "polls": 46882115.0,
            "frequency": 49.97,
            "battery_voltage": 198.9,
            "battery_current": 2.1,
            "battery_power": -418.0,
            "battery_status": 1.0,
            "battery_soc_raw": 49.7,
            "battery_soc": (497 - 45) * 100 / 905,
            "battery_soc_max": 91.0,
            "battery_temperature_max": 21.3,
            "battery_temperature_min": -2.0,
            "battery_energy_charged": 5737.9,
            "battery_energy_discharged": 4890.6,
        }
    )


def test_impossible_values_are_counted_and_left_out() -> None:
    """A state of charge of 400 % and a power of 1 MW are no readings, nor is a sum with one of them."""
    readings = decode_readings(PCS, 0x9C72, pcs_answer(i26=4000, i10=1_000_000))
    assert readings.implausible == 3
    assert {"battery_soc", "battery_soc_raw", "pv1_power", "pv_power"}.isdisjoint(readings.values)
    assert "pv2_power" in readings.values


@pytest.mark.parametrize(
    ("address", "data", "values"),
    [
        (0x5000, struct.pack(">Q", 1234567), {"active_import": 12345.67}),
        (0x5004, struct.pack(">Q", 89), {"active_export": 0.89}),
        (0x5B00, struct.pack(">I", 2315), {"voltage_l1": 231.5}),
        (
            0x5B00,
            struct.pack(">3I", 2315, 2298, 2880),
            {"voltage_l1": 231.5, "voltage_l2": 229.8, "voltage_l3": 288.0},
        ),
        (0x5B14, struct.pack(">i", -123456), {"active_power": -1234.56}),
        (0x5B2C, struct.pack(">H", 5002), {"frequency": 50.02}),
    ],
)
def test_meter_answer_gives_its_field_in_its_unit(
    address: int, data: bytes, values: dict[str, float]
) -> None:
    """Each request of a meter scan gives the fields at its address, scaled."""
    assert decode_readings(METER, address, data) == Readings(values)

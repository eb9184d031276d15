"""Registers: the plant in the layout that the shipped profiles describe."""

from struct import unpack

import pytest

from recorder.simulator.plant import Plant
from recorder.simulator.registers import (
    METER_SCAN,
    METER_VALUES,
    PCS_ADDRESS,
    MeterValue,
    pcs_registers,
    register_words,
)

STATE = Plant(1, 1_718_970_000).state


def test_the_pcs_gives_46_values_with_copies_and_a_validity() -> None:
    """Values 23 and 24 repeat 17 and 18, value 25 is above 0, value 45 is the heartbeat."""
    values = unpack(">46i", pcs_registers(STATE))
    assert values[23] == values[17] == STATE.battery_voltage_dv
    assert values[24] == values[18] == STATE.battery_current_da
    assert values[19] == STATE.battery_power_w
    assert values[25] > 0
    assert values[45] == STATE.heartbeat


@pytest.mark.parametrize(("power_w", "published"), [(2**40, 2**31 - 1), (-(2**40), -(2**31)), (-5, -5)])
def test_pcs_values_saturate(power_w: int, published: int) -> None:
    """A value that does not fit is the nearest that does."""
    values = unpack(">46i", pcs_registers(STATE._replace(pcs_active_power_w=power_w)))
    assert values[6] == published


@pytest.mark.parametrize(
    ("words", "signed", "value", "published"),
    [
        (1, False, -1, "0000"),
        (1, False, 10**9, "fffe"),
        (2, True, 10**12, "7ffffffe"),
        (2, True, -(10**12), "80000000"),
        (4, False, 2**80, "fffffffffffffffe"),
        (2, True, -2, "fffffffe"),
    ],
)
def test_meter_values_saturate_below_not_available(
    words: int, signed: bool, value: int, published: str
) -> None:
    """The largest value is one less than the code for "not available"."""
    meter_value = MeterValue(0, words, signed, lambda _state: value)
    assert meter_value.encode(STATE).hex() == published


def test_the_scan_asks_for_the_seven_known_addresses() -> None:
    """Address and width are those of the real requests, in their order."""
    assert [(value.address, value.words) for value in METER_SCAN] == [
        (0x5000, 4), (0x5004, 4), (0x5B00, 2), (0x5B02, 2), (0x5B04, 2), (0x5B14, 2), (0x5B2C, 1),
    ]  # fmt: skip


def test_no_two_values_share_a_register() -> None:
    """Every register of both devices has one meaning."""
    words = register_words(STATE)
    assert len(words) == 92 + sum(value.words for value in METER_VALUES)
    assert words[PCS_ADDRESS + 13] == STATE.pcs_active_power_w & 0xFFFF

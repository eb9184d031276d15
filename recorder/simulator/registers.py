"""The plant as its devices publish it: Modbus registers.

Takes a `PlantState`, gives register bytes, two a register, high byte first. Never overflows: a value
that does not fit is the largest or smallest that does. Layout and units are those of the PCS of an
LG ESS Gen 1 and of ABB's B21/B23/B24 meters; those of the inverter without a battery are made up.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple

from recorder.simulator.plant import CWS_PER_CKWH, WS_PER_CKWH, PlantState

UNIT: Final = 1
READ_HOLDING_REGISTERS: Final = 3
PCS_ADDRESS: Final = 0x9C72
PCS_REGISTERS: Final = 92

HEAT_PUMP_UNIT: Final = 2
INVERTER_UNIT: Final = 3
INVERTER_ADDRESS: Final = 0x7500
INVERTER_REGISTERS: Final = 8

_PCS_VALUES: Final = Struct(">46i")
_INVERTER_VALUES: Final = Struct(">4i")
_S32_LOW, _S32_HIGH = -(2**31), 2**31 - 1
PCS_STATUS: Final = 3
# Tenths of a degree that the warmest and the coldest cell are from the mean.
_CELL_SPREAD_DC = 4
# Values whose meaning is not known: constant in a running device.
_UNKNOWN: Final = {2: 248, 7: 618, 14: 1885, 32: 2950, 33: 2950, 34: 0x01010100} | {
    35: 108, 36: 28, 37: 17, 38: 33, 39: 33, 40: 33, 41: 2, 42: 4, 44: 4
}  # fmt: skip


def pcs_registers(state: PlantState) -> bytes:
    """Give the PCS's 92 registers from 0x9C72: 46 signed 32-bit values, high word first."""
    values = [0] * 46
    for index, constant in _UNKNOWN.items():
        values[index] = constant
    values[0] = PCS_STATUS
    values[6] = state.pcs_active_power_w
    for index, power_w, voltage_v in zip((8, 11), state.pv_powers_w, state.pv_voltages_v, strict=True):
        values[index] = power_w // voltage_v if voltage_v else 0
        values[index + 1] = voltage_v
        values[index + 2] = power_w
    values[15] = state.poll_counter
    values[16] = state.frequency_chz
    values[17] = values[23] = state.battery_voltage_dv
    values[18] = values[24] = state.battery_current_da
    values[19] = state.battery_power_w
    values[22] = state.battery_status
    values[25] = 1
    values[26] = state.soc_raw_permille
    values[27] = state.soc_max_permille
    values[28] = state.battery_temperature_dc + _CELL_SPREAD_DC
    values[29] = state.battery_temperature_dc - _CELL_SPREAD_DC
    values[43] = state.battery_temperature_dc
    values[30] = state.charged_dkwh
    values[31] = state.discharged_dkwh
    values[45] = state.heartbeat
    return _PCS_VALUES.pack(*(min(max(value, _S32_LOW), _S32_HIGH) for value in values))


def inverter_registers(state: PlantState) -> bytes:
    """Give the plain inverter's 8 registers: AC and PV (DC) power in W, then energies in 0.01 kWh."""
    return _INVERTER_VALUES.pack(
        state.inverter_power_w,
        state.inverter_pv_power_w,
        state.inverter_ws // WS_PER_CKWH,
        state.inverter_pv_ws // WS_PER_CKWH,
    )


def as_heat_pump_meter_sees(state: PlantState) -> PlantState:
    """Give a state whose grid connection is that of the heat pump, for the meter before it."""
    return state._replace(
        meter_power_cw=state.heat_pump_power_cw, imported_cws=state.heat_pump_cws, exported_cws=0
    )


class MeterValue(NamedTuple):
    """One value of the meter: where it stands, how wide it is, and how the plant gives it."""

    address: int
    words: int
    signed: bool
    value: Callable[[PlantState], int]

    def encode(self, state: PlantState) -> bytes:
        """Give the register bytes; the code for "not available" is never reached."""
        bits = 16 * self.words
        lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 2) if self.signed else (0, (1 << bits) - 2)
        return min(max(self.value(state), lowest), highest).to_bytes(bits // 8, signed=self.signed)


# The seven requests of a scan, in the order in which the controller sends them.
METER_SCAN: Final = (
    MeterValue(0x5000, 4, False, lambda state: state.imported_ckwh),
    MeterValue(0x5004, 4, False, lambda state: state.exported_ckwh),
    MeterValue(0x5B00, 2, False, lambda state: state.phase_voltages_dv[0]),
    MeterValue(0x5B02, 2, False, lambda state: state.phase_voltages_dv[1]),
    MeterValue(0x5B04, 2, False, lambda state: state.phase_voltages_dv[2]),
    MeterValue(0x5B14, 2, True, lambda state: state.meter_power_cw),
    MeterValue(0x5B2C, 1, False, lambda state: state.frequency_chz),
)


def _current_ca(phase: int) -> Callable[[PlantState], int]:
    return lambda state: abs(state.phase_powers_cw[phase]) * 10 // state.phase_voltages_dv[phase]


def _power_cw(phase: int) -> Callable[[PlantState], int]:
    return lambda state: state.phase_powers_cw[phase]


def _imported_ckwh(phase: int) -> Callable[[PlantState], int]:
    return lambda state: state.phase_imported_cws[phase] // CWS_PER_CKWH


def _exported_ckwh(phase: int) -> Callable[[PlantState], int]:
    return lambda state: state.phase_exported_cws[phase] // CWS_PER_CKWH


def _power_factor_permille(_state: PlantState) -> int:
    return 1000


METER_VALUES: Final = (
    *METER_SCAN,
    *(MeterValue(0x5B0C + 2 * phase, 2, False, _current_ca(phase)) for phase in range(3)),
    *(MeterValue(0x5B16 + 2 * phase, 2, True, _power_cw(phase)) for phase in range(3)),
    *(MeterValue(0x5B3A + index, 1, True, _power_factor_permille) for index in range(4)),
    *(MeterValue(0x5460 + 4 * phase, 4, False, _imported_ckwh(phase)) for phase in range(3)),
    *(MeterValue(0x546C + 4 * phase, 4, False, _exported_ckwh(phase)) for phase in range(3)),
)


def register_words(state: PlantState) -> dict[int, int]:
    """Give every 16-bit register of both devices by its address; the two do not overlap."""
    blocks = [
        (PCS_ADDRESS, pcs_registers(state)),
        *((value.address, value.encode(state)) for value in METER_VALUES),
    ]
    return {
        address + index // 2: int.from_bytes(block[index : index + 2])
        for address, block in blocks
        for index in range(0, len(block), 2)
    }

"""One second on the two buses: seven requests to the meter, one to the PCS.

Takes a `PlantState` and the masters, gives `Poll`s: request, answer and when each happened. Never
damages them; `faults` does.
"""

from random import Random
from typing import Final, Literal, NamedTuple

from recorder.modbus.frames import read_request, read_response
from recorder.simulator.plant import PlantState
from recorder.simulator.registers import (
    METER_SCAN,
    PCS_ADDRESS,
    PCS_REGISTERS,
    READ_HOLDING_REGISTERS,
    UNIT,
    pcs_registers,
)

Device = Literal["pcs", "powermeter"]
PCS: Final = "pcs"
POWERMETER: Final = "powermeter"

_US: Final = 1000
_MS: Final = 1_000_000
_PCS_REQUEST: Final = read_request(UNIT, READ_HOLDING_REGISTERS, PCS_ADDRESS, PCS_REGISTERS)
_METER_REQUESTS: Final = tuple(
    read_request(UNIT, READ_HOLDING_REGISTERS, value.address, value.words) for value in METER_SCAN
)
# The meter's requests fill the second, and the PCS's long answer runs beside two of them.
_METER_STARTS_MS: Final = (20, 150, 280, 410, 540, 670, 800)
_PCS_STARTS_MS: Final = 360


class Master(NamedTuple):
    """A process of the controller that polls one device: its pid and its serial descriptor."""

    process: int
    descriptor: int


class Poll(NamedTuple):
    """A request, its answer (empty where none came), and the name of the fault that befell it.

    `asked_at_ns` and `answered_at_ns` are Unix times in ns, whole microseconds: of the request, and of
    the last byte of the answer. `address` is the first register asked for.
    """

    device: Device
    master: Master
    address: int
    request: bytes
    response: bytes
    asked_at_ns: int
    answered_at_ns: int
    fault: str = ""


def scan(state: PlantState, pcs: Master, powermeter: Master, random: Random) -> list[Poll]:
    """Give the eight polls of the second that begins at the state's time, each bus in its real order."""
    second_ns = state.at_s * 1_000_000_000
    polls = []
    for value, request, start_ms in zip(METER_SCAN, _METER_REQUESTS, _METER_STARTS_MS, strict=True):
        asked_at_ns = second_ns + start_ms * _MS + int(random.random() * 9000) * _US
        polls.append(
            Poll(
                POWERMETER,
                powermeter,
                value.address,
                request,
                read_response(UNIT, READ_HOLDING_REGISTERS, value.encode(state)),
                asked_at_ns,
                asked_at_ns + 45 * _MS + int(random.random() * 30000) * _US,
            )
        )
    asked_at_ns = second_ns + _PCS_STARTS_MS * _MS + int(random.random() * 20000) * _US
    # 189 bytes at 9600 baud take 197 ms.
    answered_at_ns = asked_at_ns + 225 * _MS + int(random.random() * 25000) * _US
    response = read_response(UNIT, READ_HOLDING_REGISTERS, pcs_registers(state))
    polls.append(Poll(PCS, pcs, PCS_ADDRESS, _PCS_REQUEST, response, asked_at_ns, answered_at_ns))
    return polls

"""One second on the buses: a request to an inverter, seven to a meter.

Takes a `PlantState` and the masters, gives `Poll`s: request, answer and when each happened. Never
damages them; `faults` does.
"""

from collections.abc import Callable
from random import Random
from typing import Final, Literal, NamedTuple

from recorder.modbus.frames import read_request, read_response
from recorder.simulator.plant import PlantState
from recorder.simulator.registers import (
    HEAT_PUMP_UNIT,
    INVERTER_ADDRESS,
    INVERTER_REGISTERS,
    INVERTER_UNIT,
    METER_SCAN,
    PCS_ADDRESS,
    PCS_REGISTERS,
    READ_HOLDING_REGISTERS,
    UNIT,
    MeterValue,
    as_heat_pump_meter_sees,
    inverter_registers,
    pcs_registers,
)

Device = Literal["pcs", "powermeter", "heat_pump", "inverter"]
PCS: Final = "pcs"
POWERMETER: Final = "powermeter"
HEAT_PUMP: Final = "heat_pump"
INVERTER: Final = "inverter"
UNANSWERED: Final = "unanswered"

_US: Final = 1000
_MS: Final = 1_000_000


class Master(NamedTuple):
    """A process of the controller that polls a bus: its pid and its serial descriptor."""

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


class Request(NamedTuple):
    """One request of a scan: its frame, when it begins in the second, and what answers it."""

    address: int
    frame: bytes
    start_ms: int
    encode: Callable[[PlantState], bytes]


class PolledDevice(NamedTuple):
    """A device as its master polls it, once a second.

    Devices with the same `process` (0 or 1) are polled by one process and share its text, those that
    have the same `descriptor` as well share a bus. Each request is up to `late_us` late, and its
    answer takes `answer_ms` and up to `answer_late_us`. Nothing answers while the device is not `is_on`.
    """

    name: Device
    unit: int
    process: int
    descriptor: int
    requests: tuple[Request, ...]
    late_us: int
    answer_ms: int
    answer_late_us: int
    is_on: Callable[[PlantState], bool] = lambda _state: True

    def poll(self, state: PlantState, master: Master, random: Random) -> list[Poll]:
        """Give the polls of the second that begins at the state's time."""
        second_ns = state.at_s * 1_000_000_000
        polls = []
        for address, frame, start_ms, encode in self.requests:
            asked_at_ns = second_ns + start_ms * _MS + int(random.random() * self.late_us) * _US
            answered_at_ns = (
                asked_at_ns + self.answer_ms * _MS + int(random.random() * self.answer_late_us) * _US
            )
            if self.is_on(state):
                response, fault = read_response(self.unit, READ_HOLDING_REGISTERS, encode(state)), ""
            else:
                response, fault = b"", UNANSWERED
            polls.append(
                Poll(self.name, master, address, frame, response, asked_at_ns, answered_at_ns, fault)
            )
        return polls


def _request(
    unit: int, address: int, words: int, start_ms: int, encode: Callable[[PlantState], bytes]
) -> Request:
    return Request(address, read_request(unit, READ_HOLDING_REGISTERS, address, words), start_ms, encode)


def _meter(
    name: Device, unit: int, view: Callable[[PlantState], PlantState], place: int = 0, meters: int = 1
) -> PolledDevice:
    """Give the meter with a `place` among so many on its bus: two share the second at twice the baud rate."""
    # The requests fill the second.
    starts_ms = ((start_ms + 1000 * place) // meters for start_ms in (20, 150, 280, 410, 540, 670, 800))
    requests = tuple(
        _request(unit, value.address, value.words, start_ms, _through(view, value))
        for value, start_ms in zip(METER_SCAN, starts_ms, strict=True)
    )
    return PolledDevice(name, unit, 1, 4, requests, 9000 // meters, 45 // meters, 30_000 // meters)


def _through(view: Callable[[PlantState], PlantState], value: MeterValue) -> Callable[[PlantState], bytes]:
    return lambda state: value.encode(view(state))


def _as_it_is(state: PlantState) -> PlantState:
    return state


PCS_DEVICE: Final = PolledDevice(
    # The long answer runs beside two requests to the meter: 189 bytes at 9600 baud take 197 ms.
    PCS, UNIT, 0, 4, (_request(UNIT, PCS_ADDRESS, PCS_REGISTERS, 360, pcs_registers),), 20_000, 225, 25_000
)  # fmt: skip
INVERTER_DEVICE: Final = PolledDevice(
    INVERTER, INVERTER_UNIT, 0, 6,
    (_request(INVERTER_UNIT, INVERTER_ADDRESS, INVERTER_REGISTERS, 110, inverter_registers),),
    9000, 60, 20_000, lambda state: state.inverter_pv_power_w > 0,
)  # fmt: skip
METER_DEVICE: Final = _meter(POWERMETER, UNIT, _as_it_is)
TWO_METERS: Final = (
    _meter(POWERMETER, UNIT, _as_it_is, 0, 2),
    _meter(HEAT_PUMP, HEAT_PUMP_UNIT, as_heat_pump_meter_sees, 1, 2),
)


def scan(state: PlantState, pcs: Master, powermeter: Master, random: Random) -> list[Poll]:
    """Give the eight polls of a second of an LG ESS, each bus in its real order."""
    return [*METER_DEVICE.poll(state, powermeter, random), *PCS_DEVICE.poll(state, pcs, random)]

"""The plant behind a pseudo-terminal, for real Modbus masters to poll.

Takes a plant's state when a master asks, gives RTU answers, and records each answer as the truth for
tests. Never advances the plant. Frames and PDUs are pymodbus's; its serial server is not used, because
it opens a port by its path and so can only have the far end of a pseudo-terminal, the one that the
master needs.
"""

import asyncio
import os
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from pymodbus.constants import ExcCodes
from pymodbus.exceptions import ModbusIOException
from pymodbus.framer import FramerRTU
from pymodbus.pdu import DecodePDU, ExceptionResponse, ModbusPDU, ReadHoldingRegistersRequest
from pymodbus.pdu.register_message import ReadHoldingRegistersResponse

from recorder.simulator.plant import PlantState
from recorder.simulator.registers import UNIT, register_words

_MOST_PENDING_BYTES = 512


class Answer(NamedTuple):
    """Registers that a master was given: `at_ns` is Unix time in ns, two bytes a register."""

    at_ns: int
    address: int
    register_bytes: bytes


@dataclass(frozen=True, slots=True)
class ServedPlant:
    """Where the plant is served: `path` is the terminal to open as a serial port, at any baud rate."""

    path: str
    answers: list[Answer] = field(default_factory=list)


@contextmanager
def serve_plant_on_pty(state: Callable[[], PlantState], now_ns: Callable[[], int]) -> Iterator[ServedPlant]:
    """Serve both devices as unit 1, function 3, on the running event loop.

    Args:
        state: gives the plant's state at the moment of a request.
        now_ns: the clock, Unix time in ns, that the answers are recorded by.

    Raises:
        OSError: the system has no pseudo-terminal left.
    """
    near, far = os.openpty()
    try:
        tty.setraw(far)
        served = ServedPlant(os.ttyname(far))
        loop = asyncio.get_running_loop()
        loop.add_reader(near, _Server(near, served, state, now_ns).read)
        try:
            yield served
        finally:
            loop.remove_reader(near)
    finally:
        os.close(near)
        # Held open until now, because the near end reads an error while nobody has the far end open.
        os.close(far)


class _Server:
    """Answers the requests that come in on the near end."""

    def __init__(
        self, near: int, served: ServedPlant, state: Callable[[], PlantState], now_ns: Callable[[], int]
    ) -> None:
        self._near = near
        self._served = served
        self._state = state
        self._now_ns = now_ns
        self._framer = FramerRTU(DecodePDU(is_server=True))
        self._pending = b""

    def read(self) -> None:
        """Take what came in, and answer when it ends a request."""
        self._pending = (self._pending + os.read(self._near, _MOST_PENDING_BYTES))[-_MOST_PENDING_BYTES:]
        try:
            used, request = self._framer.handleFrame(self._pending, UNIT, 0)
        except ModbusIOException:
            # A frame with a right CRC and no sense: a device stays silent.
            self._pending = b""
            return
        self._pending = self._pending[used:]
        if request is not None:
            answer = self._answer(request)
            answer.dev_id = request.dev_id
            os.write(self._near, self._framer.buildFrame(answer))

    def _answer(self, request: ModbusPDU) -> ModbusPDU:
        if not isinstance(request, ReadHoldingRegistersRequest):
            return ExceptionResponse(request.function_code, ExcCodes.ILLEGAL_FUNCTION)
        words = register_words(self._state())
        asked = range(request.address, request.address + request.count)
        if not all(address in words for address in asked):
            return ExceptionResponse(request.function_code, ExcCodes.ILLEGAL_ADDRESS)
        registers = [words[address] for address in asked]
        given = b"".join(word.to_bytes(2) for word in registers)
        self._served.answers.append(Answer(self._now_ns(), request.address, given))
        return ReadHoldingRegistersResponse(registers=registers)

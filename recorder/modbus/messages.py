"""Requests, their responses, and the two joined: what the modules of this package hand to each other."""

from typing import Final, NamedTuple

from recorder.modbus.frames import (
    COUNTED_RESPONSES,
    ECHOING_FUNCTIONS,
    EXCEPTION_ANSWER_BYTES,
    EXCEPTION_FLAG,
    MAX_FRAME_BYTES,
    READ_HOLDING_REGISTERS,
    READ_INPUT_REGISTERS,
    answer_length,
    has_valid_crc,
)

MAX_PENDING_BYTES: Final = 2 * MAX_FRAME_BYTES
DECODED_FUNCTIONS: Final = frozenset({READ_HOLDING_REGISTERS, READ_INPUT_REGISTERS})


class Exchange(NamedTuple):
    """A request to read registers, and the registers that answered it.

    `register_bytes` holds two bytes a register, high byte first. `captured_at_ns` is the Unix time
    in ns at which the last byte of the response was read, or None where the stream has no stamps.
    """

    unit: int
    function: int
    address: int
    register_bytes: bytes
    captured_at_ns: int | None


class Request:
    """A request as its frame says it; it never changes, as buses share it.

    Two requests have the same `shape` where the response to one could be taken for that to the other:
    unit, function and byte count are all that a response of function 3 or 4 names.
    """

    __slots__ = (
        "address",
        "answer_length",
        "count",
        "decoded",
        "exception_shape",
        "frame",
        "function",
        "most_bytes_at_once",
        "shape",
        "unit",
    )

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.unit = frame[0]
        self.function = frame[1]
        self.decoded = self.function in DECODED_FUNCTIONS
        self.address = int.from_bytes(frame[2:4])
        self.count = int.from_bytes(frame[4:6])
        self.answer_length = answer_length(frame)
        if self.decoded and self.answer_length is not None:
            self.shape = bytes((self.unit, self.function, (self.answer_length - 5) & 0xFF))
        else:
            self.shape = frame[:2]
        self.most_bytes_at_once = min(self.answer_length or 0, MAX_PENDING_BYTES)
        self.exception_shape = bytes((self.unit, self.function | EXCEPTION_FLAG))


def split_responses(data: bytes) -> tuple[list[bytes], bytes]:
    """Split bytes into the responses that stand at their beginning.

    Returns:
        The shape of each whole response, and the bytes behind the last one.
    """
    shapes: list[bytes] = []
    start = 0
    while (length := _response_length(data, start)) and has_valid_crc(data[start : start + length]):
        frame = data[start : start + length]
        shapes.append(frame[:3] if frame[1] in DECODED_FUNCTIONS else frame[:2])
        start += length
    return shapes, data[start:]


def find_responses(data: bytes) -> list[bytes]:
    """Return the shape of each whole response in `data`, whatever stands between them."""
    shapes: list[bytes] = []
    while len(data) >= EXCEPTION_ANSWER_BYTES:
        found, data = split_responses(data)
        shapes += found
        data = data[1:]
    return shapes


def _response_length(data: bytes, start: int) -> int:
    """Return the length of the response at `start`, or 0 where it is not whole or no length can be told."""
    if len(data) - start < EXCEPTION_ANSWER_BYTES:
        return 0
    function = data[start + 1]
    if function & EXCEPTION_FLAG:
        return EXCEPTION_ANSWER_BYTES
    if function in COUNTED_RESPONSES:
        length = 5 + data[start + 2]
    elif function in ECHOING_FUNCTIONS:
        length = 8
    else:
        return 0
    return length if len(data) - start >= length else 0

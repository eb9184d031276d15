"""Modbus RTU frames: their checksum, their length, and how to build them.

Takes bytes, gives frames. Never does I/O and keeps no state; `exchange` has the state.
Facts are from the Modbus application protocol V1.1b3 and Modbus over serial line V1.02.
"""

from struct import Struct

from fastcrc.crc16 import modbus as crc16

EXCEPTION_FLAG = 0x80
MAX_FRAME_BYTES = 256
READ_HOLDING_REGISTERS = 3
READ_INPUT_REGISTERS = 4
MAX_READ_REGISTERS = 125

_READ_REQUEST = Struct(">BBHH")
_CRC_LITTLE_ENDIAN = Struct("<H")

# Requests and answers of 8 bytes: unit, function, two words, CRC.
_FIXED_REQUESTS = frozenset({1, 2, 3, 4, 5, 6, 8})
ECHOING_FUNCTIONS = frozenset({5, 6, 8, 15, 16})
COUNTED_RESPONSES = frozenset({1, 2, 3, 4, 17, 23})
_BARE_REQUESTS = frozenset({7, 11, 12, 17})
EXCEPTION_ANSWER_BYTES = 5


def with_crc(body: bytes) -> bytes:
    """Give `body` with its CRC appended, low byte first."""
    return body + _CRC_LITTLE_ENDIAN.pack(crc16(body))


def has_valid_crc(frame: bytes) -> bool:
    """Tell whether the last two bytes of `frame` are the CRC of what stands before them."""
    # The CRC over a frame and its own CRC is 0 by construction.
    return len(frame) >= 4 and crc16(frame) == 0


def read_request(unit: int, function: int, address: int, count: int) -> bytes:
    """Build the request to read `count` registers from `address`."""
    return with_crc(_READ_REQUEST.pack(unit, function, address, count))


def read_response(unit: int, function: int, register_bytes: bytes) -> bytes:
    """Build the answer that carries `register_bytes`, two bytes a register, high byte first."""
    return with_crc(bytes((unit, function, len(register_bytes))) + register_bytes)


def exception_response(unit: int, function: int, code: int) -> bytes:
    """Build the answer by which a unit refuses a request of `function`."""
    return with_crc(bytes((unit, function | EXCEPTION_FLAG, code)))


def request_length(start: bytes) -> int | None:
    """Give the length in bytes of the request that begins with `start`.

    Returns:
        The length, 0 while more of it is needed to tell, or None for a function of unknown shape.
    """
    if len(start) < 2:
        return 0
    function = start[1]
    if function in _FIXED_REQUESTS:
        return 8
    if function in _BARE_REQUESTS:
        return 4
    byte_count_at = {15: 6, 16: 6, 22: None, 23: 10}.get(function, -1)
    if byte_count_at == -1:
        return None
    if byte_count_at is None:
        return 10
    return 0 if len(start) <= byte_count_at else byte_count_at + 1 + start[byte_count_at] + 2


def answer_length(request: bytes) -> int | None:
    """Give the length in bytes of the normal answer to `request`, or None where only the answer tells."""
    function = request[1]
    if function in {READ_HOLDING_REGISTERS, READ_INPUT_REGISTERS, 23}:
        return 5 + 2 * int.from_bytes(request[4:6])
    if function in {1, 2}:
        return 5 + (int.from_bytes(request[4:6]) + 7) // 8
    if function in ECHOING_FUNCTIONS:
        return 8
    return None

"""A Modbus RTU master that polls a serial port as the controller's programs do.

Usage: modbus_master.py NAME PORT SECONDS FILE ADDRESS:COUNT... Takes the name NAME, polls the requests
in order every SECONDS. Reads an answer as they do: 2 bytes, 1 byte, then what is left. On SIGTERM it
writes every exchange to FILE, a JSON line each: when the request was sent and when the last byte was
read (Unix time in ns), the address, and the register bytes. Until then it writes to the port only.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

PR_SET_NAME = 15
READ_HOLDING_REGISTERS = 3
# Devices need one too; and an average of ten takes samples that are 0.1 s apart at least.
SHORTEST_PAUSE_SECONDS = 0.15


def crc(frame: bytes) -> bytes:
    """Give the CRC-16 of Modbus RTU, low byte first."""
    remainder = 0xFFFF
    for byte in frame:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0xA001 if remainder & 1 else 0)
    return remainder.to_bytes(2, "little")


def exchange(port: int, address: int, count: int) -> dict[str, int | str]:
    """Ask unit 1 for registers, and read the whole answer."""
    request = bytes((1, READ_HOLDING_REGISTERS)) + address.to_bytes(2) + count.to_bytes(2)
    asked_at_ns = time.time_ns()
    os.write(port, request + crc(request))
    answer = os.read(port, 2)
    answer += os.read(port, 1)
    while len(answer) < 3 + 2 * count + 2:
        answer += os.read(port, 3 + 2 * count + 2 - len(answer))
    assert answer[:3] == bytes((1, READ_HOLDING_REGISTERS, 2 * count))
    assert crc(answer[:-2]) == answer[-2:]
    return {
        "asked_at_ns": asked_at_ns,
        "answered_at_ns": time.time_ns(),
        "address": address,
        "registers": answer[3:-2].hex(),
    }


def main(name: str, path: str, interval_seconds: float, file: Path, requests: list[tuple[int, int]]) -> None:
    """Poll until SIGTERM."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
    exchanges: list[dict[str, int | str]] = []

    def end(_number: int, _frame: FrameType | None) -> None:
        file.write_text("".join(json.dumps(done) + "\n" for done in exchanges))
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    port = os.open(path, os.O_RDWR | os.O_NOCTTY)
    while True:
        begun = time.monotonic()
        for address, count in requests:
            exchanges.append(exchange(port, address, count))
        time.sleep(max(SHORTEST_PAUSE_SECONDS, begun + interval_seconds - time.monotonic()))


if __name__ == "__main__":
    main(
        sys.argv[1],
        sys.argv[2],
        float(sys.argv[3]),
        Path(sys.argv[4]),
        [(int(address, 16), int(count)) for address, count in (pair.split(":") for pair in sys.argv[5:])],
    )

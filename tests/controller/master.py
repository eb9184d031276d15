"""A process that polls like the controller's own, for strace to be attached to.

Usage: master.py NAME SECONDS FILE. Takes the name NAME, then every SECONDS writes a request and
reads it back in pieces, over a pipe of its own. FILE, mapped into memory so that keeping it adds no
system call, holds the number of polls, the time of the last one and the longest pause, in seconds.
"""

import ctypes
import mmap
import os
import struct
import sys
import time
from pathlib import Path

LAYOUT = struct.Struct("=Qdd")
REQUEST = bytes.fromhex("01039c72005ccbb8")
PR_SET_NAME = 15


def main(name: str, interval_seconds: float, file: Path) -> None:
    """Poll until killed."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
    file.write_bytes(bytes(LAYOUT.size))
    with file.open("r+b") as opened:
        shared = mmap.mmap(opened.fileno(), LAYOUT.size)
    answer, bus = os.pipe()
    polls, last, longest = 0, time.monotonic(), 0.0
    while True:
        os.write(bus, REQUEST)
        for size in (2, 1, 5):
            os.read(answer, size)
        now = time.monotonic()
        polls, longest, last = polls + 1, max(longest, now - last), now
        LAYOUT.pack_into(shared, 0, polls, last, longest)
        time.sleep(interval_seconds)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))

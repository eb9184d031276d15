"""How far one consumer has come, in a file of its own.

Takes the numbers of the points that are done with, gives them back after a restart. Never needs more
disk space than at its first writing, so it goes on where a disk is full.

The file holds two slots of 4 KiB; each write goes to the older one, so that a write that is cut short
leaves the other. A slot that is damaged does not count; without any, everything is sent again, which
changes nothing in the database.
"""

import os
import struct
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from recorder.spool.ranges import Ranges

_SLOT_BYTES: Final = 4096
_MAGIC: Final = b"ESSCURS1"
_HEAD: Final = struct.Struct("<8sQQI")
_RANGE: Final = struct.Struct("<QQ")
_CRC: Final = struct.Struct("<I")
_MOST_RANGES: Final = (_SLOT_BYTES - _HEAD.size - _CRC.size) // _RANGE.size


class Place(NamedTuple):
    """Which points are done with, and the number behind the last point that was ever stored."""

    settled: tuple[tuple[int, int], ...]
    stored_to: int


class CursorFile:
    """The cursor of one consumer; open until `close`.

    Args:
        path: the file; made, readable by its owner only, when it is not there.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._sequence = 0
        self._written: Place | None = None

    def read(self) -> Place | None:
        """Give the newest place that is whole and can be read; None where there is none."""
        found: Place | None = None
        for slot in (0, 1):
            try:
                data = os.pread(self._file, _SLOT_BYTES, slot * _SLOT_BYTES)
            except OSError:
                continue
            sequence, place = _decode(data)
            if place is not None and sequence > self._sequence:
                self._sequence, found = sequence, place
        self._written = found
        return found

    def write(self, settled: Ranges, stored_to: int) -> None:
        """Store a place so that it survives a loss of power; nothing is written where it is the same.

        Raises:
            OSError: it could not be stored; the one before stands.
        """
        # Ranges beyond the slot are forgotten: their points are sent again.
        place = Place(tuple(settled)[:_MOST_RANGES], stored_to)
        if place == self._written:
            return
        sequence = self._sequence + 1
        head = _HEAD.pack(_MAGIC, sequence, stored_to, len(place.settled))
        body = head + b"".join(_RANGE.pack(*numbers) for numbers in place.settled)
        slot = (body + _CRC.pack(crc32(body))).ljust(_SLOT_BYTES, b"\0")
        if self._written is None:
            os.posix_fallocate(self._file, 0, 2 * _SLOT_BYTES)
        os.pwrite(self._file, slot, sequence % 2 * _SLOT_BYTES)
        os.fdatasync(self._file)
        self._sequence, self._written = sequence, place

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _decode(slot: bytes) -> tuple[int, Place | None]:
    if len(slot) < _SLOT_BYTES or not slot.startswith(_MAGIC):
        return 0, None
    _, sequence, stored_to, count = _HEAD.unpack_from(slot)
    end = _HEAD.size + count * _RANGE.size
    if count > _MOST_RANGES or slot[end : end + _CRC.size] != _CRC.pack(crc32(slot[:end])):
        return 0, None
    ranges = tuple((first, last) for first, last in _RANGE.iter_unpack(slot[_HEAD.size : end]))
    return sequence, Place(ranges, stored_to)

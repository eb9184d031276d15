"""The bytes of a segment: a header, then records.

Takes lines, gives the bytes of records; takes bytes as they lie on a disk, gives the records that are
whole. Never does I/O, and never gives a line of a record whose checksum is wrong.

    header   magic "ESSQUEUE", version (u16), number of the first point (u64), created (f64, s), crc32
    record   marker, crc32 of the rest of this head,
             length of the payload (u32), crc32 of the payload, number of the first point (u64),
             points (u32), appended (f64, Unix s); then the payload: lines, each with a newline

All little-endian. Points are numbered without gaps as they are written, so a number that is missing
is a point that was lost. The marker is no valid UTF-8, so no line contains it.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple
from zlib import crc32

VERSION: Final = 1

_MAGIC: Final = b"ESSQUEUE"
_MARKER: Final = b"\xf5ESS\xf6\r\n\xff"
_FILE: Final = struct.Struct("<8sHQd")
_CRC: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<IIQId")
_HEAD_BYTES: Final = len(_MARKER) + _CRC.size + _HEAD.size

HEADER_BYTES: Final = _FILE.size + _CRC.size


class Header(NamedTuple):
    """What the start of a segment says; `created_at` is in Unix seconds."""

    version: int
    first: int
    created_at: float


class Record(NamedTuple):
    """Lines written together; `first` is the number of the first, `appended_at` in Unix seconds."""

    first: int
    appended_at: float
    lines: Sequence[bytes]

    @property
    def end(self) -> int:
        """The number behind the last line."""
        return self.first + len(self.lines)


def encode_header(first: int, created_at: float) -> bytes:
    """Give the start of a segment of this version."""
    head = _FILE.pack(_MAGIC, VERSION, first, created_at)
    return head + _CRC.pack(crc32(head))


def decode_header(data: bytes) -> Header | None:
    """Read the start of a segment; None where it is damaged or of something else."""
    head, crc = data[: _FILE.size], data[_FILE.size : HEADER_BYTES]
    if len(data) < HEADER_BYTES or not head.startswith(_MAGIC) or crc != _CRC.pack(crc32(head)):
        return None
    return Header(*_FILE.unpack(head)[1:])


def encode_record(record: Record) -> bytes:
    """Give the bytes of one record. Its lines hold no newline."""
    payload = b"\n".join(record.lines) + b"\n"
    head = _HEAD.pack(len(payload), crc32(payload), record.first, len(record.lines), record.appended_at)
    return b"".join((_MARKER, _CRC.pack(crc32(head)), head, payload))


def scan(data: bytes) -> Iterator[Record]:
    """Give every whole record in `data`, whatever lies between them."""
    at = data.find(_MARKER)
    while at >= 0:
        record, size = _record_at(data, at)
        if record is not None:
            yield record
        at = data.find(_MARKER, at + size)


def _record_at(data: bytes, at: int) -> tuple[Record | None, int]:
    """Read the record whose marker is at `at`, and how many bytes to go on."""
    start = at + len(_MARKER)
    head = data[start + _CRC.size : at + _HEAD_BYTES]
    if len(head) < _HEAD.size or data[start : start + _CRC.size] != _CRC.pack(crc32(head)):
        return None, 1
    length, crc, first, count, appended_at = _HEAD.unpack(head)
    payload = data[at + _HEAD_BYTES : at + _HEAD_BYTES + length]
    if crc32(payload) != crc or len(payload) != length:
        return None, 1
    lines = payload[:-1].split(b"\n")
    if len(lines) != count:
        return None, 1
    return Record(first, appended_at, lines), _HEAD_BYTES + length

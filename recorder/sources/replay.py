"""Captured streams, read back from files.

Takes a file of strace text, gives its bytes, and a time for them where the text has no stamps.
Never looks deeper into the text than its lines.
"""

import bz2
import gzip
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from math import inf
from pathlib import Path
from statistics import median
from typing import BinaryIO, Final, cast

# PCS and meter together, polled once a second: about 70 lines a second.
DEFAULT_LINES_PER_SECOND: Final = 70.0
# What reading a capture raises: a missing file, or one that is not what its name's ending says.
UNREADABLE: Final = (OSError, EOFError, lzma.LZMAError, zlib.error)
_OPENERS: Final[dict[str, Callable[[Path], object]]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
}
_SAMPLE_BYTES: Final = 1 << 20
# Small enough that the lines of a piece stay in the processor's cache.
_CHUNK_BYTES: Final = 1 << 16
# As the decoder reads the beginning of a line; the possessive quantifiers keep it linear.
_STAMPED = re.compile(
    rb"(?m)^(?:\[pid ++\d{1,9}(?:<[^>\n]*+>)?\] ++|\d{1,9}(?:<[^>\n]*+>)? ++)?"
    rb" *+([1-9]\d{8,9}\.\d{6,9}) "
)
_REQUEST = re.compile(rb"write\(.*")


@dataclass(frozen=True, slots=True)
class Pace:
    """When lines without stamps are taken to have been written: from a Unix time in ns, so many a second."""

    begin_ns: int
    lines_per_second: float

    def at_ns(self, line: int) -> int:
        """Give the time of a line by its number, from 0 on."""
        return self.begin_ns + round(line / self.lines_per_second * 1e9)


def open_capture(path: Path) -> BinaryIO:
    """Open a capture, decompressing it by its name's ending: .gz, .xz or .bz2.

    Raises:
        OSError: the file cannot be read.
    """
    opener = _OPENERS.get(path.suffix)
    return path.open("rb") if opener is None else cast("BinaryIO", opener(path))


def is_compressed(path: Path) -> bool:
    """Tell whether `open_capture` decompresses a capture, by its name's ending."""
    return path.suffix in _OPENERS


def pace_of(path: Path, begin: datetime | None) -> Pace | None:
    """Give the pace of a capture without stamps, or None where the capture has them.

    Args:
        path: the capture.
        begin: when it begins; None lets it end at the file's time of last change.

    Raises:
        OSError: the file cannot be read.
    """
    with open_capture(path) as stream:
        sample = stream.read(_SAMPLE_BYTES)
        if has_stamps(sample):
            return None
        rate = lines_per_second(sample)
        lines = sample.count(b"\n")
        while chunk := stream.read(_SAMPLE_BYTES):
            lines += chunk.count(b"\n")
    if begin is not None:
        return Pace(round(begin.timestamp() * 1e9), rate)
    return Pace(path.stat().st_mtime_ns - round(lines / rate * 1e9), rate)


def begins_with_stamps(path: Path) -> bool:
    """Tell whether the first lines of a capture have stamps.

    Raises:
        OSError: the file cannot be read.
    """
    with open_capture(path) as stream:
        return has_stamps(stream.read(_SAMPLE_BYTES))


def begin_of(path: Path, begin: datetime | None) -> float:
    """Return when a capture begins, Unix ns; minus infinity where only reading it once would tell."""
    if not path.is_file():
        return -inf
    try:
        with open_capture(path) as stream:
            found = _STAMPED.search(stream.read(_SAMPLE_BYTES))
        if found is None:
            pace = pace_of(path, begin)
            return -inf if pace is None else pace.begin_ns
    except UNREADABLE:
        # Whoever decodes it tells why.
        return -inf
    return float(found[1]) * 1e9


def chunks(stream: BinaryIO, most_bytes: int | None = None) -> Iterator[bytes]:
    """Give the text in pieces: all of it, or so many bytes."""
    left = sys.maxsize if most_bytes is None else most_bytes
    while chunk := stream.read(min(left, _CHUNK_BYTES)):
        left -= len(chunk)
        yield chunk


def has_stamps(sample: bytes) -> bool:
    """Tell whether text was captured with `strace -ttt`."""
    return _STAMPED.search(sample) is not None


def lines_per_second(sample: bytes) -> float:
    """Estimate the pace of text without stamps, by the controller's habit of polling once a second.

    The commonest request comes once a second, so the median number of lines from one to the next is
    one second's lines.
    """
    seen: dict[bytes, list[int]] = {}
    for number, line in enumerate(sample.split(b"\n")):
        request = _REQUEST.search(line)
        if request is not None:
            seen.setdefault(request.group(), []).append(number)
    if not seen:
        return DEFAULT_LINES_PER_SECOND
    numbers = max(seen.values(), key=len)
    distances = [after - before for before, after in pairwise(numbers)]
    return float(median(distances)) if distances else DEFAULT_LINES_PER_SECOND

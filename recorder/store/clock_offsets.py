"""The offsets of controllers' clocks on disk, so that a replay gives the times of the live recording.

One line is added when the offset of a device's samples changes, which is rare; while clocks agree a device
has one line. Notes are taken in memory and written by whoever calls `save`, off the event loop.

    {"version": 1, "holds": "clock offsets"}
    ["home", "pcs", 1795331980000000000, 3600000000000, 1795331979000000000]

A line is: site, device, the stamp of the first sample with the offset, the offset, and the stamp of the last
sample before, null where there is none; all in ns.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from recorder.points.offsets import Offsets, Span

FILE_NAME: Final = "clock-offsets.jsonl"
_HEADER: Final = {"version": 1, "holds": "clock offsets"}
# A clock that loses a second in a quarter of an hour takes a month for so many lines of two devices.
_MOST_LINES: Final = 10_000
_MOST_WAITING: Final = 1000
_FOR_EVER_NS: Final = (1 << 63) - 1

_Line = tuple[str, str, int, int, int | None]
_log = structlog.get_logger(__name__)


class ClockOffsets:
    """Notes the offset of each device's samples.

    Args:
        directory: where the file is; nothing is touched before `load`.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        # Of each device: its offset, and the stamp of its newest sample.
        self._known: dict[tuple[str, str], list[int]] = {}
        self._waiting: list[_Line] = []
        self._lock = threading.Lock()
        self._told = ""

    def note(self, site: str, device: str, stamped_at_ns: int, offset_ns: int) -> None:
        """Take the stamp of a sample and what was added to it. Cheap, no I/O."""
        known = self._known.get((site, device))
        if known is not None and known[0] == offset_ns:
            known[1] = stamped_at_ns
            return
        self._known[site, device] = [offset_ns, stamped_at_ns]
        with self._lock:
            if len(self._waiting) < _MOST_WAITING:
                before_ns = known[1] if known and known[1] else None
                self._waiting.append((site, device, stamped_at_ns, offset_ns, before_ns))

    def load(self) -> None:
        """Read what earlier runs noted, and shorten a long file. Blocks."""
        self._set_aside_another_version()
        lines = list(_lines_in(self._path))
        for site, device, _, offset_ns, _ in lines:
            self._known[site, device] = [offset_ns, 0]
        if len(lines) > 2 * _MOST_LINES:
            self._attempt(self._write_anew, lines[-_MOST_LINES:])

    def save(self) -> None:
        """Write what was noted since the last time; after a failure it is tried again. Blocks."""
        with self._lock:
            lines = tuple(self._waiting)
        if lines and self._attempt(self._append, lines):
            with self._lock:
                del self._waiting[: len(lines)]

    def _attempt(self, write: Callable[[Sequence[_Line]], None], lines: Sequence[_Line]) -> bool:
        try:
            write(lines)
        except OSError as error:
            if str(error) != self._told:
                _log.warning("the offsets of the controller's clock are not saved", reason=str(error))
            self._told = str(error)
            return False
        self._told = ""
        return True

    def _append(self, lines: Sequence[_Line]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+b") as file:
            is_new = file.tell() == 0
            if not is_new:
                file.seek(-1, 2)
                # A line that a loss of power cut ends here.
                is_cut = file.read(1) != b"\n"
                file.write(b"\n" if is_cut else b"")
            file.write(_text_of(lines, with_header=is_new))

    def _set_aside_another_version(self) -> None:
        with suppress(OSError), self._path.open("rb") as file:
            if file.readline().rstrip(b"\n") != json.dumps(_HEADER).encode():
                self._path.replace(self._path.with_suffix(".of-another-version"))

    def _write_anew(self, lines: Sequence[_Line]) -> None:
        new = self._path.with_suffix(".new")
        new.write_bytes(_text_of(lines, with_header=True))
        new.replace(self._path)


def offsets_in(directory: Path, site: str) -> Offsets:
    """Return the offsets that the recorder noted for the devices of a site; none where it noted none."""
    spans: dict[str, list[Span]] = {}
    for its_site, device, first_ns, offset_ns, before_ns in _lines_in(directory / FILE_NAME):
        if its_site == site:
            found = spans.setdefault(device, [])
            if found:
                # The recorder was ended in between: the last stamp before is not known then.
                until_ns = first_ns - 1 if before_ns is None else before_ns
                found[-1] = found[-1]._replace(last_ns=max(found[-1].first_ns, until_ns))
            found.append(Span(first_ns, _FOR_EVER_NS, offset_ns))
    return Offsets(spans)


def rename_site(directory: Path, old: str, new: str) -> None:
    """Note the offsets of a site under another name.

    Raises:
        OSError: the file cannot be written.
    """
    path = directory / FILE_NAME
    lines = list(_lines_in(path))
    if any(line[0] == old for line in lines):
        beside = path.with_suffix(".new")
        renamed = [(new if line[0] == old else line[0], *line[1:]) for line in lines]
        beside.write_bytes(_text_of(renamed, with_header=True))
        beside.replace(path)


def _lines_in(path: Path) -> Iterator[_Line]:
    """Give the lines of a file that can be read; a file of another version holds none."""
    try:
        texts = path.read_bytes().splitlines()
    except OSError:
        return
    with suppress(ValueError):
        if not texts or json.loads(texts[0]) != _HEADER:
            return
        for text in texts[1:]:
            with suppress(ValueError, TypeError):
                site, device, first_ns, offset_ns, before_ns = json.loads(text)
                if isinstance(site, str) and isinstance(device, str):
                    before_ns = None if before_ns is None else int(before_ns)
                    yield site, device, int(first_ns), int(offset_ns), before_ns


def _text_of(lines: Sequence[_Line], *, with_header: bool) -> bytes:
    rows = [_HEADER, *lines] if with_header else lines
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)

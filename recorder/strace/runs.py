r"""strace text to runs: the transfers of `syscalls`, with reads of one descriptor joined.

Takes chunks of text in any split; gives the same transfers and counts as `SyscallDecoder`, but one
`Run` for what a process read from one descriptor with no other call of its own on it in between,
whatever other processes did meanwhile. Each line has its number in the chunk, so that the order of
all can be told. Never does I/O, and never decides what a line means: one pattern over the whole text
finds the lines that are whole calls, or halves of calls, with all their bytes, which is nearly all;
every other line goes to `SyscallDecoder`.
"""

import re
from binascii import unhexlify
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

from recorder.strace.syscalls import UNREADABLE, Begun, Outcome, SyscallDecoder, Transfer

# Every part is bounded, so that a line that the pattern finds is never an overlong one.
_LONGEST_LINE_BYTES: Final = 8192
_MOST_BYTES_A_CALL: Final = 1024

_WHO = rb"(\[pid {1,9}\d{1,9}\] |\d{1,9} {1,9})?"
_WHEN = rb"(?:(?![rw<])(?:([1-9]\d{9}\.\d{6}) | {0,9}\d{1,8}\.\d{6} |\d\d:\d\d:\d\d(?:\.\d{6})? ))?"
_CALL = rb'((?:read|write)\(\d{1,9}(?:<[^"(>\n]{0,200}>)?, |<\.\.\. (?:read|write) resumed> ?)'
_HEX = rb"((?:\\x[0-9a-f][0-9a-f]){1,1024}+)"
# Each way to write a byte begins in its own way, so that nothing is tried twice; no octal above 377.
_ESCAPED = (
    rb"((?:[ !#-\[\]-~]|\\(?:x[0-9a-f][0-9a-f]|[0-3][0-7]{0,2}+|[4-7][0-7]?+(?![0-7])|[\"\\fnrtv])){1,1024})"
)
_STRING = rb'(?:"(?:' + _HEX + rb"|" + _ESCAPED + rb')", \d{1,9})?'
_END = rb"(?:\) {1,99}= (\d{1,4})(?: <\d{1,9}\.\d{6}>)?| <unfinished \.\.\.>)\r?"
_LINES = re.compile(rb"(?:" + _WHO + _WHEN + _CALL + _STRING + _END + rb"|[^\n]*+)\n")

# How long a hexadecimal string is, by the result that stands behind it.
_HEX_LENGTHS: Final = {b"%d" % moved: 4 * moved for moved in range(1, _MOST_BYTES_A_CALL + 1)}

Bus = tuple[int, int]
"""Whose calls these are: the process, and its descriptor."""


class _Line(NamedTuple):
    """A line as the pattern finds it; all is empty where it is none of its kind."""

    who: bytes
    stamp: bytes
    call: bytes
    string: bytes
    escaped: bytes
    result: bytes


class Run(NamedTuple):
    """Bytes that one process moved over one descriptor: by one write, or by reads one after the other.

    `numbers` are those of the lines in their chunk; what the lines say is read when it is asked for.
    """

    bus: Bus
    written: bool
    data: bytes
    numbers: Sequence[int]
    lines: Sequence[tuple[bytes, ...]]

    @property
    def stamped_at_ns(self) -> int | None:
        """The stamp of the last call: Unix time in ns, or None without `-ttt`."""
        return _stamp_ns(self.lines[self.numbers[-1]][1])

    @property
    def first_stamped_at_ns(self) -> int | None:
        """The same of the first call."""
        return _stamp_ns(self.lines[self.numbers[0]][1])

    def stamps_ns(self) -> list[int | None]:
        """Give the stamp of each call in Unix ns, None where it has none."""
        return [_stamp_ns(self.lines[number][1]) for number in self.numbers]

    def transfers(self) -> list[Transfer]:
        """Give the calls one by one."""
        process, descriptor = self.bus
        lines = [_Line(*self.lines[number]) for number in self.numbers]
        return [
            Transfer(process, descriptor, self.written, _unhex(line.string), True, _stamp_ns(line.stamp))
            for line in lines
        ]


class Single(NamedTuple):
    """A transfer that was read by itself, or `UNREADABLE`, and the number of its line in the chunk."""

    number: int
    transfer: Transfer


def span_of_reads_ns(items: Sequence[Run | Single]) -> tuple[int, int] | None:
    """Give the stamps of the first and the last read of a chunk, in Unix ns.

    None where a line has no stamp, where stamps are not in the order of the lines, where nothing was
    read, or where no run tells.
    """
    lines = next((item.lines for item in items if isinstance(item, Run)), ())
    # All are as long, so that they stand in the order of their bytes.
    stamps = [line[1] for line in lines]
    if not stamps or not stamps[0] or stamps != sorted(stamps):
        return None
    first, last = len(stamps), -1
    for item in items:
        if isinstance(item, Run):
            begin, end, is_read = item.numbers[0], item.numbers[-1], not item.written
        else:
            begin = end = item.number
            is_read = item.transfer.descriptor >= 0 and not item.transfer.written
        if is_read:
            first, last = min(first, begin), max(last, end)
    return None if last < 0 else (_ns_of(stamps[first]), _ns_of(stamps[last]))


class RunDecoder(SyscallDecoder):
    """Decodes one stream of strace text, many lines at a time."""

    def feed_runs(self, chunk: bytes) -> list[Run | Single]:
        """Take the next bytes of the stream, and give the runs and transfers that they complete.

        What belongs to one descriptor comes in its order, and nothing comes on the other side of an
        `UNREADABLE`. Of several descriptors the numbers tell the order.
        """
        text = self._whole_lines(chunk)
        short = self._max_line_bytes < _LONGEST_LINE_BYTES
        found = self._singles(text) if short else self._runs(text)
        if self._drop_overlong_tail():
            found.single(UNREADABLE)
        found.close_all()
        return found.items

    def _singles(self, text: bytes) -> "_Found":
        found = _Found(text, [])
        for number, line in enumerate(found.texts):
            found.number = number
            self._line(line, found.single)
        return found

    def _runs(self, text: bytes) -> "_Found":
        found = _Found(text, _LINES.findall(text))
        hex_length = _HEX_LENGTHS.get
        last_who = last_call = b""
        numbers: list[int] = []
        for number, line in enumerate(found.lines):
            who, _, call, string, _, result = line
            if hex_length(result) != len(string):
                last_call = b""
                found.number = number
                if call:
                    self._unlike(_Line(*line), found)
                else:
                    self._line(found.text, found.single)
            elif call == last_call and who == last_who:
                numbers.append(number)
            else:
                last_call = b""
                found.number = number
                process, descriptor, written = _call_of(who, call)
                if descriptor < 0:
                    self._second_half(process, written, _Line(*line), found)
                    continue
                if self._begun:
                    self._forget_begun(process, found.single)
                if written:
                    found.write((process, descriptor))
                else:
                    numbers = found.read((process, descriptor))
                    last_who, last_call = who, call
        return found

    def _unlike(self, line: _Line, found: "_Found") -> None:
        """Take a call, or half of one, that is not whole and in hexadecimal."""
        process, descriptor, written = _call_of(line.who, line.call)
        if descriptor < 0:
            self._second_half(process, written, line, found)
        elif line.escaped:
            # What Python's own escapes read in the same way as strace writes it: a codec written in C.
            data = line.escaped.decode("unicode_escape").encode("latin-1")
            if line.result and len(data) == int(line.result):
                self._forget_begun(process, found.single)
                found.single(Transfer(process, descriptor, written, data, True, _stamp_ns(line.stamp)))
            else:
                self._line(found.text, found.single)
        elif line.result:
            self._line(found.text, found.single)
        else:
            self._begin(process, Begun(written, descriptor, _unhex(line.string)), found.single)

    def _second_half(self, process: int, written: bool, line: _Line, found: "_Found") -> None:
        """Take the end of a call that its process has begun."""
        begun = self._begun.get(process)
        whole = _HEX_LENGTHS.get(line.result) == len(line.string)
        if line.escaped or not line.result:
            self._line(found.text, found.single)
        elif whole and not written and begun is not None and not begun.written and not begun.data:
            del self._begun[process]
            found.read((process, begun.descriptor))
        else:
            outcome = Outcome(_unhex(line.string), line.result, _stamp_ns(line.stamp))
            self._resume(process, written, outcome, found.single)


class _Found:
    """What was found in a chunk so far; `number` is that of the line that is looked at."""

    def __init__(self, text: bytes, lines: list[tuple[bytes, ...]]) -> None:
        self.items: list[Run | Single] = []
        self.number = 0
        self.lines = lines
        self._text = text
        self._reading: dict[Bus, list[int]] = {}
        self._unnamed = False

    @cached_property
    def texts(self) -> list[bytes]:
        """The lines as they came: few chunks have one that is looked at by itself."""
        return self._text.split(b"\n")[:-1]

    @property
    def text(self) -> bytes:
        """The line that is looked at."""
        return self.texts[self.number]

    def read(self, bus: Bus) -> list[int]:
        """Take the line as one more read from a descriptor; gives the reads that it joins."""
        if (bus[0] == 0) != self._unnamed:
            self._turn()
        numbers = self._reading.get(bus)
        if numbers is None:
            numbers = self._reading[bus] = []
        numbers.append(self.number)
        return numbers

    def write(self, bus: Bus) -> None:
        """Take the line as a write."""
        if (bus[0] == 0) != self._unnamed:
            self._turn()
        self._close(bus)
        self.items.append(Run(bus, True, _unhex(self.lines[self.number][3]), (self.number,), self.lines))

    def single(self, transfer: Transfer) -> None:
        """Take a transfer that was read by itself; of unreadable lines in a row the first says it all."""
        if transfer is UNREADABLE:
            self.close_all()
            if self.items and self.items[-1][1] is UNREADABLE:
                return
        else:
            if (transfer.process == 0) != self._unnamed:
                self._turn()
            self._close((transfer.process, transfer.descriptor))
        self.items.append(Single(self.number, transfer))

    def close_all(self) -> None:
        """Let no read that follows join those before."""
        if self._reading:
            for bus in tuple(self._reading):
                self._close(bus)

    def _turn(self) -> None:
        """Keep the order of lines that name their process and of those that do not: one bus may have both."""
        self._unnamed = not self._unnamed
        self.close_all()

    def _close(self, bus: Bus) -> None:
        numbers = self._reading.pop(bus, None)
        if numbers is not None:
            lines = self.lines
            data = _unhex(b"".join([lines[number][3] for number in numbers]))
            self.items.append(Run(bus, False, data, numbers, lines))


@lru_cache(maxsize=1024)
def _call_of(who: bytes, call: bytes) -> tuple[int, int, bool]:
    """Give process, descriptor (-1 for a second half, which names none), and whether the call writes."""
    process = int(who.strip(b"[]pid ") or 0)
    if call.startswith(b"<"):
        return process, -1, b"write" in call
    name, _, descriptor = call.partition(b"(")
    return process, int(descriptor.partition(b"<")[0].strip(b", ")), name == b"write"


def _unhex(strings: bytes) -> bytes:
    return unhexlify(strings.translate(None, b"\\x"))


def _stamp_ns(stamp: bytes) -> int | None:
    return _ns_of(stamp) if stamp else None


def _ns_of(stamp: bytes) -> int:
    """Give the Unix ns of a stamp with six digits behind its point."""
    return int(stamp.replace(b".", b"")) * 1000

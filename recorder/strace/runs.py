r"""strace text to runs: the transfers of `syscalls`, with reads that follow each other joined.

Takes chunks of text in any split; gives the same transfers, counts and order as `SyscallDecoder`,
but one `Run` for a process's reads from one descriptor with no other line in between. Never does
I/O, and never decides what a line means: one pattern over the whole text finds the lines that are
whole calls with all their bytes, which is nearly all; every other line goes to `SyscallDecoder`.
"""

import re
from binascii import unhexlify
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from recorder.strace.syscalls import UNREADABLE, Give, SyscallDecoder, Transfer

# Every part is bounded, so that a line that the pattern finds is never an overlong one.
_LONGEST_LINE_BYTES: Final = 8192
_MOST_BYTES_A_CALL: Final = 1024

_WHO = rb"(\[pid {1,9}\d{1,9}\] |\d{1,9} {1,9})?"
_WHEN = rb"(?:(?![rw])(?:([1-9]\d{9}\.\d{6}) | {0,9}\d{1,8}\.\d{6} |\d\d:\d\d:\d\d(?:\.\d{6})? ))?"
_CALL = rb'((?:read|write)\(\d{1,9}(?:<[^"(>\n]{0,200}>)?), '
_HEX = rb"((?:\\x[0-9a-f][0-9a-f]){1,1024}+)"
# Each way to write a byte begins in its own way, so that nothing is tried twice; no octal above 377.
_ESCAPED = (
    rb"((?:[^\"\\\n]|\\(?:x[0-9a-f][0-9a-f]|[0-3][0-7]{0,2}+|[4-7][0-7]?+(?![0-7])|[\"\\fnrtv])){1,1024})"
)
_RESULT = rb", \d{1,9}\) {1,99}= (\d{1,4})(?: <\d{1,9}\.\d{6}>)?\r?"
_LINES = re.compile(
    rb"((?:" + _WHO + _WHEN + _CALL + rb'"(?:' + _HEX + rb"|" + _ESCAPED + rb')"' + _RESULT + rb"|[^\n]*+))\n"
)

# How long a hexadecimal string is, by the result that stands behind it.
_HEX_LENGTHS: Final = {b"%d" % moved: 4 * moved for moved in range(1, _MOST_BYTES_A_CALL + 1)}


class Run(NamedTuple):
    """Bytes that one process read from one descriptor, by one call after the other.

    `strings` are the calls' bytes as hexadecimal escapes, and `stamps` the texts of their stamps,
    empty without `-ttt`; `transfers` reads them.
    """

    process: int
    descriptor: int
    data: bytes
    strings: Sequence[bytes]
    stamps: Sequence[bytes]

    @property
    def stamped_at_ns(self) -> int | None:
        """The stamp of the last read: Unix time in ns, or None without `-ttt`."""
        return _stamp_ns(self.stamps[-1])

    def transfers(self) -> list[Transfer]:
        """Give the reads one by one."""
        return [
            Transfer(self.process, self.descriptor, False, _unhex(string), True, _stamp_ns(stamp))
            for string, stamp in zip(self.strings, self.stamps, strict=True)
        ]

    def stamps_ns(self) -> list[int | None]:
        """Give the stamp of each read in Unix ns, None where it has none."""
        return [_stamp_ns(stamp) for stamp in self.stamps]


class RunDecoder(SyscallDecoder):
    """Decodes one stream of strace text, many lines at a time."""

    def feed_runs(self, chunk: bytes) -> list[Transfer | Run]:
        """Take the next bytes of the stream, and give the runs and transfers that they complete."""
        if self._max_line_bytes < _LONGEST_LINE_BYTES:
            return [*self.feed(chunk)]
        found: list[Transfer | Run] = []
        hex_length = _HEX_LENGTHS.get
        run_who = run_call = b""
        strings: list[bytes] = []
        stamps: list[bytes] = []
        for row in _LINES.findall(self._whole_lines(chunk)):
            _, who, stamp, call, string, _, result = row
            if call == run_call and who == run_who and hex_length(result) == len(string):
                strings.append(string)
                stamps.append(stamp)
                continue
            if strings:
                found.append(_reads(run_who, run_call, strings, stamps))
                run_call = b""
                strings, stamps = [], []
            if hex_length(result) != len(string):
                self._unlike(row, found.append)
                continue
            process, descriptor, written = _call_of(who, call)
            if self._begun:
                self._forget_begun(process, found.append)
            if written:
                found.append(Transfer(process, descriptor, True, _unhex(string), True, _stamp_ns(stamp)))
            else:
                run_who, run_call, strings, stamps = who, call, [string], [stamp]
        if strings:
            found.append(_reads(run_who, run_call, strings, stamps))
        if self._drop_overlong_tail():
            found.append(UNREADABLE)
        return found

    def _unlike(self, row: tuple[bytes, ...], give: Give) -> None:
        """Take a line that is no whole call in hexadecimal."""
        line, who, stamp, call, _, escaped, result = row
        # What Python's own escapes read in the same way as strace writes it: a codec written in C.
        data = escaped.decode("unicode_escape").encode("latin-1") if escaped else b""
        if not data or len(data) != int(result):
            self._line(line, give)
            return
        process, descriptor, written = _call_of(who, call)
        self._forget_begun(process, give)
        give(Transfer(process, descriptor, written, data, True, _stamp_ns(stamp)))


def _reads(who: bytes, call: bytes, strings: list[bytes], stamps: list[bytes]) -> Transfer | Run:
    process, descriptor, _ = _call_of(who, call)
    data = _unhex(b"".join(strings))
    if len(strings) == 1:
        return Transfer(process, descriptor, False, data, True, _stamp_ns(stamps[0]))
    return Run(process, descriptor, data, strings, stamps)


@lru_cache(maxsize=1024)
def _call_of(who: bytes, call: bytes) -> tuple[int, int, bool]:
    """Give process, descriptor, and whether the call writes."""
    name, _, descriptor = call.partition(b"(")
    return int(who.strip(b"[]pid ") or 0), int(descriptor.partition(b"<")[0]), name == b"write"


def _unhex(strings: bytes) -> bytes:
    return unhexlify(strings.translate(None, b"\\x"))


def _stamp_ns(stamp: bytes) -> int | None:
    """Give the Unix ns of a stamp with six digits behind its point."""
    return int(stamp.replace(b".", b"")) * 1000 if stamp else None

r"""Polls as the text that strace prints of them.

Takes `Poll`s, gives lines in one of strace's dialects. Never checks that a receiver could tell
processes apart. The chunks follow a real capture; the dialects were read off strace 6.1 and, for
the older `<... read resumed> "` and `-y` with plain paths, off that capture and strace 4.x.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal, NamedTuple

from recorder.simulator.polls import Poll

_RESULT_COLUMN: Final = 40
_SERIAL_PORTS: Final = "/dev/ttyS"
NO_PROCESS: Final = 0
NO_POLL: Final = -1


@dataclass(frozen=True, slots=True)
class Dialect:
    """How strace was started, and how old it is.

    `prefix` is `[pid N] ` (two processes or more), `N ` (`-f -o`) or none. `stamp` is the option that
    stamps lines; clock times are UTC. `strings` is `xx`, `x` or `c` for C escapes. `paths` is `-y`,
    whose paths strace 6 writes in hex together with `-xx`. `durations` is `-T`, `attached` announces
    each process, `modern` is strace 5 and later.
    """

    prefix: Literal["none", "bracket", "plain"] = "bracket"
    stamp: Literal["", "t", "tt", "ttt", "r"] = ""
    strings: Literal["xx", "x", "c"] = "xx"
    paths: Literal["", "plain", "hex"] = ""
    durations: bool = False
    attached: bool = False
    modern: bool = False
    crlf: bool = False


DIALECTS: Final[dict[str, Dialect]] = {
    "capture": Dialect(),
    "ttt": Dialect(stamp="ttt"),
    "t": Dialect(stamp="t"),
    "tt": Dialect(stamp="tt"),
    "r": Dialect(stamp="r"),
    "x": Dialect(strings="x"),
    "escapes": Dialect(strings="c"),
    "paths": Dialect(paths="plain"),
    "hex-paths": Dialect(paths="hex", modern=True),
    "file": Dialect(prefix="plain", modern=True),
    "modern": Dialect(modern=True, attached=True),
    "durations": Dialect(stamp="ttt", durations=True, modern=True),
    "crlf": Dialect(crlf=True),
    "everything": Dialect(
        stamp="ttt", strings="c", paths="plain", durations=True, attached=True, modern=True, crlf=True
    ),
}


class Call(NamedTuple):
    """One read or write: `size` is the count that the process asked for, `shown` the bytes not cut away."""

    process: int
    at_ns: int
    poll: int
    descriptor: int
    written: bool
    data: bytes
    size: int
    shown: int


class Remark(NamedTuple):
    """Any other line; without prefix and stamp where `process` is `NO_PROCESS`."""

    process: int
    at_ns: int
    poll: int
    text: str


class Line(NamedTuple):
    """A line of text with its end, the number of the poll that it is part of, and whether it is a half."""

    text: bytes
    poll: int
    half: bool


def calls_of(poll: Poll, number: int, random: Random) -> list[Call]:
    """Give the write and the reads of a poll: two bytes, one byte, then pieces of 1 to 64."""
    process, descriptor = poll.master
    request, response = poll.request, poll.response
    calls = [Call(process, poll.asked_at_ns, number, descriptor, True, request, len(request), len(request))]
    sizes = _read_sizes(len(response), random)
    span_us = (poll.answered_at_ns - poll.asked_at_ns) // 1000
    start = 0
    for index, (asked, taken) in enumerate(sizes, 1):
        at_ns = poll.asked_at_ns + span_us * index // len(sizes) * 1000
        data = response[start : start + taken]
        calls.append(Call(process, at_ns, number, descriptor, False, data, asked, taken))
        start += taken
    return calls


def _read_sizes(length: int, random: Random) -> list[tuple[int, int]]:
    """Give for each read what it asks for and what it gets; the header is read apart from the rest."""
    sizes: list[tuple[int, int]] = []
    for part in (min(2, length), min(1, max(0, length - 2))):
        if part == 2 and random.random() < 0.2:
            sizes += [(2, 1), (1, 1)]
        elif part:
            sizes.append((part, part))
    left = length - 3
    while left > 0:
        if left <= 2:
            taken = left
        elif random.random() < 0.03:
            taken = min(left, 10 + int(random.random() * 55))
        else:
            taken = min(left, 3 + int(random.random() * 7) if length > 32 else 2 + int(random.random() * 4))
        sizes.append((left, taken))
        left -= taken
    return sizes


class StraceText:
    """Writes one stream of text.

    Args:
        dialect: how the text looks.
        random: where splits and durations come from.
        split_rate: how often a call that follows one of another process is cut into two halves.
    """

    def __init__(self, dialect: Dialect, random: Random, split_rate: float = 0.1) -> None:
        self._dialect = dialect
        self._random = random
        self._split_rate = split_rate
        self._end = "\r\n" if dialect.crlf else "\n"
        self._last_ns = 0
        self._prefixes: dict[int, str] = {NO_PROCESS: ""}

    def render(self, items: Sequence[Call | Remark]) -> list[Line]:
        """Give the lines of `items`, which are in the order of time; a split call ends in its own place."""
        lines: list[Line] = []
        begun = False
        for index, item in enumerate(items):
            following = items[index + 1] if index + 1 < len(items) else None
            splits = (
                isinstance(item, Call)
                and isinstance(following, Call)
                and following.process != item.process
                and self._random.random() < self._split_rate
            )
            if splits and isinstance(following, Call):
                lines.append(self._begin(following, item.at_ns))
            lines.append(self._finish(item, resumed=begun))
            begun = splits
        return lines

    def attached(self, process: int, at_ns: int) -> Remark:
        """Give the line by which strace announces a process."""
        strace = "strace: " if self._dialect.modern else ""
        return Remark(NO_PROCESS, at_ns, NO_POLL, f"{strace}Process {process} attached")

    def _begin(self, call: Call, before_ns: int) -> Line:
        """Write the first half of `call`, at a time before the line that comes between its halves."""
        at_ns = (max(self._last_ns, before_ns - 2_000_000) + before_ns) // 2 // 1000 * 1000
        arguments = f"{self._string(call)}, {call.size}" if call.written else ""
        text = f"{self._opening(call)}{arguments} <unfinished ...>"
        return self._line(call.process, at_ns, text, call.poll, half=True)

    def _finish(self, item: Call | Remark, *, resumed: bool) -> Line:
        if isinstance(item, Remark):
            return self._line(item.process, item.at_ns, item.text, item.poll)
        string = self._string(item)
        if not resumed:
            text = f"{self._opening(item)}{string}, {item.size})"
        else:
            space = "" if self._dialect.modern else " "
            name = "write" if item.written else "read"
            arguments = "" if item.written else f"{string}, {item.size}"
            text = f"<... {name} resumed>{space}{arguments})"
        return self._line(item.process, item.at_ns, text, item.poll, f" = {len(item.data)}", half=resumed)

    def _line(  # noqa: PLR0913 - the parts of a line
        self, process: int, at_ns: int, text: str, poll: int, result: str = "", *, half: bool = False
    ) -> Line:
        if process != NO_PROCESS:
            text = self._prefix(process) + self._stamp(at_ns) + text
        if result:
            duration = f" <0.{int(20 + self._random.random() * 70):06d}>" if self._dialect.durations else ""
            text = text.ljust(_RESULT_COLUMN - 1) + result + duration
        self._last_ns = at_ns
        return Line((text + self._end).encode("latin-1"), poll, half)

    def _prefix(self, process: int) -> str:
        prefix = self._prefixes.get(process)
        if prefix is None:
            written = {"bracket": f"[pid {process:5d}] ", "plain": f"{process:<5d} ", "none": ""}
            prefix = self._prefixes[process] = written[self._dialect.prefix]
        return prefix

    def _stamp(self, at_ns: int) -> str:
        option = self._dialect.stamp
        if not option:
            return ""
        if option == "r":
            since_us = max(0, at_ns - self._last_ns) // 1000 if self._last_ns else 0
            return f"{since_us // 1_000_000:6d}.{since_us % 1_000_000:06d} "
        seconds, microseconds = divmod(at_ns // 1000, 1_000_000)
        if option == "ttt":
            return f"{seconds}.{microseconds:06d} "
        clock = f"{seconds // 3600 % 24:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        return f"{clock}.{microseconds:06d} " if option == "tt" else f"{clock} "

    def _opening(self, call: Call) -> str:
        name = "write" if call.written else "read"
        return f"{name}({call.descriptor}{self._path(call.descriptor)}, "

    def _path(self, descriptor: int) -> str:
        if not self._dialect.paths:
            return ""
        path = f"{_SERIAL_PORTS}{descriptor % 4 + 1}"
        return f"<{path if self._dialect.paths == 'plain' else _hex(path.encode())}>"

    def _string(self, call: Call) -> str:
        cut = "..." if call.shown < len(call.data) else ""
        return f'"{quote(call.data[: call.shown], self._dialect.strings)}"{cut}'


def quote(data: bytes, strings: Literal["xx", "x", "c"]) -> str:
    """Write bytes as strace does: all in hex, in hex where one is unprintable, or with C escapes."""
    if strings == "xx" or (strings == "x" and not _PRINTABLE.issuperset(data)):
        return _hex(data)
    text = []
    for index, byte in enumerate(data):
        escape = _ESCAPES[byte]
        # A short octal escape would swallow a digit that follows it.
        if byte in _SHORT_OCTALS and data[index + 1 : index + 2].isdigit() and data[index + 1] < ord("8"):
            escape = f"\\{byte:03o}"
        text.append(escape)
    return "".join(text)


def _hex(data: bytes) -> str:
    return "\\x" + data.hex("|").replace("|", "\\x") if data else ""


_LETTERS: Final = {9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
_PRINTABLE: Final = frozenset((*range(32, 127), 9, 10, 11, 12, 13))
_SHORT_OCTALS: Final = frozenset(range(64)) - _PRINTABLE
_ESCAPES: Final = tuple(
    _LETTERS.get(byte, chr(byte) if byte in _PRINTABLE else f"\\{byte:o}") for byte in range(256)
)

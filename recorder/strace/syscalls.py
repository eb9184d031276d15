r"""strace text to transfers: who read or wrote which bytes, on which descriptor, when.

Takes chunks of text as they come, in any split; gives `Transfer`s. Never does I/O, and knows
nothing of Modbus. The grammar is what strace 4.x to 6.x print for
`-e trace=read,write`, with any of `-f -o -t -tt -ttt -r -T -x -xx -y -yy -Y -s`:

    line     = [ who ] [ when ] ( call | begun | resumed | notice )
    who      = "[pid " digits "] " | digits " "          two or more processes; `-f -o`
    when     = clock " " | seconds "." digits " "        -t -tt; -ttt and -r
    call     = name "(" descriptor ", " string ", " size ")" spaces "= " result [ " <" duration ">" ]
    begun    = name "(" descriptor ", " [ string ", " size ] " <unfinished ...>"
    resumed  = "<... " name " resumed>" [ string ", " size ] ")" spaces "= " result [ " <" duration ">" ]
    string   = '"' escapes '"' [ "..." ]                 "..." when cut by -s
"""

import re
from binascii import unhexlify
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

DEFAULT_MAX_LINE_BYTES: Final = 65536
MAX_BEGUN_CALLS: Final = 256

# Seconds below this are a relative stamp (-r), or a controller whose clock was never set.
_FIRST_BELIEVABLE_NS: Final = 10**17


class Transfer(NamedTuple):
    """Bytes that one process moved over one descriptor.

    `process` is 0 where the stream names none. `complete` is False where strace cut the bytes.
    `stamped_at_ns` is Unix time in ns by the traced machine's clock, or None without `-ttt`.
    """

    process: int
    descriptor: int
    written: bool
    data: bytes
    complete: bool
    stamped_at_ns: int | None

    @property
    def first_stamped_at_ns(self) -> int | None:
        """The same: it is a single call."""
        return self.stamped_at_ns


Give = Callable[[Transfer], object]


class Begun(NamedTuple):
    """What a process has begun, by its first half: `data` is what it writes, empty where it reads."""

    written: bool
    descriptor: int
    data: bytes


class Outcome(NamedTuple):
    """How a call ended: the bytes that its line shows, its result, and its stamp."""

    data: bytes
    result: bytes
    stamped_at_ns: int | None


class TextState(NamedTuple):
    """What a decoder has taken and not finished: a line without its end, and halves of calls by process."""

    tail: bytes
    skipping_line: bool
    begun: tuple[tuple[int, Begun], ...]


# Stands for a line that could not be read: it may have been any transfer of any process.
UNREADABLE: Final = Transfer(0, -1, written=False, data=b"", complete=False, stamped_at_ns=None)


# Possessive quantifiers (++, *+): no line, however odd, may make a pattern backtrack over itself.
_WHO = rb"(?:\[pid ++(?P<pid>\d{1,9})(?:<[^>]*+>)?\] ++|(?P<bare_pid>\d{1,9})(?:<[^>]*+>)? ++)?"
_SINCE = rb"(?:\(\+ *+\d++\.\d++\) )?"
_WHEN = rb" *+(?:(?P<stamp>\d{1,10}\.\d{6,9}) " + _SINCE + rb"|\d\d:\d\d:\d\d(?:\.\d++)? " + _SINCE + rb")?"
_DESCRIPTOR = rb"(?P<descriptor>\d{1,9})(?:<[^\"(]*?>)?"
# strace escapes what is not printable ASCII: a string with anything else in it is damaged.
_STRING = rb'"(?:(?P<hex>(?:\\x[0-9a-fA-F]{2})*+)"|(?P<escaped>(?:[ !#-\[\]-~]|\\[ -~])*+)")(?:\.\.\.)?'
# Nothing but a duration (-T) stands behind what was moved: a line with more is two that damage has joined.
_RESULT = rb"(?:, \d++)?\) ++= (?P<result>\d{1,18}(?=(?: <\d++\.\d++>)?\s*+\Z)|-\d{1,18}|\?)"

_CALL = re.compile(_WHO + _WHEN + rb"(?P<name>read|write)\(" + _DESCRIPTOR + rb", " + _STRING + _RESULT)
_BEGUN = re.compile(
    _WHO
    + _WHEN
    + rb"(?P<name>read|write)\("
    + _DESCRIPTOR
    + rb", *+(?:"
    + _STRING
    + rb", \d++)? *+<unfinished \.\.\.>"
)
_RESUMED = re.compile(
    _WHO + _WHEN + rb"<\.\.\. (?P<name>read|write) resumed> ?(?:" + _STRING + rb"(?=, ))?" + _RESULT
)
# A call that moved nothing prints its buffer as an address: read(4, 0x7ffe2c, 2) = -1 EAGAIN (...)
_FAILED = re.compile(
    _WHO + _WHEN + rb"(?:(?:read|write)\(|<\.\.\. (?:read|write) resumed>).*\) ++= (?:-1|\?)"
)
_OTHER_CALL = re.compile(
    _WHO + _WHEN + rb"(?:<\.\.\. )?(?!(?:read|write)\b)[a-z_][a-z0-9_]*+(?:\(| resumed>)"
)
_NOTICE = re.compile(_WHO + _WHEN + rb"(?:(?:[^ ]*/)?strace: |\+\+\+ |--- |Process \d++ )")

_NOTICE_WORDS: Final = (b"strace: ", b"+++ ", b"--- ", b"Process ")

_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))", re.DOTALL)
_LETTERS: Final = {
    b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v",
}  # fmt: skip


def _unescape(match: re.Match[bytes]) -> bytes:
    hexadecimal, octal, letter = match.groups()
    if hexadecimal is not None:
        return bytes((int(hexadecimal, 16),))
    if octal is not None:
        return bytes((int(octal, 8) & 0xFF,))
    return _LETTERS.get(letter, letter)


def _string_of(match: re.Match[bytes]) -> bytes:
    hexadecimal = match["hex"]
    if hexadecimal is not None:
        return unhexlify(hexadecimal.replace(b"\\x", b""))
    return _ESCAPE.sub(_unescape, match["escaped"] or b"")


def _process_of(match: re.Match[bytes]) -> int:
    return int(match["pid"] or match["bare_pid"] or 0)


def _begun_of(match: re.Match[bytes], data: bytes) -> Begun:
    return Begun(match["name"] == b"write", int(match["descriptor"]), data)


def _outcome_of(match: re.Match[bytes]) -> Outcome:
    return Outcome(_string_of(match), match["result"], _stamp_of(match))


def _stamp_of(match: re.Match[bytes]) -> int | None:
    stamp = match["stamp"]
    if stamp is None:
        return None
    seconds, _, fraction = stamp.partition(b".")
    nanoseconds = int(seconds + fraction.ljust(9, b"0"))
    return nanoseconds if nanoseconds >= _FIRST_BELIEVABLE_NS else None


class SyscallDecoder:
    """Decodes one stream of strace text.

    Args:
        counts: where lines, and all that is dropped, are counted by the names in `recorder.counts`.
        max_line_bytes: a longer line is dropped, whole, however it is split.
    """

    def __init__(self, counts: Counter[str], max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        self._counts = counts
        self._max_line_bytes = max_line_bytes
        self._tail = b""
        self._skipping_line = False
        # What a process began and has not finished.
        self._begun: dict[int, Begun] = {}

    @property
    def state(self) -> TextState:
        """Where the decoder stands: what it will give depends on this and on the text that comes."""
        return TextState(self._tail, self._skipping_line, tuple(self._begun.items()))

    def resume(self, state: TextState) -> None:
        """Go on from where another decoder stood."""
        self._tail, self._skipping_line, begun = state
        self._begun = dict(begun)

    def feed(self, chunk: bytes) -> list[Transfer]:
        """Take the next bytes of the stream, and give the transfers that they complete."""
        transfers: list[Transfer] = []
        for line in self._whole_lines(chunk).split(b"\n")[:-1]:
            self._line(line, transfers.append)
        if self._drop_overlong_tail():
            transfers.append(UNREADABLE)
        return transfers

    def finish(self) -> None:
        """Count what the end of the stream leaves open, and forget it."""
        self._counts["torn_lines"] += bool(self._tail)
        self._counts["unmatched_halves"] += len(self._begun)
        self._tail = b""
        self._skipping_line = False
        self._begun.clear()

    def _whole_lines(self, chunk: bytes) -> bytes:
        """Give the text up to its last line end, keep the rest, and count lines."""
        ended, newline, rest = chunk.rpartition(b"\n")
        if not newline:
            self._tail += rest
            return b""
        text = self._tail + ended + newline
        self._tail = rest
        if self._skipping_line:
            text = text.partition(b"\n")[2]
            self._skipping_line = False
        self._counts["lines"] += text.count(b"\n")
        return text

    def _drop_overlong_tail(self) -> bool:
        """Drop a line without an end once it is too long; tell when that begins."""
        begins = len(self._tail) > self._max_line_bytes and not self._skipping_line
        if begins:
            self._counts["lines"] += 1
            self._counts["overlong_lines"] += 1
            self._skipping_line = True
        if self._skipping_line:
            self._tail = b""
        return begins

    def _line(self, line: bytes, give: Give) -> None:
        if len(line) > self._max_line_bytes:
            self._counts["overlong_lines"] += 1
            give(UNREADABLE)
        elif b"(" not in line and b" resumed>" not in line:
            self._without_call(line, give)
        elif b" = " in line and (match := _CALL.match(line)) is not None:
            process = _process_of(match)
            self._forget_begun(process, give)
            self._end(process, _begun_of(match, b""), _outcome_of(match), give)
        elif b" resumed>" in line and (match := _RESUMED.match(line)) is not None:
            self._resume(_process_of(match), match["name"] == b"write", _outcome_of(match), give)
        elif b"<unfinished" in line and (match := _BEGUN.match(line)) is not None:
            self._begin(_process_of(match), _begun_of(match, _string_of(match)), give)
        else:
            self._other(line, give)

    def _end(self, process: int, begun: Begun, outcome: Outcome, give: Give) -> None:
        """Take a call that is over."""
        moved = 0 if outcome.result == b"?" else int(outcome.result)
        if moved <= 0:
            self._counts["failed_calls"] += 1
            return
        data = begun.data or outcome.data
        if len(data) > moved and not begun.written:
            # A write may take less than it was given, but no read shows more than it got.
            self._counts["unrecognised_lines"] += 1
            give(UNREADABLE)
            return
        complete = moved <= len(data)
        if not complete:
            self._counts["cut_strings"] += 1
        give(
            Transfer(process, begun.descriptor, begun.written, data[:moved], complete, outcome.stamped_at_ns)
        )

    def _begin(self, process: int, begun: Begun, give: Give) -> None:
        """Take the first half of a call."""
        self._forget_begun(process, give)
        if len(self._begun) >= MAX_BEGUN_CALLS:
            self._forget_begun(next(iter(self._begun)), give)
        self._begun[process] = begun

    def _resume(self, process: int, written: bool, outcome: Outcome, give: Give) -> None:
        """Take the second half of a call."""
        begun = self._begun.pop(process, None)
        if begun is not None and begun.written == written:
            self._end(process, begun, outcome, give)
        else:
            self._counts["unmatched_halves"] += 1
            give(UNREADABLE)

    def _forget_begun(self, process: int, give: Give) -> None:
        """Give up a call that its process began, if any: a process has no two calls at once."""
        if self._begun and self._begun.pop(process, None) is not None:
            self._counts["unmatched_halves"] += 1
            give(UNREADABLE)

    def _other(self, line: bytes, give: Give) -> None:
        failed = _FAILED.match(line.rstrip()) if b"= -1" in line or b"= ?" in line else None
        if failed is not None:
            self._begun.pop(_process_of(failed), None)
            self._counts["failed_calls"] += 1
        elif _OTHER_CALL.match(line) is not None and _NOTICE.match(line) is None:
            self._counts["other_calls"] += 1
        else:
            self._without_call(line, give)

    def _without_call(self, line: bytes, give: Give) -> None:
        # Most of what comes here is garbage: a search for the words is cheaper than the pattern.
        if any(map(line.__contains__, _NOTICE_WORDS)) and _NOTICE.match(line) is not None:
            self._counts["notices"] += 1
        elif line.strip():
            self._counts["unrecognised_lines"] += 1
            give(UNREADABLE)

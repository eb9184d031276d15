"""strace text to runs: whatever the text, the same transfers, counts and order as line by line."""

from collections import Counter
from itertools import pairwise
from operator import itemgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.simulator.faults import parse_faults
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream
from recorder.strace.runs import Run, RunDecoder, Single
from recorder.strace.syscalls import UNREADABLE, SyscallDecoder, Transfer

READ = b'[pid 7] %sread(4, "%s", 9) = %d\n'


def _text(dialect: str) -> bytes:
    """Give some seconds of a home with every fault."""
    stream = SiteStream(Plant(5, 1_781_780_400), DIALECTS[dialect], parse_faults("all"), 5)
    return b"".join(next(stream).texts[0] for _ in range(15))


TEXTS = {dialect: _text(dialect) for dialect in DIALECTS}


def in_runs(chunks: list[bytes], max_line_bytes: int = 65536) -> tuple[list[Transfer], Counter[str]]:
    counts: Counter[str] = Counter()
    decoder = RunDecoder(counts, max_line_bytes)
    found = [transfer for chunk in chunks for transfer in unrolled(decoder.feed_runs(chunk))]
    decoder.finish()
    return told_once(found), +counts


def told_once(transfers: list[Transfer]) -> list[Transfer]:
    """Leave out what is unreadable right behind what is: it says nothing more."""
    pairs = pairwise([None, *transfers])
    return [after for before, after in pairs if after and not (after is UNREADABLE and before is UNREADABLE)]


def unrolled(items: list[Run | Single]) -> list[Transfer]:
    """Give the calls one by one in the order of their lines; nothing may have passed an unreadable line."""
    found: list[tuple[int, Transfer]] = []
    border = -1
    for item in items:
        if isinstance(item, Single):
            transfers = [(item.number, item.transfer)]
        else:
            transfers = list(zip(item.numbers, item.transfers(), strict=True))
            assert item.stamps_ns() == [transfer.stamped_at_ns for _, transfer in transfers]
            assert item.stamped_at_ns == transfers[-1][1].stamped_at_ns
            assert item.data == b"".join(transfer.data for _, transfer in transfers)
        assert transfers[0][0] >= border
        if transfers[0][1] is UNREADABLE:
            border = transfers[0][0]
            assert all(number <= border for number, _ in found)
        found += transfers
    by_bus: dict[tuple[int, int], list[int]] = {}
    for number, transfer in found:
        by_bus.setdefault((transfer.process, transfer.descriptor), []).append(number)
    assert all(numbers == sorted(numbers) for numbers in by_bus.values())
    return [transfer for _, transfer in sorted(found, key=itemgetter(0))]


def line_by_line(chunks: list[bytes], max_line_bytes: int = 65536) -> tuple[list[Transfer], Counter[str]]:
    counts: Counter[str] = Counter()
    decoder = SyscallDecoder(counts, max_line_bytes)
    found = [transfer for chunk in chunks for transfer in decoder.feed(chunk)]
    decoder.finish()
    return told_once(found), +counts


def split(text: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


# Words of strace, whole lines, and what is nearly one of them.
WORDS = st.sampled_from(
    [
        *(
            b"read(",
            b"write(",
            b"4",
            b", ",
            b'"',
            b"\\x00",
            b"\\x4",
            b"\\0",
            b"\\47",
            b"\\777",
            b"\\",
            b"\\a",
        ),
        *(b"7", b" ", b")", b"= ", b"-1 ", b"[pid ", b"] ", b"...", b"<", b">", b"?", b"\xff", b"\0", b"12 "),
        *(b"<... read resumed>", b"<unfinished ...>", b" resumed>", b"poll(", b"strace: ", b"+++ ", b"\r\n"),
        *(
            b"1795331980.362519 ",
            b"981780406.671598 ",
            b"     0.002276 ",
            b"12:00:01 ",
            b"Process 12 attached",
        ),
        b"\n",
        b'read(4, "\\x00\\x01", 2) = 2\n',
        b'[pid 7] read(4, "\\x00", 2) = 1\n',
        b'[pid 7] read(4, "\\x00\\x00", 2) = 1\n',
        b"[pid 7] read(4,  <unfinished ...>\n",
        b'[pid 7] <... read resumed> "\\x00", 2) = 1\n',
        b'9 write(4, "\\x01", 1) = 1\n',
    ]
)
CUTS = st.lists(st.integers(0, 4000), max_size=12)
LIMITS = st.sampled_from([65536, 8192, 1500, 100])


@given(st.lists(WORDS, max_size=100).map(b"".join), CUTS, LIMITS)
def test_words_of_strace_in_any_order_are_read_as_line_by_line(
    text: bytes, cuts: list[int], max_line_bytes: int
) -> None:
    """Nothing that is put together from strace's own words is read in two ways."""
    chunks = split(text, cuts)
    assert in_runs(chunks, max_line_bytes) == line_by_line(chunks, max_line_bytes)


@given(st.data())
def test_damaged_text_is_read_as_line_by_line(data: st.DataObject) -> None:
    """Text of any dialect, with faults, cut anywhere and with garbage in it, is not read in two ways."""
    whole = data.draw(st.sampled_from(sorted(TEXTS.values())))
    start = data.draw(st.integers(0, len(whole) - 3000))
    text = whole[start : start + 3000]
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, len(text)))
        garbage = data.draw(st.one_of(st.binary(max_size=9), WORDS))
        text = text[:at] + garbage + text[at + data.draw(st.integers(0, 20)) :]
    chunks = split(text, data.draw(CUTS))
    assert in_runs(chunks) == line_by_line(chunks)


@given(st.lists(st.binary(max_size=300)))
def test_arbitrary_bytes_are_read_as_line_by_line(chunks: list[bytes]) -> None:
    """Nor is anything else that a connection sends."""
    assert in_runs(chunks) == line_by_line(chunks)


@given(st.binary(min_size=1, max_size=40), st.binary(max_size=3))
def test_any_string_is_read_as_line_by_line(inside: bytes, tail: bytes) -> None:
    """What stands between quotes means the same in both, whether strace could write it or not."""
    for escaped in (inside, b"\\" + inside, b"\\x0" + inside, b"".join(b"\\%o" % byte for byte in inside)):
        for moved in {len(inside), max(1, len(escaped) // 4)}:
            chunk = READ % (b"", escaped, moved) + tail + b"\n"
            assert in_runs([chunk]) == line_by_line([chunk])


ODD_TEXTS = {
    "stamp of nine digits": READ % (b"981780406.671598 ", rb"\x01", 1),
    "octal above a byte": READ % (b"", rb"\477", 1),
    "call by a process that has begun one": b"[pid 7] read(4,  <unfinished ...>\n"
    + READ % (b"", rb"\x01", 1),
    "begun call between like reads": (
        READ % (b"", rb"\x01", 1) + b"[pid 7] read(4,  <unfinished ...>\n" + READ % (b"", rb"\x01", 1)
    ),
    "line above the least limit": READ % (b"", rb"\x01" * 400, 400),
    "string of more bytes than moved": READ % (b"", rb"\x01\x02", 1),
    "string of as many characters as four a byte": READ % (b"", rb"\x0\x123", 2),
    "capitals": READ % (b"", rb"\xAB", 1),
}


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_odd_text_is_read_as_line_by_line(name: str) -> None:
    """Where the pattern of whole lines comes near what it must not take, it does not take it."""
    chunks = [ODD_TEXTS[name]]
    for max_line_bytes in (65536, 1024):
        assert in_runs(chunks, max_line_bytes) == line_by_line(chunks, max_line_bytes)


@pytest.mark.parametrize("dialect", [name for name, of in DIALECTS.items() if of.strings == "xx"])
def test_most_lines_of_a_stream_are_in_runs(dialect: str) -> None:
    """Of all lines in hexadecimal, whatever the other options, two in three come out joined with others."""
    text = TEXTS[dialect]
    items = RunDecoder(Counter()).feed_runs(text)
    joined = sum(len(item.numbers) for item in items if isinstance(item, Run) and not item.written)
    assert joined > 2 / 3 * text.count(b"\n")


def reads(text: bytes) -> list[list[int]]:
    """Give the numbers of the lines of each run of reads."""
    items = RunDecoder(Counter()).feed_runs(text)
    return [list(item.numbers) for item in items if isinstance(item, Run) and not item.written]


def test_reads_that_follow_each_other_are_one_run() -> None:
    """A run has the bytes of all its reads and the stamp of its last."""
    stamps = b"1795331980.000001 ", b"1795331981.000002 "
    (run,) = RunDecoder(Counter()).feed_runs(
        READ % (stamps[0], rb"\x01\x02", 2) + READ % (stamps[1], rb"\x03", 1)
    )
    assert isinstance(run, Run)
    assert (run.bus, run.data) == ((7, 4), b"\1\2\3")
    assert run.stamped_at_ns == 1_795_331_981_000_002_000
    assert run.stamps_ns() == [1_795_331_980_000_001_000, 1_795_331_981_000_002_000]


@pytest.mark.parametrize(
    "between",
    [b'[pid 8] read(4, "\\x01", 1) = 1\n', b'[pid 8] write(4, "\\x01", 1) = 1\n',
     b'[pid 7] read(5, "\\x01", 1) = 1\n', b"[pid 8] read(4,  <unfinished ...>\n",
     b"[pid 7] read(4, 0x7ffe2c, 2) = -1 EAGAIN (Resource temporarily unavailable)\n"],
)  # fmt: skip
def test_what_others_do_meanwhile_does_not_end_a_run(between: bytes) -> None:
    """Lines of another process, of another descriptor and of failed calls stand between joined reads."""
    read = READ % (b"", rb"\x01", 1)
    assert [0, 2] in reads(read + between + read)


def test_halves_of_a_read_join_its_run() -> None:
    """A read that strace prints in two halves is one of its run, at the line of its second half."""
    read = READ % (b"", rb"\x01", 1)
    halves = b'[pid 7] read(4,  <unfinished ...>\n[pid 7] <... read resumed> "\\x02", 9) = 1\n'
    assert reads(read + halves + read) == [[0, 2, 3]]


@pytest.mark.parametrize(
    "between",
    [b'[pid 7] write(4, "\\x01", 1) = 1\n', b"garbage\n", b'[pid 7] read(4, "\\x01"..., 1) = 9\n',
     b'[pid 7] write(4, "\\x01", 1 <unfinished ...>\n[pid 7] <... write resumed> ) = 1\n',
     b'[pid 8] <... read resumed> "\\x01", 1) = 1\n'],
)  # fmt: skip
def test_a_write_or_an_unreadable_line_ends_a_run(between: bytes) -> None:
    """Nothing is joined across what the order matters to: a write to the descriptor, and what may be any."""
    read = READ % (b"", rb"\x01", 1)
    assert [len(numbers) for numbers in reads(read + between + read)] == [1, 1]

"""strace text to transfers: every dialect, every split, every kind of line that is no transfer."""

import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.strace.syscalls import MAX_BEGUN_CALLS, UNREADABLE, SyscallDecoder, Transfer

REQUEST = bytes.fromhex("01039c72005ccbb8")
REQUEST_HEX = rb"\x01\x03\x9c\x72\x00\x5c\xcb\xb8"


def decode(text: bytes, max_line_bytes: int = 65536) -> tuple[list[Transfer], Counter[str]]:
    counts: Counter[str] = Counter()
    decoder = SyscallDecoder(counts, max_line_bytes)
    transfers = decoder.feed(text)
    decoder.finish()
    return transfers, +counts


WRITE = Transfer(0, 4, written=True, data=REQUEST, complete=True, stamped_at_ns=None)

DIALECTS = {
    "plain": (b'write(4, "%s", 8) = 8', WRITE),
    "two processes": (b'[pid 28577] write(4, "%s", 8) = 8', WRITE._replace(process=28577)),
    "padded pid": (b'[pid  8193] write(4, "%s", 8) = 8', WRITE._replace(process=8193)),
    "-Y names the process": (b'[pid 8193<PCSMgr>] write(4, "%s", 8) = 8', WRITE._replace(process=8193)),
    "-f into a file": (b'28577 write(4, "%s", 8) = 8', WRITE._replace(process=28577)),
    "-t": (b'12:00:01 write(4, "%s", 8) = 8', WRITE),
    "-tt": (b'[pid 7] 12:00:01.000001 write(4, "%s", 8) = 8', WRITE._replace(process=7)),
    "-ttt": (
        b'1795331980.362519 write(4, "%s", 8) = 8',
        WRITE._replace(stamped_at_ns=1_795_331_980_362_519_000),
    ),
    "-ttt in ns": (
        b'1795331980.362519123 write(4, "%s", 8) = 8',
        WRITE._replace(stamped_at_ns=1_795_331_980_362_519_123),
    ),
    "-ttt before the clock was set": (b'12.362519 write(4, "%s", 8) = 8', WRITE),
    "-r": (b'     0.002276 write(4, "%s", 8) = 8', WRITE),
    "-r -ttt": (
        b'1795331980.362519 (+     0.002228) write(4, "%s", 8) = 8',
        WRITE._replace(stamped_at_ns=1_795_331_980_362_519_000),
    ),
    "-y": (b'write(4</dev/ttyS1>, "%s", 8) = 8', WRITE),
    "-yy": (b'write(4</dev/ttyS1<char 4:65>>, "%s", 8) = 8', WRITE),
    "-T": (b'write(4, "%s", 8) = 8 <0.000080>', WRITE),
    "wide descriptor": (b'write(123, "%s", 8) = 8', WRITE._replace(descriptor=123)),
    "CRLF": (b'write(4, "%s", 8) = 8\r', WRITE),
    "padded result": (b'write(4, "%s", 8)          = 8', WRITE),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("escapes", [REQUEST_HEX, rb"\1\3\234r\0\\\313\270", rb"\x1\x3\x9cr\x0\\\xcb\xb8"])
def test_dialect_is_understood(dialect: str, escapes: bytes) -> None:
    """A write of one request is the same transfer in every dialect and escape."""
    line, expected = DIALECTS[dialect]
    assert decode(line % escapes + b"\n") == ([expected], Counter(lines=1))


def test_quotes_and_letters_are_unescaped() -> None:
    """C escapes give the bytes that strace saw."""
    text = rb'read(3, "12\"a\\\1\00212\n\r\t\v\f\33\7\234", 500) = 18' + b"\n"
    (transfer,), _ = decode(text)
    assert transfer.data == b'12"a\\\x01\x0212\n\r\t\v\f\x1b\x07\x9c'


def test_halves_are_joined_per_process() -> None:
    """A read split by another process's lines is one transfer on the descriptor of its first half."""
    text = (
        b"[pid 1] read(4,  <unfinished ...>\n"
        b"[pid 2] read(5, <unfinished ...>\n"
        b'[pid 2] <... read resumed>"\\x02", 1) = 1\n'
        b'[pid 1] <... read resumed> "\\x00\\x01", 171) = 2\n'
    )
    transfers, counts = decode(text)
    assert [(t.process, t.descriptor, t.data) for t in transfers] == [(2, 5, b"\x02"), (1, 4, b"\x00\x01")]
    assert counts == Counter(lines=4)


def test_split_write_keeps_the_bytes_of_its_first_half() -> None:
    """A write shows its bytes when it begins and its result when it resumes."""
    text = b'[pid 1] write(4, "\\x01\\x02", 2 <unfinished ...>\n[pid 1] <... write resumed> ) = 2\n'
    transfers, counts = decode(text)
    assert transfers == [Transfer(1, 4, written=True, data=b"\x01\x02", complete=True, stamped_at_ns=None)]
    assert counts == Counter(lines=2)


def test_resumed_half_carries_the_stamp_of_its_end() -> None:
    """The time of a split read is that of the half that brought the bytes."""
    text = (
        b'1795331980.000000 read(4,  <unfinished ...>\n1795331981.000000 <... read resumed> "\\x00", 1) = 1\n'
    )
    (transfer,), _ = decode(text)
    assert transfer.stamped_at_ns == 1_795_331_981 * 10**9


def test_half_whose_end_was_lost_is_given_up_by_the_next_call() -> None:
    """A process has no two calls at once, so its next whole call shows that a transfer was lost."""
    text = b'[pid 1] read(4,  <unfinished ...>\n[pid 1] write(4, "\\x01", 1) = 1\n'
    transfers, counts = decode(text)
    assert transfers == [UNREADABLE, Transfer(1, 4, True, b"\x01", True, None)]
    assert counts["unmatched_halves"] == 1


def test_line_joined_to_the_rest_of_another_is_unreadable() -> None:
    """Where a connection tore, a read's beginning and a whole write are not one read."""
    transfers, _ = decode(b'read(4</dev67.67 write(4</dev/ttyS1>, "\\x01", 1) = 1\n')
    assert transfers == [UNREADABLE]


def test_string_cut_by_s_is_not_complete() -> None:
    """Data that strace cut is marked, and counted."""
    (transfer,), counts = decode(b'read(4, "\\x01\\x02"..., 64) = 64\n')
    assert (transfer.data, transfer.complete) == (b"\x01\x02", False)
    assert counts["cut_strings"] == 1


def test_partial_write_moves_what_its_result_says() -> None:
    """The bytes beyond the result of a write were not written."""
    (transfer,), _ = decode(b'write(4, "\\x01\\x02\\x03", 3) = 2\n')
    assert (transfer.data, transfer.complete) == (b"\x01\x02", True)


COUNTED_LINES = {
    "failed_calls": [
        b"read(4, 0x7f93b6f99910, 1) = -1 EAGAIN (Resource temporarily unavailable)",
        b'read(4, "", 1)        = 0',
        b"read(4, 0x7ffe, 2)                      = ? ERESTARTSYS (To be restarted if SA_RESTART is set)",
        b"read(4, <0x7ffe>, 2) = ?",
    ],
    "notices": [
        b"strace: Process 28577 attached",
        b"/root/strace: attach: ptrace(PTRACE_SEIZE, 1): Operation not permitted",
        b"[pid 28577] +++ exited with 0 +++",
        b"--- SIGALRM {si_signo=SIGALRM, si_code=SI_KERNEL} ---",
        b"Process 28577 detached",
    ],
    "other_calls": [b"poll([{fd=4, events=POLLIN}], 1, 1000) = 1", b"[pid 1] <... poll resumed>) = 1"],
    "unrecognised_lines": [
        *(b"hello", b"GET / HTTP/1.1", b"\xff\xfe", b'read(x, "", 1) = 1', b"write("),
        # Bytes that strace would have escaped, and more of them than were read: parts of two lines.
        *(b'read(4, "\xff\\x01", 2) = 2', b'read(4, "a\tb", 3) = 3', b'read(4, "\\x01\\x02", 2) = 1'),
        *(
            b'read(4, "\\x01", 1) = 1\xff", 8) = 8',
            b'read(4, "\\x01", 1) = 1 <0.000042> 8',
            b'read(4, "a", 1) = 1)',
        ),
    ],
    "unmatched_halves": [b'<... read resumed> "\\x00", 171) = 1', b"read(4,  <unfinished ...>"],
    "overlong_lines": [b"x" * 70_000],
}


@pytest.mark.parametrize(
    ("reason", "line"), [(r, line) for r, lines in COUNTED_LINES.items() for line in lines]
)
def test_line_without_bytes_is_counted(reason: str, line: bytes) -> None:
    """A line that moves nothing is counted once, by its reason, and said to be unreadable where it is."""
    transfers, counts = decode(line + b"\n")
    readable = reason in {"failed_calls", "notices", "other_calls"} or b"unfinished" in line
    assert transfers == ([] if readable else [UNREADABLE])
    assert counts == Counter({"lines": 1, reason: 1})


def test_half_a_line_at_the_end_is_counted() -> None:
    """What a broken connection leaves of a line is no transfer."""
    assert decode(b'write(4, "\\x01", 1) = 1') == ([], Counter(torn_lines=1))


def test_begun_calls_are_bounded() -> None:
    """A stream of begun calls by ever new processes does not grow the decoder."""
    counts: Counter[str] = Counter()
    decoder = SyscallDecoder(counts)
    decoder.feed(b"".join(b"[pid %d] read(4,  <unfinished ...>\n" % process for process in range(1000)))
    assert counts["unmatched_halves"] == 1000 - MAX_BEGUN_CALLS


def test_endless_line_is_bounded() -> None:
    """A line that never ends is dropped while it comes, and reading goes on after it."""
    counts: Counter[str] = Counter()
    decoder = SyscallDecoder(counts, max_line_bytes=1000)
    for _ in range(1000):
        assert all(transfer == UNREADABLE for transfer in decoder.feed(b"x" * 999))
        assert len(decoder._tail) <= 1000
    assert len(decoder.feed(b'\nwrite(4, "\\x01", 1) = 1\n')) == 1
    assert counts["overlong_lines"] == 1


SAMPLE = b"".join(line % REQUEST_HEX + b"\n" for line, _ in DIALECTS.values()) + b"".join(
    line + b"\n" for lines in COUNTED_LINES.values() for line in lines
)


@given(st.lists(st.integers(0, len(SAMPLE)), max_size=30))
def test_any_split_gives_the_same_transfers(cuts: list[int]) -> None:
    """How TCP cuts the text changes neither transfers nor counts."""
    counts: Counter[str] = Counter()
    decoder = SyscallDecoder(counts)
    edges = [0, *sorted(cuts), len(SAMPLE)]
    transfers = [transfer for start, end in pairwise(edges) for transfer in decoder.feed(SAMPLE[start:end])]
    decoder.finish()
    assert (transfers, +counts) == decode(SAMPLE)


@given(st.lists(st.binary(max_size=300)))
def test_arbitrary_bytes_never_raise(chunks: list[bytes]) -> None:
    """Nothing that a connection sends can raise."""
    decoder = SyscallDecoder(Counter())
    for chunk in chunks:
        decoder.feed(chunk)
    decoder.finish()


PIECES = st.sampled_from(
    [b"read(", b"write(", b"4", b", ", b'"', b"\\x0", b"\\", b"1", b" ", b")", b"= ", b"-1 ", b"[pid ",
     b"] ", b"<... read resumed>", b"<unfinished ...>", b"...", b"1795331980.362519 ", b"\n", b"\r\n",
     b"<", b">", b"?"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=60).map(b"".join))
def test_text_that_looks_like_strace_never_raises(text: bytes) -> None:
    """Nor can anything put together from strace's own words."""
    transfers, _ = decode(text + b"\n")
    assert all(len(transfer.data) > 0 or not transfer.complete for transfer in transfers)


@pytest.mark.parametrize(
    "shape",
    [b"[pid 1]" + b" " * 60_000, b"1" + b" " * 60_000, b'read(4, "' + b"\\x00" * 15_000, b"(" * 60_000,
     b'read(4, "' + b"a" * 60_000, b'read(4, "\\x00", 1)' + b" " * 60_000, b"read(" + b") = " * 15_000,
     b"read(4" + b"<" * 60_000, b"[pid 1" + b"<" * 60_000, b"1.5" * 20_000,
     b'read(4, "' + b"\\x00" * 1_000 + b"\\1" * 900, b'read(4, "\\1" ' * 5_000],
)  # fmt: skip
def test_no_line_makes_a_pattern_backtrack(shape: bytes) -> None:
    """A long odd line costs about as much as a long plain one: far from the seconds of backtracking."""
    code = (
        "import sys,resource\nfrom collections import Counter\n"
        "from recorder.strace.runs import RunDecoder\n"
        "resource.setrlimit(resource.RLIMIT_CPU,(5,5))\n"
        "RunDecoder(Counter()).feed_runs(sys.stdin.buffer.read()*20)\n"
    )
    subprocess.run([sys.executable, "-c", code], input=shape + b"\n", check=True, cwd=Path.cwd())


@pytest.mark.parametrize(
    "options", ["-xx -ttt", "-x -tt", "", "-r -T", "-xx -y -ttt -f", "-xx -yy -t", "-Y -f"]
)
def test_real_strace_is_understood(options: str, tmp_path: Path) -> None:
    """Bytes of every value, moved by a real process under the real strace, come out as they were."""
    payload = bytes(range(256)) + b'0"\\1' + bytes(range(255, -1, -1))
    program = (
        "import os, sys\n"
        "payload = bytes.fromhex(sys.argv[1])\n"
        "receiving, sending = os.pipe()\n"
        "os.dup2(receiving, 60), os.dup2(sending, 61)\n"
        "os.write(61, payload)\n"
        "while payload:\n"
        "    piece = os.read(60, 1 + len(payload) // 3)\n"
        "    payload = payload[len(piece):]\n"
    )
    output = tmp_path / "trace"
    command = ["strace", *options.split(), "-s", "1024", "-e", "trace=read,write", "-o", str(output)]
    subprocess.run([*command, sys.executable, "-c", program, payload.hex()], check=True, env=os.environ)
    transfers, counts = decode(output.read_bytes())
    assert b"".join(t.data for t in transfers if t.descriptor == 61 and t.written) == payload
    assert b"".join(t.data for t in transfers if t.descriptor == 60 and not t.written) == payload
    assert counts["unrecognised_lines"] == 0

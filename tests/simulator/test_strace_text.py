"""Dialects: the same calls, written as the real strace writes them."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.modbus.frames import read_request, read_response
from recorder.simulator.polls import Master, Poll
from recorder.simulator.strace_text import DIALECTS, Call, Dialect, Remark, StraceText, calls_of, quote
from recorder.strace.syscalls import SyscallDecoder
from tests.support.influxd import TIMEOUT_SECONDS

NOW_NS = 1_700_000_000_000_000_000
READ_END, WRITE_END, SIDE_READ_END, SIDE_WRITE_END = 40, 41, 42, 43
# Bytes, and how many the reader asks for: octal escapes before digits, letters, quotes, and a lone NUL.
PIECES = [
    (b"\x01\x03\x9c\x72\x00\x5c\xcb\xb8", 8),
    (b"\x00", 2),
    (b'a\x001\x008\x0212\x7f\xff\x1b\\"\n\r\t\v\f7', 64),
    (b"hello", 64),
    (b"tabs\tand\nlines", 171),
    (bytes(range(48, 112)), 105),
]
CHILD = f"""
import os
pieces = {PIECES!r}
r, w = os.pipe(); os.dup2(r, {READ_END}); os.dup2(w, {WRITE_END})
r, w = os.pipe(); os.dup2(r, {SIDE_READ_END}); os.dup2(w, {SIDE_WRITE_END})
def work():
    for data, size in pieces:
        os.write({WRITE_END}, data)
        os.read({READ_END}, size)
if os.environ.get("FORK"):
    child = os.fork()
    if child == 0:
        os.read({SIDE_READ_END}, 9)
        os._exit(0)
    work()
    while open(f"/proc/{{child}}/stat").read().rpartition(") ")[2][0] != "S":
        pass  # until it sleeps in its read
    os.write({SIDE_WRITE_END}, b"\\x01\\x02")
    os.waitpid(child, 0)
else:
    work()
"""
OF_INTEREST = re.compile(rf"(read|write)\(({READ_END}|{WRITE_END}|{SIDE_READ_END})\b|<\.\.\. read resumed>")


def _traced(options: list[str], where: Path, *, fork: bool = False) -> list[str]:
    """Run the child under the real strace, and give the lines about its pipes."""
    command = [
        "strace",
        *options,
        "-s",
        "1024",
        "-e",
        "trace=read,write",
        sys.executable,
        "-I",
        "-S",
        "-c",
        CHILD,
    ]
    environment = {**os.environ, **({"FORK": "1"} if fork else {})}
    run = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, timeout=TIMEOUT_SECONDS
    )
    text = where.read_text() if where.exists() else run.stderr
    return [line for line in text.splitlines() if OF_INTEREST.search(line)]


def _calls(process: int) -> list[Call | Remark]:
    calls: list[Call | Remark] = []
    for data, size in PIECES:
        calls.append(Call(process, NOW_NS, 0, WRITE_END, True, data, len(data), len(data)))
        calls.append(Call(process, NOW_NS, 0, READ_END, False, data, size, len(data)))
    return calls


def _rendered(dialect: Dialect, items: list[Call | Remark], split_rate: float = 0.0) -> list[str]:
    writer = StraceText(dialect, Random(1), split_rate)
    return [line.text.decode().rstrip("\r\n") for line in writer.render(items)]


def _masked(lines: list[str]) -> list[str]:
    """Replace what differs between two runs: stamps and durations, digit by digit."""
    stamp, duration = re.compile(r"^ *\d[\d:.]* "), re.compile(r"<0\.\d{6}>$")
    return [
        duration.sub("<N>", stamp.sub(lambda match: re.sub(r"\d", "N", match[0]), line)) for line in lines
    ]


@pytest.mark.parametrize(
    ("options", "dialect"),
    [
        (["-xx"], Dialect()),
        (["-x"], Dialect(strings="x")),
        ([], Dialect(strings="c")),
        (["-xx", "-t"], Dialect(stamp="t")),
        (["-xx", "-tt"], Dialect(stamp="tt")),
        (["-xx", "-ttt"], Dialect(stamp="ttt")),
        (["-xx", "-r"], Dialect(stamp="r")),
        (["-xx", "-T"], Dialect(durations=True)),
        (["-ttt", "-T"], Dialect(stamp="ttt", durations=True, strings="c")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_lines_are_those_of_the_real_strace(options: list[str], dialect: Dialect, tmp_path: Path) -> None:
    """Character by character, spaces included, but for the figures of stamps and durations."""
    real = _traced(options, tmp_path / "none")
    lines = _rendered(_without_prefix(dialect), _calls(1))
    assert _masked(real) == _masked(lines)


def _without_prefix(dialect: Dialect) -> Dialect:
    return Dialect("none", dialect.stamp, dialect.strings, durations=dialect.durations, modern=True)


def test_a_file_names_the_process_at_the_start_of_each_line(tmp_path: Path) -> None:
    """The prefix of `-f -o` is the real one."""
    output = tmp_path / "out"
    real = _traced(["-f", "-xx", "-o", str(output)], output)
    process = int(real[0].split()[0])
    assert real == _rendered(DIALECTS["file"], _calls(process))


def test_paths_under_xx_are_in_hex(tmp_path: Path) -> None:
    """With `-y -xx` the real strace 6 writes the path of a descriptor in hex, and so does the dialect."""
    real = _traced(["-y", "-xx"], tmp_path / "none")[0]
    (line, *_) = _rendered(DIALECTS["hex-paths"], _calls(12345))
    shape = re.compile(r"write\(41<(?:\\x[0-9a-f]{2})+>, \"(?:\\x[0-9a-f]{2}){8}\", 8\) = 8$")
    assert shape.search(real)
    assert shape.search(line)


def test_halves_are_those_of_the_real_strace(tmp_path: Path) -> None:
    """A call that another process interrupts is written in the same two halves."""
    real = _traced(["-f", "-xx"], tmp_path / "none", fork=True)
    (begun,) = (line for line in real if f"read({SIDE_READ_END}" in line)
    (resumed,) = (line for line in real if "resumed" in line and '"\\x01\\x02"' in line)
    process = int(begun.split("]")[0].removeprefix("[pid "))
    between = Call(1, 5_000_000, 0, SIDE_WRITE_END, True, b"\x01\x02", 2, 2)
    split = Call(process, 6_000_000, 0, SIDE_READ_END, False, b"\x01\x02", 9, 2)
    first, _, last = _rendered(DIALECTS["modern"], [between, split], split_rate=1.0)
    assert (first, last) == (begun, resumed)


def test_the_old_resumed_line_has_a_space() -> None:
    """Before strace 5 a space stood between `resumed>` and the string, as in captures of the controller."""
    between = Call(1, 5_000_000, 0, 4, True, b"\x01", 1, 1)
    split = Call(28577, 6_000_000, 0, 4, False, b"\x00\x00", 171, 2)
    _, _, last = _rendered(DIALECTS["capture"], [between, split], split_rate=1.0)
    assert last == r'[pid 28577] <... read resumed> "\x00\x00", 171) = 2'


def test_crlf_ends_every_line() -> None:
    """In the `crlf` dialect each line ends with a carriage return and a line feed."""
    lines = StraceText(DIALECTS["crlf"], Random(1)).render(_calls(1234))
    assert all(line.text.endswith(b"\r\n") for line in lines)


def test_a_cut_string_is_marked() -> None:
    """Bytes that -s cut away leave three dots after the quote."""
    (line,) = _rendered(Dialect("none"), [Call(1, 0, 0, 4, False, b"\x01\x02\x03", 9, 2)])
    assert line == r'read(4, "\x01\x02"..., 9)'.ljust(39) + " = 3"


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_decodes_to_the_same_bytes(name: str) -> None:
    """The recorder's decoder finds the same transfers, whole, in every dialect."""
    decoder = SyscallDecoder(Counter())
    text = b"".join(line.text for line in StraceText(DIALECTS[name], Random(1)).render(_calls(1234)))
    transfers = [transfer for transfer in decoder.feed(text) if transfer.descriptor >= 0]
    assert [transfer.data for transfer in transfers] == [data for data, _ in PIECES for _ in range(2)]


@given(data=st.binary(max_size=80), strings=st.sampled_from(["xx", "x", "c"]))
def test_any_bytes_survive_quoting(data: bytes, strings: str) -> None:
    """What is quoted is read back by Python's own rules for escapes."""
    quoted = quote(data, strings)  # type: ignore[arg-type]
    assert quoted.encode().decode("unicode_escape").encode("latin-1") == data


@given(seed=st.integers(), registers=st.integers(1, 125))
def test_chunks_join_to_the_answer(seed: int, registers: int) -> None:
    """The header is read apart, each count shrinks by what came, and no piece is above 64 bytes."""
    response = read_response(1, 3, bytes(2 * registers))
    poll = Poll("pcs", Master(1, 4), 0, read_request(1, 3, 0, registers), response, 0, 200_000_000)
    written, *reads = calls_of(poll, 0, Random(seed))
    assert written.data == poll.request
    assert b"".join(read.data for read in reads) == response
    assert reads[-1].at_ns == poll.answered_at_ns
    body = [read for read in reads if read.size > 2 or read is reads[-1]]
    for read in reads:
        assert 1 <= len(read.data) <= min(64, read.size)
    assert body[0].size == len(response) - 3


def test_a_pcs_answer_takes_about_as_many_reads_as_in_reality() -> None:
    """Most answers of 189 bytes come in 15 to 45 reads."""
    poll = Poll("pcs", Master(1, 4), 0, bytes(8), bytes(189), 0, 200_000_000)
    counts = [len(calls_of(poll, 0, Random(seed))) - 1 for seed in range(200)]
    assert 15 <= sorted(counts)[20] <= sorted(counts)[180] <= 45

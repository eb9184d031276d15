"""Modbus masters on a bus with late responses, and an oracle that knows whose each value is.

`python -m tests.modbus.masters [--seeds N] [--scans N] [--jobs N] [NAME...]` plays every model, prints a
table and ends with 1 if a value was stored under another register's name. It is written from the outside: it
knows frames, how masters read them and how strace prints that, and nothing of the recorder but `Pipeline`.

Each value names its owner: raw % 7 is the number of its poll, raw // 7 counts the poll's requests.
"""

import argparse
import heapq
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from random import Random
from typing import Final, Literal

from rich.console import Console

from recorder.pipeline import Pipeline
from recorder.points.site import Site
from recorder.profiles.catalogue import Catalogue
from recorder.profiles.model import Profile, Register

POLLS: Final = (
    (0x5000, 4), (0x5004, 4), (0x5B00, 2), (0x5B02, 2), (0x5B04, 2), (0x5B14, 2), (0x5B2C, 1),
)  # fmt: skip
NAMES: Final = ("active_import", "active_export", "v1", "v2", "v3", "active_power", "frequency")
# Far below the range of each register, and far above the requests that can be under way.
CYCLE: Final = 700
START_S: Final = 1_781_780_400
TIMEOUT_S: Final = 0.2


@dataclass(frozen=True)
class Model:
    """A master, its device, and how the stream of its strace looks.

    Shares are per response. `exact` reads a header and then what is left of its frame, as the controller's
    programs do; else all that is there. A frame arrives at once, or takes `byte_s` a byte, so that a flush
    may leave its end. `clears` masters drop what is there to read before each scan. `fifo` responses never
    overtake others. A `busy` device ignores a request that comes before it has sent its last response.
    Polls are spread over a second, or follow each other at its beginning (`burst`: a late response waits to
    be read until the next scan), or scans follow each other without a pause (`back_to_back`). `cut`
    streams begin at any point, `rename` gives and takes the `[pid]` prefix at any point.
    """

    behaviour: Literal["listen", "abort", "flush"] = "listen"
    retries: int = 0
    late: float = 0.01
    late_exceptions: float = 0.0
    exceptions: float = 0.0
    lost: float = 0.0
    corrupt: float = 0.0
    busy: bool = False
    fifo: bool = False
    exact: bool = True
    byte_s: float = 0.0
    clears: bool = False
    back_to_back: bool = False
    burst: bool = False
    polls: tuple[tuple[int, int], ...] = POLLS
    stamps: bool = True
    unreadable: float = 0.0
    rename: float = 0.0
    cut: bool = True
    assume_in_step: bool = False


@dataclass
class Truth:
    """What the master accepted: the poll asked, and the one whose response it was, with its count."""

    accepted: list[tuple[int, int, int]] = field(default_factory=list)


_CRC_TABLE: Final = []
for _index in range(256):
    _remainder = _index
    for _ in range(8):
        _remainder = _remainder >> 1 ^ (0xA001 if _remainder & 1 else 0)
    _CRC_TABLE.append(_remainder)


def framed(data: bytes) -> bytes:
    """Return data with its CRC-16 of Modbus RTU, low byte first."""
    remainder = 0xFFFF
    for byte in data:
        remainder = remainder >> 8 ^ _CRC_TABLE[(remainder ^ byte) & 0xFF]
    return data + remainder.to_bytes(2, "little")


@dataclass(order=True)
class Frame:
    """A response on its way: when its first byte arrives, its bytes, and whose it is."""

    at_s: float
    number: int
    data: bytes = field(compare=False)
    owner: tuple[int, int] = field(compare=False)


class Device:
    """Answers requests late, twice never, or not at all; the wire carries one byte at a time."""

    def __init__(self, model: Model, random: Random) -> None:
        self.model = model
        self.random = random
        self.coming: list[Frame] = []
        self.arrived: list[tuple[float, int, Frame]] = []
        self.asked = [0] * len(model.polls)
        self._number = 0
        self._busy_until_s = 0.0
        self._latest_s = 0.0
        self._wire_free_s = 0.0

    def ask(self, poll: int, now_s: float) -> None:
        model, random = self.model, self.random
        count = self.asked[poll] % CYCLE
        self.asked[poll] += 1
        if model.busy and now_s < self._busy_until_s:
            return
        if random.random() < model.lost:
            return
        fast = model.back_to_back or model.burst
        delay_s = random.uniform(0.02, 0.05) if fast else random.uniform(0.045, 0.075)
        late = random.random() < model.late
        if late:
            delay_s = random.uniform(0.2, 0.5)
        words = model.polls[poll][1]
        refused = random.random() < (model.late_exceptions if late else model.exceptions)
        if refused:
            data = framed(b"\x01\x83\x06")
        else:
            value = 7 * count + poll
            data = framed(bytes((1, 3, 2 * words)) + value.to_bytes(2 * words))
        if random.random() < model.corrupt:
            at = random.randrange(len(data))
            data = data[:at] + bytes((data[at] ^ random.randrange(1, 256),)) + data[at + 1 :]
        at_s = now_s + delay_s
        if model.fifo or model.busy:
            at_s = max(at_s, self._latest_s)
            self._latest_s = at_s
        self._busy_until_s = at_s
        self._number += 1
        heapq.heappush(self.coming, Frame(at_s, self._number, data, (-1 if refused else poll, count)))

    def advance(self, now_s: float) -> None:
        """Let bytes arrive up to a time."""
        while self.coming and self.coming[0].at_s <= now_s:
            frame = heapq.heappop(self.coming)
            start_s = max(frame.at_s, self._wire_free_s)
            for index in range(len(frame.data)):
                self.arrived.append((start_s + index * self.model.byte_s, index, frame))
            self._wire_free_s = start_s + len(frame.data) * self.model.byte_s

    def available(self, now_s: float) -> int:
        self.advance(now_s)
        number = 0
        while number < len(self.arrived) and self.arrived[number][0] <= now_s:
            number += 1
        return number

    def next_at_s(self) -> float | None:
        """When the next byte comes, None where none is on its way."""
        if self.arrived:
            return self.arrived[0][0]
        return max(self.coming[0].at_s, self._wire_free_s) if self.coming else None

    def take(self, number: int) -> list[tuple[float, int, Frame]]:
        taken = self.arrived[:number]
        del self.arrived[:number]
        return taken


class Master:
    """Polls the device and writes what strace would print."""

    def __init__(self, model: Model, random: Random, scans: int) -> None:
        self.model = model
        self.random = random
        self.device = Device(model, random)
        self.now_s = 0.0
        self.truth = Truth()
        self.scans = scans
        self.lines: list[tuple[float, str]] = []
        # What was accepted, with the line behind which it was: a stream that begins later does not show it.
        self.accepted_at: list[int] = []
        self.requests = [
            framed(bytes((1, 3)) + address.to_bytes(2) + words.to_bytes(2)) for address, words in model.polls
        ]

    def run(self) -> None:
        for scan in range(self.scans):
            if not self.model.back_to_back:
                self.now_s = max(self.now_s, scan * 1.0)
            begin_s = self.now_s
            if self.model.clears:
                self.device.take(self.device.available(self.now_s))
            for poll in range(len(self.model.polls)):
                if not (self.model.back_to_back or self.model.burst):
                    self.now_s = max(self.now_s, begin_s + poll * 0.13 + self.random.uniform(0, 0.009))
                for _ in range(self.model.retries + 1):
                    if self.exchange(poll):
                        break
                self.now_s += self.random.uniform(0.0005, 0.003)

    def exchange(self, poll: int) -> bool:
        """Ask once, and read as this master does; whether it got what looks like its response."""
        self.call("write", self.requests[poll])
        self.device.ask(poll, self.now_s)
        deadline_s = self.now_s + TIMEOUT_S
        words = self.model.polls[poll][1]
        done = (
            self.read_exact(poll, words, deadline_s)
            if self.model.exact
            else self.read_all(poll, words, deadline_s)
        )
        if not done and self.model.behaviour == "flush":
            self.now_s += 0.05
            self.device.take(self.device.available(self.now_s))
        return done

    def read_exact(self, poll: int, words: int, deadline_s: float) -> bool:
        while True:
            header = self.read(3, deadline_s)
            if len(header) < 3:
                return False
            data = bytes(frame.data[index] for _, index, frame in header)
            length = 5 if data[1] & 0x80 else 5 + data[2]
            rest = self.read(length - 3, deadline_s)
            if len(rest) < length - 3:
                return False
            data += bytes(frame.data[index] for _, index, frame in rest)
            verdict = self.judge(poll, words, data, rest[-1][2].owner)
            if verdict is not None:
                return verdict
            if self.model.behaviour != "listen":
                return False

    def read_all(self, poll: int, words: int, deadline_s: float) -> bool:
        """Read whatever is there, and look for frames in it; what is behind the own frame is dropped."""
        held: list[tuple[float, int, Frame]] = []
        while True:
            at_s = self.device.next_at_s()
            if at_s is None or at_s > deadline_s:
                self.now_s = max(self.now_s, deadline_s)
                return False
            # Wait a moment, so that several bytes come in one read.
            self.now_s = max(self.now_s, at_s) + self.random.choice((0.0005, 0.004, 0.02))
            taken = self.device.take(self.device.available(self.now_s))
            if not taken:
                continue
            self.call("read", bytes(frame.data[index] for _, index, frame in taken))
            held += taken
            while len(held) >= 5:
                data = bytes(frame.data[index] for _, index, frame in held)
                length = 5 if data[1] & 0x80 else 5 + data[2]
                if len(data) < length:
                    break
                owner = held[length - 1][2].owner
                verdict = self.judge(poll, words, data[:length], owner)
                del held[:length]
                if verdict is not None:
                    return verdict
                if self.model.behaviour != "listen":
                    return False

    def judge(self, poll: int, words: int, data: bytes, owner: tuple[int, int]) -> bool | None:
        """Tell whether a frame is the response (True), an exception (False), or does not fit (None)."""
        if framed(data[:-2]) != data:
            return None
        if data[:3] == bytes((1, 3, 2 * words)):
            self.truth.accepted.append((poll, *owner))
            self.accepted_at.append(len(self.lines))
            return True
        return False if data[:2] == b"\x01\x83" else None

    def read(self, wanted: int, deadline_s: float) -> list[tuple[float, int, Frame]]:
        """Read so many bytes in pieces of random size, or fewer by the deadline."""
        got: list[tuple[float, int, Frame]] = []
        while len(got) < wanted:
            at_s = self.device.next_at_s()
            if at_s is None or at_s > deadline_s:
                self.now_s = max(self.now_s, deadline_s)
                break
            pause_s = 0.02 if self.random.random() < 0.7 else self.random.uniform(0, 0.004)
            self.now_s = max(self.now_s, at_s + min(pause_s, (wanted - len(got)) * self.model.byte_s))
            taken = self.device.take(min(wanted - len(got), self.device.available(self.now_s)))
            if taken:
                self.call("read", bytes(frame.data[index] for _, index, frame in taken))
                got += taken
        return got

    def call(self, name: str, data: bytes) -> None:
        string = "\\x" + data.hex("|").replace("|", "\\x")
        size = len(data) if name == "write" else max(len(data), 1)
        self.lines.append((self.now_s, f'{name}(4, "{string}", {size}) = {len(data)}'))
        self.now_s += 0.0001


def stream(model: Model, master: Master, random: Random) -> tuple[list[bytes], int]:
    """Return the lines as strace prints them from where the stream begins, and the number of the first."""
    first = random.randrange(max(1, len(master.lines) // 4)) if model.cut else 0
    named = random.random() < 0.5
    lines = []
    for at_s, text in master.lines[first:]:
        if model.rename and random.random() < model.rename:
            named = not named
        stamp = f"{START_S + at_s:.6f} " if model.stamps else ""
        line = f"{'[pid  8193] ' if named else ''}{stamp}{text}\n".encode()
        if model.unreadable and random.random() < model.unreadable:
            line = line[: random.randrange(1, len(line) - 12)] + b"~\xff~" + b"\n"
        lines.append(line)
    return lines, first


def catalogue(polls: tuple[tuple[int, int], ...]) -> Catalogue:
    """Return the profile of the meter, with a value of full range for each poll."""
    types = {4: "u64", 2: "u32", 1: "u16"}
    registers = tuple(
        Register(address, name, types[words], Fraction(1))  # type: ignore[arg-type]
        for (address, words), name in zip(polls, NAMES, strict=False)
    )
    return Catalogue(
        [
            Profile(
                "meter",
                "meter",
                "meter",
                1,
                3,
                registers,
                point_per="scan",
                scan_closed_by=registers[-1].name,
            )
        ]
    )


@dataclass
class Result:
    """What came of a run: values that were good for the master, those stored of them, and wrong ones."""

    good: int = 0
    stored: int = 0
    wrong: int = 0
    bad: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Result") -> None:
        self.good += other.good
        self.stored += other.stored
        self.wrong += other.wrong
        self.bad += other.bad
        self.counts.update(other.counts)


def play(model: Model, seed: int, scans: int) -> Result:
    """Play a master, decode its stream in random pieces, and compare each value with its owner."""
    random = Random(seed)
    master = Master(model, random, scans)
    master.run()
    lines, first = stream(model, master, random)
    known = catalogue(model.polls)
    pipeline = Pipeline(known, Site("home", known.profiles), assume_in_step=model.assume_in_step)
    found: list[list[int]] = [[] for _ in model.polls]
    result = Result()
    pieces = pieces_of(lines, random)
    points = [point for piece in pieces for point in pipeline.feed(piece, None)] + pipeline.finish()
    for point in points:
        for name, value in point.fields.items():
            poll = NAMES.index(name)
            if int(value) % 7 != poll:
                result.wrong += 1
            else:
                found[poll].append(int(value) // 7)
    shown = [entry for entry, at in zip(master.truth.accepted, master.accepted_at, strict=True) if at > first]
    for poll in range(len(model.polls)):
        good = [count for asked, owner, count in shown if asked == poll == owner]
        result.good += len(good)
        result.stored += in_order(found[poll], good)
    result.bad = sum(asked != owner for asked, owner, _ in shown)
    result.counts = +pipeline.counts
    return result


def in_order(found: list[int], good: list[int]) -> int:
    """Count the values that were stored in the order in which the master got them."""
    at = matched = 0
    for count in found:
        for ahead in range(at, min(at + CYCLE // 2, len(good))):
            if good[ahead] == count:
                at, matched = ahead + 1, matched + 1
                break
    return matched


def pieces_of(lines: list[bytes], random: Random) -> Iterator[bytes]:
    """Cut the text as a network does."""
    text = b"".join(lines)
    start = 0
    while start < len(text):
        size = random.randrange(1, 20_000)
        yield text[start : start + size]
        start += size


ALIKE: Final = ((0x5B00, 2), (0x5B02, 2), (0x5B04, 2), (0x5B14, 2))


def models() -> dict[str, Model]:
    """Return every model by its name."""
    table: dict[str, Model] = {}
    for late in (0.01, 0.10):
        for behaviour in ("listen", "abort", "flush"):
            for retries in (0, 1, 2):
                base = Model(behaviour, retries, late)
                table[f"{behaviour}, {retries} retries, {late:.0%} late"] = base
                table[f"{behaviour}, {retries} retries, {late:.0%} late, clears"] = replace(base, clears=True)
                table[f"{behaviour}, {retries} retries, {late:.0%} late, byte by byte"] = replace(
                    base, byte_s=11 / 9600
                )
                table[f"{behaviour}, {retries} retries, {late:.0%} late, burst"] = replace(base, burst=True)
                # A stream that begins between a failure and a loss cannot be told: docs/late-responses.md.
                table[f"{behaviour}, {retries} retries, {late:.0%} late, burst, 1 % lost"] = replace(
                    base, burst=True, lost=0.01, cut=False
                )
        for behaviour in ("listen", "abort", "flush"):
            base = Model(behaviour, 1, late)  # type: ignore[arg-type]
            variants = {
                "late exceptions": replace(base, late_exceptions=0.3, exceptions=0.002),
                "all there is in one read": replace(base, exact=False),
                "responses in order": replace(base, fifo=True),
                "back to back": replace(base, back_to_back=True),
                "back to back, one read": replace(base, back_to_back=True, exact=False, retries=0),
                "without stamps": replace(base, stamps=False),
                "back to back, without stamps": replace(base, back_to_back=True, stamps=False),
                "unreadable lines": replace(base, unreadable=0.002),
                "prefix comes and goes": replace(base, rename=0.002),
                "1 % lost": replace(base, lost=0.01),
                "1 % lost, back to back": replace(base, lost=0.01, back_to_back=True),
                "1 % lost, back to back, no retry": replace(base, lost=0.01, back_to_back=True, retries=0),
                "busy device": replace(base, busy=True),
                "busy device, no retry": replace(base, busy=True, retries=0),
                "busy device, unreadable lines": replace(base, busy=True, unreadable=0.002, retries=0),
                "busy device, prefix comes and goes": replace(base, busy=True, rename=0.002, retries=0),
                "wrong bytes": replace(base, corrupt=0.01),
                "four alike": replace(base, polls=ALIKE),
                "four alike, assumed in step": replace(base, polls=ALIKE, assume_in_step=True, cut=False),
                "everything at once": replace(
                    base, late_exceptions=0.2, exceptions=0.002, lost=0.005, corrupt=0.005, unreadable=0.001,
                    rename=0.0005,
                ),
            }  # fmt: skip
            for name, model in variants.items():
                table[f"{behaviour}, {late:.0%} late: {name}"] = model
    return table


def _play(task: tuple[str, int, int]) -> tuple[str, Result]:
    name, seed, scans = task
    return name, play(models()[name], seed, scans)


def main() -> int:
    """Play the models that the command line names; 1 where a value was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.modbus.masters", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names; default: all models")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--scans", type=int, default=6000)
    parser.add_argument("--jobs", type=int, default=1)
    chosen = parser.parse_args()
    names = [name for name in models() if not chosen.names or any(part in name for part in chosen.names)]
    wrong = 0
    console = Console(width=120, highlight=False)
    console.print(f"{'model':<58}{'good':>10}{'withheld':>10}{'wrong':>7}{'fooled the master':>19}{'s':>6}")
    with ProcessPoolExecutor(chosen.jobs) as pool:
        for name in names:
            began = time.monotonic()
            total = Result()
            seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
            for _, result in pool.map(_play, [(name, seed, chosen.scans) for seed in seeds]):
                total.add(result)
            wrong += total.wrong
            withheld = 1 - total.stored / max(1, total.good)
            took = time.monotonic() - began
            console.print(
                f"{name:<58}{total.good:>10,}{withheld:>10.2%}{total.wrong:>7}{total.bad:>19,}{took:>6.0f}"
            )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

"""A controller, a network and a recorder, each with a clock of its own, and the true time of each sample.

Independent of what it tests: it stamps the text of a simulated site by the controller's clock, lets it wait
in the network and before the recorder, and feeds a `Pipeline` as the service does. What is stored is then
compared with the truth: when the last byte of the sample was read, by the recorder's clock.

`python -m tests.points.clock_model` prints the table of all cases.
"""

import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import NamedTuple

from recorder.pipeline import Pipeline, Shared
from recorder.points.clock import ControllerClock, Sender
from recorder.points.duplicates import DeviceOwners
from recorder.points.offsets import Offsets, Span
from recorder.points.point import Point
from recorder.points.site import Site
from tests.pipeline.test_pipeline import NOON_S, catalogue, record

NS = 10**9
TOLERANCE_S = 2.0
HOUR_S = 3600.0
YEAR_S = 365 * 86400.0
SECONDS = 200
_STAMP = re.compile(rb"(?m)^(\[pid +\d+\] )(\d+)\.(\d{6}) ")

Clock = Callable[[float], float]
"""By how many seconds a clock is ahead, at a true time in seconds since the beginning."""


def constant(seconds: float) -> Clock:
    return lambda _: seconds


def drifting(ppm: float, seconds: float = 0.0) -> Clock:
    return lambda at_s: seconds + at_s * ppm * 1e-6


def steps(*set_to: tuple[float, float]) -> Clock:
    """A clock that is right, and set to be ahead by so much from each time on."""

    def ahead(at_s: float) -> float:
        return ([0.0] + [to_s for since_s, to_s in set_to if since_s <= at_s])[-1]

    return ahead


RIGHT = constant(0)


@dataclass(frozen=True)
class Case:
    """What happens; times are true seconds since the beginning.

    Connections last `connected_s` with `apart_s` in between. In a stall, and before a connection's text is
    first read, nothing arrives. A busy recorder reads only every so often.
    """

    controller: Clock = RIGHT
    own: Clock = RIGHT
    connected_s: float = 1e9
    apart_s: float = 2.0
    stalls: tuple[tuple[float, float], ...] = ()
    first_read_after_s: float = 0.0
    busy_s: float = 0.0
    seconds: int = SECONDS
    begin_s: float = 0.0
    stamped: bool = True


class Chunk(NamedTuple):
    """Text that was read at once; the time is the true one in ns since the beginning."""

    at_ns: int
    connection: int
    text: bytes


@cache
def lines() -> tuple[tuple[int, bytes, bytes], ...]:
    """True time in ns since the beginning, prefix and rest of each line of a simulated site."""
    text, _ = record("ttt", "none", SECONDS, 3)
    found = []
    for line in text.splitlines(keepends=True):
        stamp = _STAMP.match(line)
        assert stamp is not None
        at_ns = (int(stamp[2]) - NOON_S) * NS + int(stamp[3]) * 1000
        found.append((at_ns, stamp[1], line[stamp.end() :]))
    return tuple(found)


@cache
def truth() -> dict[tuple[str, tuple[tuple[str, float], ...]], int]:
    """True times of the samples that are like no other, in ns since the beginning, by device and values."""
    times: defaultdict[tuple[str, tuple[tuple[str, float], ...]], list[int]] = defaultdict(list)
    for sample in record("ttt", "none", SECONDS, 3)[1]:
        times[sample.device, _values(sample.fields)].append(sample.at_ns - NOON_S * NS)
    return {key: found[0] for key, found in times.items() if len(found) == 1}


def _values(fields: dict[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted((name, round(value, 6)) for name, value in fields.items()))


def chunks(case: Case, seed: int) -> Iterator[Chunk]:
    """The text as the recorder reads it."""
    chance = random.Random(seed)
    arrived: list[tuple[int, int, bytes]] = []
    last_ns, busy_until_s = 0, 0.0
    for at_ns, prefix, rest in lines():
        at_s = at_ns / NS
        connection, within_s = divmod(at_s - case.begin_s, case.connected_s + case.apart_s)
        if at_s < case.begin_s or within_s >= case.connected_s or at_s > case.begin_s + case.seconds:
            continue
        began_s = at_s - within_s
        read_s = max(at_s + chance.uniform(0.001, 0.03), began_s + case.first_read_after_s)
        for begin_s, end_s in case.stalls:
            if begin_s <= read_s < end_s:
                read_s = end_s
        if case.busy_s:
            while busy_until_s < read_s:
                busy_until_s += chance.uniform(0, case.busy_s)
            read_s = busy_until_s
        last_ns = max(last_ns, round(read_s * NS))
        stamp_us = round((NOON_S + case.controller(at_s)) * 1e6) + at_ns // 1000
        stamp = b"%d.%06d " % divmod(stamp_us, 1_000_000) if case.stamped else b""
        arrived.append((last_ns, int(connection), prefix + stamp + rest))
    for (read_ns, connection), group in groupby(arrived, lambda one: one[:2]):
        yield Chunk(read_ns, connection, b"".join(text for _, _, text in group))


@dataclass
class Result:
    """What was stored: deviations in seconds by sample, samples stored twice, and steps that were counted."""

    deviations: list[float] = field(default_factory=list)
    duplicates: int = 0
    missing: int = 0
    clock_steps: int = 0
    disorder_s: float = 0.0

    @property
    def farthest_s(self) -> float:
        return max(map(abs, self.deviations), default=0.0)


class Notes:
    """What the recorder notes of offsets, as spans."""

    def __init__(self) -> None:
        self.spans: defaultdict[str, list[Span]] = defaultdict(list)

    def note(self, _site: str, device: str, stamped_at_ns: int, offset_ns: int) -> None:
        spans = self.spans[device]
        if spans and spans[-1].offset_ns == offset_ns:
            spans[-1] = spans[-1]._replace(last_ns=max(stamped_at_ns, spans[-1].last_ns))
        else:
            spans.append(Span(stamped_at_ns, stamped_at_ns, offset_ns))


class Recorder:
    """The clock-related part of the service: pipelines of one site that share what they share there."""

    def __init__(self, own: Clock = RIGHT, notes: Notes | None = None) -> None:
        self.points: list[Point] = []
        self.counts: Counter[str] = Counter()
        self._own = own
        self._ahead_s = own(0.0)
        self._site = Site("home", catalogue().profiles)
        self._owners = DeviceOwners()
        self._senders: dict[str, Sender] = {}
        self._notes = notes
        self._open: dict[object, Pipeline] = {}

    def connect(self, name: object, address: str = "controller") -> None:
        sender = self._senders.setdefault(address, Sender())
        self._open[name] = Pipeline(catalogue(), self._site, shared=Shared(sender, self._owners, self._notes))

    def feed(self, name: object, at_ns: int, text: bytes) -> None:
        self.points += self._open[name].feed(text, self._now_ns(at_ns))

    def expire(self, at_ns: int) -> None:
        for pipeline in self._open.values():
            self.points += pipeline.expire(self._now_ns(at_ns))

    def close(self, name: object) -> None:
        pipeline = self._open.pop(name)
        self.points += pipeline.finish()
        self.counts.update(pipeline.counts)

    def _now_ns(self, at_ns: int) -> int:
        """The time by our clock; that it was set is noticed first, as the service does."""
        was_ahead_s, self._ahead_s = self._ahead_s, self._own(at_ns / NS)
        by_ns = round((self._ahead_s - was_ahead_s) * NS)
        if by_ns:
            for sender in self._senders.values():
                sender.clock_was_set(by_ns)
            for pipeline in self._open.values():
                pipeline.clock_was_set(by_ns)
            self._site.clock_was_set(by_ns)
            self._owners.clock_was_set(by_ns)
        return NOON_S * NS + round(self._ahead_s * NS) + at_ns


def run(case: Case, seed: int = 0, notes: Notes | None = None) -> tuple[Recorder, list[Chunk]]:
    """Feed a case to a recorder; the connections are one after the other."""
    recorder, connection, next_expire_ns = Recorder(case.own, notes), None, 0
    fed = list(chunks(case, seed))
    for chunk in fed:
        while next_expire_ns < chunk.at_ns:
            # A recorder that is too busy to read is too busy for this, too.
            if not case.busy_s:
                recorder.expire(next_expire_ns)
            next_expire_ns += NS
        if chunk.connection != connection:
            if connection is not None:
                recorder.close(connection)
            connection = chunk.connection
            recorder.connect(connection)
        recorder.feed(connection, chunk.at_ns, chunk.text)
    recorder.close(connection)
    return recorder, fed


def compare(recorder: Recorder, case: Case, expected_samples: int) -> Result:
    """Compare what was stored with the truth; samples are known by their values."""
    result = Result(clock_steps=recorder.counts["clock_steps"])
    found: Counter[tuple[str, tuple[tuple[str, float], ...]]] = Counter()
    newest: dict[str, int] = {}
    expected = truth()
    for point in recorder.points:
        if point.measurement == "flow":
            continue
        assert point.time_ns is not None
        at_ns = point.time_ns - NOON_S * NS
        key = (point.measurement, _values(point.fields))
        if key not in expected:
            continue
        # Where our clock was set while a sample was on its way, it may have either time.
        true_ns = expected[key]
        offs_s = [(at_ns - true_ns) / NS - case.own(true_ns / NS + later_s) for later_s in (0.0, 1.0, 60.0)]
        result.deviations.append(min(offs_s, key=abs))
        found[key] += 1
        if not case.own(case.seconds):
            result.disorder_s = max(result.disorder_s, (newest.get(point.measurement, at_ns) - at_ns) / NS)
        newest[point.measurement] = max(at_ns, newest.get(point.measurement, at_ns))
    result.duplicates = sum(count - 1 for count in found.values())
    result.missing = expected_samples - len(found)
    return result


def outcome(case: Case, seed: int = 0) -> Result:
    """Run a case, and compare."""
    recorder, _ = run(case, seed)
    return compare(recorder, case, whole_samples(case.connected_s, case.apart_s))


@cache
def whole_samples(connected_s: float, apart_s: float) -> int:
    """How many samples are whole where all is well, which depends on the pauses of the stream only."""
    fine, _ = run(Case(connected_s=connected_s, apart_s=apart_s))
    return sum((point.measurement, _values(point.fields)) in truth() for point in fine.points)


def replayed(notes: Notes, text: bytes) -> list[Point]:
    """What a replay of the same text gives, with the offsets that were noted."""
    pipeline = Pipeline(
        catalogue(), Site("home", catalogue().profiles), shared=Shared(offsets=Offsets(notes.spans))
    )
    return [*pipeline.feed(text, None), *pipeline.finish()]


def days_of_drift(ppm: float, days: float, connected_s: float, begin_s: float = 0.0) -> tuple[float, int]:
    """The farthest that a line is off, in seconds, and the steps: a line a second, of a clock that drifts."""
    chance = random.Random(1)
    counts: Counter[str] = Counter()
    sender, farthest_ns = Sender(), 0
    clock: ControllerClock | None = None
    held: list[tuple[int, int, int]] = []
    for second in range(round(days * 86400)):
        if clock is None or second % connected_s >= connected_s - 3:
            if clock is not None and second % connected_s < connected_s - 1:
                continue
            clock = ControllerClock(counts, TOLERANCE_S, sender)
        at_ns = NOON_S * NS + second * NS
        stamp_ns = at_ns + round((begin_s + second * ppm * 1e-6) * NS)
        received_ns = at_ns + round(chance.uniform(0.001, 0.2) * NS)
        offset_ns = None if held else clock.offset_of(stamp_ns, stamp_ns, received_ns)
        if offset_ns is None:
            held.append((at_ns, stamp_ns, clock.place(stamp_ns, received_ns)))
            clock.end_chunk()
            if clock.is_learning:
                continue
            errors = [abs(stamp + clock.offset_in(segment) - at) for at, stamp, segment in held]
            held.clear()
        else:
            errors = [abs(stamp_ns + offset_ns - at_ns)]
        farthest_ns = max(farthest_ns, *errors)
    return farthest_ns / NS, counts["clock_steps"]


CASES: dict[str, Case] = {
    "clocks agree": Case(),
    "controller 1.5 s ahead": Case(constant(1.5)),
    **{
        f"controller {abs(off):g} s {'ahead' if off > 0 else 'behind'}, {name}": Case(
            constant(off), connected_s=connected_s
        )
        for off in (3.0, -3.0, 10.0, -10.0, 30.0, -30.0, 60.0, -60.0, -HOUR_S, YEAR_S)
        for name, connected_s in (("one connection", 1e9), ("connections of 50 s", 50.0), ("of 7 s", 7.0))
    },
    **{
        f"controller drifts by {ppm} ppm from {off:g} s, connections of 50 s": Case(
            drifting(ppm, off), connected_s=50.0
        )
        for ppm in (1000, -1000, 5000, -5000)
        for off in (0.0, 10.0, -10.0)
    },
    **{
        f"controller {-off:g} s behind, each connection's first lines {late_s:g} s late": Case(
            constant(off), connected_s=50.0, first_read_after_s=late_s
        )
        for off in (0.0, -3.0, 5.0, -20.0, 60.0)
        for late_s in (3.0, 5.0, 20.0)
    },
    **{
        f"controller {-off:g} s behind, network stalls of 5, 20 and 40 s": Case(
            constant(off), stalls=((20, 25), (60, 80), (110, 150))
        )
        for off in (0.0, 5.0, -5.0, -40.0, HOUR_S)
    },
    **{
        f"controller {-off:g} s behind, read every 0 to {busy_s:g} s, connected {connected_s:g} s": Case(
            constant(off), connected_s=connected_s, busy_s=busy_s
        )
        for off in (0.0, 5.0, -5.0, -30.0)
        for busy_s in (3.0, 8.0)
        for connected_s in (50.0, 1e9)
    },
    **{
        f"controller set by {by:g} s while it streams": Case(steps((50.3, by), (120.7, 0.0)))
        for by in (3.0, -3.0, 10.0, -10.0, 45.0, -45.0, -HOUR_S, YEAR_S)
    },
    **{
        f"controller set by {by:g} s while the network stalls": Case(
            steps((60.3, by), (130.7, 0.0)), stalls=((55, 75), (125, 140))
        )
        for by in (10.0, -10.0, -HOUR_S, YEAR_S)
    },
    **{
        f"own clock set by {by:g} s, controller {-off:g} s behind": Case(constant(off), steps((80.4, by)))
        for by in (3.0, -3.0, 1800.0, -1800.0, HOUR_S, -HOUR_S, YEAR_S, -YEAR_S)
        for off in (0.0, -10.0)
    },
    "own clock set by -1800 s just after a connection began": Case(constant(5), steps((0.9, -1800.0))),
}


def say(line: str) -> None:
    """Print a line at once: the table takes minutes."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Print the table."""
    say("| case | farthest from the truth, s | duplicates | missing | steps | back by, s |")
    say("| --- | --- | --- | --- | --- | --- |")
    for name, case in CASES.items():
        results = [outcome(case, seed) for seed in range(3)]
        say(
            f"| {name} | {max(one.farthest_s for one in results):.3f} "
            f"| {max(one.duplicates for one in results)} | {max(one.missing for one in results)} "
            f"| {max(one.clock_steps for one in results)} | {max(one.disorder_s for one in results):.1f} |"
        )
    for ppm in (100.0, -100.0, 1000.0, -1000.0):
        for connected_s in (50.0, 1e9):
            farthest_s, steps_counted = days_of_drift(ppm, 2, connected_s)
            say(
                f"| two days of a drift of {ppm:g} ppm, connections of {connected_s:g} s "
                f"| {farthest_s:.3f} | 0 | 0 | {steps_counted} | |"
            )


if __name__ == "__main__":
    main()

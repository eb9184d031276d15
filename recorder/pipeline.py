"""One stream's stages joined: strace text in, points out.

Takes chunks of text with the time of their receipt, gives points. Does no I/O, so that the service,
`decode`, `replay` and the tests run the very same path:

    text ─► syscalls ─► bus ─► exchange ─► readings ─► scan ─► point, flow
"""

from collections import Counter
from collections.abc import Callable
from operator import itemgetter
from typing import Final, NamedTuple

from recorder.modbus.exchange import Bus, Buses, BusesState, Exchange
from recorder.points.clock import DEFAULT_TOLERANCE_SECONDS, ClockState, ControllerClock
from recorder.points.flow import FlowBalance
from recorder.points.point import Point
from recorder.points.scan import Scan, ScanAssembler, ScanState
from recorder.profiles.catalogue import Catalogue
from recorder.profiles.model import Profile
from recorder.profiles.readings import INVALID
from recorder.strace.runs import Run, RunDecoder, Single, span_of_reads_ns
from recorder.strace.syscalls import DEFAULT_MAX_LINE_BYTES, TextState

_Numbered = tuple[int, Exchange]
_TimeOf = Callable[[int, int | None], int | None]
"""The Unix time in ns of a read, by the number of its line in the chunk and by its stamp."""

# A larger jump of the device's poll counter is a restart, not samples that were lost.
_MOST_LOST_SAMPLES: Final = 3600


class PipelineState(NamedTuple):
    """Where each stage stands. Two pipelines that stand alike give the same for what comes.

    What was counted is no part of it; `scans`, `polls` and `repeats` are by device, scans in the order
    in which devices were first seen.
    """

    text: TextState
    buses: BusesState
    scans: tuple[tuple[str, ScanState], ...]
    meter: tuple[int, float] | None
    clock: ClockState
    lag_ns: int
    polls: dict[str, float]
    repeats: dict[str, tuple[int, int]]


class Pipeline:
    """Decodes one stream.

    Args:
        catalogue: which profile a request names.
        site: the `site` tag of the stream's points.
        flow: the balance of that site, shared by its streams.
        max_line_bytes: longer lines are dropped.
        clock_tolerance_seconds: how far the controller's clock may be from ours before it is corrected.
        assume_in_step: whether a bus counts as in step when it is first seen.
    """

    def __init__(  # noqa: PLR0913  # a stream's settings are its parameters
        self,
        catalogue: Catalogue,
        site: str,
        flow: FlowBalance,
        *,
        max_line_bytes: int = DEFAULT_MAX_LINE_BYTES,
        clock_tolerance_seconds: float = DEFAULT_TOLERANCE_SECONDS,
        assume_in_step: bool = False,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._catalogue = catalogue
        self._site = site
        self._flow = flow
        self._text = RunDecoder(self.counts, max_line_bytes)
        self._buses = Buses(self.counts, catalogue.narrowest_other, assume_in_sync=assume_in_step)
        self._scans: dict[str, ScanAssembler] = {}
        self._clock = ControllerClock(self.counts, clock_tolerance_seconds)
        # How long after its stamp the latest text arrived, by the corrected stamp.
        self._lag_ns = 0
        self._polls: dict[str, float] = {}
        self._repeats: dict[str, tuple[int, int]] = {}

    @property
    def state(self) -> PipelineState:
        """Where the pipeline stands, as a value of its own."""
        return PipelineState(
            self._text.state,
            self._buses.state,
            tuple((device, assembler.state) for device, assembler in self._scans.items()),
            self._flow.meter,
            self._clock.state,
            self._lag_ns,
            dict(self._polls),
            dict(self._repeats),
        )

    def resume(self, state: PipelineState) -> None:
        """Go on from where another pipeline of the same catalogue stood."""
        profiles = {profile.device: profile for profile in self._catalogue.profiles}
        self._text.resume(state.text)
        self._buses.resume(state.buses)
        self._scans = {device: ScanAssembler(profiles[device]) for device, _ in state.scans}
        for device, scan in state.scans:
            self._scans[device].resume(scan)
        self._flow.resume(state.meter)
        self._clock.resume(state.clock)
        self._lag_ns = state.lag_ns
        self._polls = dict(state.polls)
        self._repeats = dict(state.repeats)

    @property
    def undecidable_buses(self) -> int:
        """How many buses have no request whose response could ever prove them in step."""
        return self._buses.undecidable

    @property
    def clock_offset_seconds(self) -> float:
        """What is added to the controller's stamps, in s."""
        return self._clock.offset_seconds

    def feed(self, chunk: bytes, received_at_ns: int | None) -> list[Point]:
        """Take the next bytes of the stream, in any split, and give the points that they complete.

        Args:
            chunk: text as it came.
            received_at_ns: Unix time in ns of its receipt. None keeps the stream's own stamps as
                they are, and leaves points without time where it has none.
        """
        items = self._text.feed_runs(chunk)
        if not items:
            return []
        return self._take(
            items, _as_stamped if received_at_ns is None else self._times(items, received_at_ns)
        )

    def feed_paced(self, chunk: bytes, time_of_line: Callable[[int], int]) -> list[Point]:
        """Take text that was captured without stamps, as `feed` takes it line by line.

        Args:
            chunk: the next bytes of the capture.
            time_of_line: gives the Unix time in ns of a line by its number in the capture, from 0 on.
        """
        first = self.counts["lines"]
        items = self._text.feed_runs(chunk)
        times = {
            number: self._time(stamped_at_ns, time_of_line(first + number))
            for number, stamped_at_ns in _stamps_of_reads(items)
        }
        return self._take(items, lambda number, _: times[number])

    def expire(self, now_ns: int) -> list[Point]:
        """Close the scans that a stream left open for too long; `now_ns` is Unix time in ns.

        A scan is as old as its stream lets it be: text that comes late brings its scans late.
        """
        points: list[Point] = []
        for assembler in self._scans.values():
            self._publish(assembler.expire(now_ns - self._lag_ns), points)
        return points

    def finish(self) -> list[Point]:
        """End the stream: give what it leaves whole, and count what it leaves open."""
        self._text.finish()
        points: list[Point] = []
        for exchange in self._buses.finish():
            self._exchange(exchange, points)
        for assembler in self._scans.values():
            self._publish(assembler.finish(), points)
        return points

    def _take(self, items: list[Run | Single], time_of: _TimeOf) -> list[Point]:
        """Take what a chunk brought."""
        exchanges: list[_Numbered] = []
        for item in items:
            if isinstance(item, Single):
                self._single(item, time_of, exchanges)
                continue
            bus = self._buses.bus(item.bus)
            if item.written:
                if found := bus.wrote(item.data, complete=True, stamped=item):
                    exchanges += [(item.numbers[0], exchange) for exchange in found]
            else:
                _read(bus, item, time_of, exchanges)
        if len(exchanges) > 1:
            # What several buses brought is taken in the order of the lines.
            exchanges.sort(key=itemgetter(0))
        points: list[Point] = []
        for _, exchange in exchanges:
            self._exchange(exchange, points)
        return points

    def _single(self, single: Single, time_of: _TimeOf, exchanges: list[_Numbered]) -> None:
        """Take a transfer that came alone."""
        number, transfer = single
        process, descriptor, written, data, complete, stamped_at_ns = transfer
        if descriptor < 0:
            found = self._buses.lose()
        elif written:
            found = self._buses.bus((process, descriptor)).wrote(data, complete=complete, stamped=transfer)
        else:
            bus = self._buses.bus((process, descriptor))
            at_ns = time_of(number, stamped_at_ns)
            found = bus.read(data, complete=complete, captured_at_ns=at_ns, stamped=transfer)
        exchanges += [(number, exchange) for exchange in found]

    def _times(self, items: list[Run | Single], received_at_ns: int) -> _TimeOf:
        """Tell the time of each read: its stamp, corrected, or else its receipt."""
        span = span_of_reads_ns(items)
        if span is not None:
            offset_ns = self._clock.offset_of(*span, received_at_ns)
            if offset_ns is not None:
                self._lag_ns = received_at_ns - span[1] - offset_ns
                return lambda _, stamp_ns: None if stamp_ns is None else stamp_ns + offset_ns
        times = {
            number: self._time(stamped_at_ns, received_at_ns)
            for number, stamped_at_ns in _stamps_of_reads(items)
        }
        if times:
            self._lag_ns = received_at_ns - times[max(times)]
        return lambda number, _: times[number]

    def _time(self, stamped_at_ns: int | None, received_at_ns: int) -> int:
        """Give the time of a line: its stamp, corrected, or else its receipt."""
        if stamped_at_ns is None:
            return received_at_ns
        return self._clock.correct(stamped_at_ns, received_at_ns)

    def _exchange(self, exchange: Exchange, points: list[Point]) -> None:
        unit, function, address, register_bytes, captured_at_ns = exchange
        planned = self._catalogue.plan(unit, function, address, len(register_bytes) // 2)
        if planned is None:
            self.counts["unknown_registers"] += 1
            return
        profile, plan = planned
        values, implausible, unavailable, valid = plan.read(register_bytes) if plan else INVALID
        if not valid:
            self.counts["invalid_samples"] += 1
            return
        if implausible or unavailable:
            self.counts["implausible_values"] += implausible
            self.counts["unavailable_values"] += unavailable
        assembler = self._scans.get(profile.device)
        if assembler is None:
            assembler = self._scans[profile.device] = ScanAssembler(profile)
        scans = assembler.feed(values, captured_at_ns)
        if scans:
            self._publish(scans, points)

    def _publish(self, scans: list[Scan], points: list[Point]) -> None:
        for profile, values, captured_at_ns in scans:
            self._count_lost_samples(profile, values)
            point = Point(
                profile.measurement,
                (("device", profile.device), ("site", self._site)),
                values,
                self._distinct_time(profile.device, captured_at_ns),
            )
            points.append(point)
            flow = self._flow.feed(point)
            if flow is not None:
                points.append(flow)
        self.counts["points"] += len(scans)

    def _distinct_time(self, device: str, captured_at_ns: int | None) -> int | None:
        """Keep samples that arrived in one chunk, without stamps, from overwriting each other."""
        if captured_at_ns is None:
            return None
        last_ns, repeats = self._repeats.get(device, (None, 0))
        repeats = repeats + 1 if captured_at_ns == last_ns else 0
        self._repeats[device] = (captured_at_ns, repeats)
        return captured_at_ns + repeats

    def _count_lost_samples(self, profile: Profile, values: dict[str, float]) -> None:
        """Read the device's own poll counter: a jump of more than one is a sample that was lost."""
        polls = values.get("polls")
        if polls is None:
            return
        missed = polls - self._polls.get(profile.device, polls) - 1
        if 0 < missed <= _MOST_LOST_SAMPLES:
            self.counts["lost_samples"] += int(missed)
        self._polls[profile.device] = polls


def _as_stamped(_: int, stamped_at_ns: int | None) -> int | None:
    return stamped_at_ns


def _read(bus: Bus, run: Run, time_of: _TimeOf, exchanges: list[_Numbered]) -> None:
    """Give reads to their bus, at once where that gives the same as one by one."""
    last = run.numbers[-1]
    found = bus.read_at_once(run.data, time_of(last, run.stamped_at_ns), run)
    if found is not None:
        exchanges += [(last, exchange) for exchange in found]
        return
    for number, read in zip(run.numbers, run.transfers(), strict=True):
        at_ns = time_of(number, read.stamped_at_ns)
        found = bus.read(read.data, complete=True, captured_at_ns=at_ns, stamped=read)
        exchanges += [(number, exchange) for exchange in found]


def _stamps_of_reads(items: list[Run | Single]) -> list[tuple[int, int | None]]:
    """Give number and stamp of every line that reads, in the order of the lines."""
    stamps: list[tuple[int, int | None]] = []
    for item in items:
        if isinstance(item, Single):
            if item.transfer.descriptor >= 0 and not item.transfer.written:
                stamps.append((item.number, item.transfer.stamped_at_ns))
        elif not item.written:
            stamps += zip(item.numbers, item.stamps_ns(), strict=True)
    stamps.sort(key=itemgetter(0))
    return stamps

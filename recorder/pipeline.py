"""One stream's stages joined: strace text in, points out.

Takes chunks of text with the time of their receipt, gives points. Does no I/O, so that the service,
`decode`, `replay` and the tests run the very same path:

    text ─► syscalls ─► bus ─► exchange ─► readings ─► scan ─► point ─► site: flow, energy
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, NamedTuple, Protocol

from recorder.modbus.exchange import Bus, Buses, BusesState, Exchange
from recorder.points.clock import DEFAULT_TOLERANCE_SECONDS, ClockState, ControllerClock, Sender
from recorder.points.duplicates import DeviceOwners, Sample, Stream
from recorder.points.offsets import Cursor, Offsets
from recorder.points.point import Point
from recorder.points.scan import Scan, ScanAssembler, ScanState
from recorder.points.site import Site
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
# So much text waits for a decision about its clock; a home sends as much in two minutes.
_MOST_HELD_BYTES: Final = 512 << 10
# The answers of a scan follow each other faster.
_PAUSE_NS: Final = 10**9
# In a text without stamps, a stamp that is further from its line's time than this is not one.
_PACED_NS: Final = 60 * 10**9


class OffsetNotes(Protocol):
    """Remembers which offset each sample had, for a replay of the same text."""

    def note(self, site: str, device: str, stamped_at_ns: int, offset_ns: int) -> None:
        """Take the stamp of a sample and what was added to it. Cheap, no I/O."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What a stream shares with others.

    `sender` is what is known of the controller's clock from its earlier connections; `owners` tells from
    which stream of the site each device's samples are taken; `notes` learns the offset of each sample that
    had a stamp; `offsets` are those of text whose time of receipt is not known.
    """

    sender: Sender = field(default_factory=Sender)
    owners: DeviceOwners = field(default_factory=DeviceOwners)
    notes: OffsetNotes | None = None
    offsets: Offsets | None = None


class _Held(NamedTuple):
    """What a chunk brought, and stamp and segment of each read by its number, until the clock is known."""

    items: list[Run | Single]
    received_at_ns: int
    lines: dict[int, tuple[int | None, int]]


class PipelineState(NamedTuple):
    """Where each stage stands. Two pipelines that stand alike give the same for what comes.

    What was counted is no part of it, nor is the site, which other streams share; `scans`, `polls` and
    `repeats` are by device, scans in the order in which devices were first seen.
    """

    text: TextState
    buses: BusesState
    scans: tuple[tuple[str, ScanState], ...]
    clock: ClockState
    lag_ns: int
    polls: dict[str, float]
    repeats: dict[str, tuple[int, int]]
    held: tuple[_Held, ...]
    replayed: dict[str, Cursor]


class Pipeline:
    """Decodes one stream.

    Args:
        catalogue: which profile a request names.
        site: the site that the stream belongs to, shared by its streams.
        derive: whether flows and energies are derived here; else only the points of devices are returned.
        max_line_bytes: longer lines are dropped.
        clock_tolerance_seconds: how far the controller's clock may be from ours before it is corrected.
        shared: what the stream shares with others; None shares nothing.
        assume_in_step: whether a bus counts as in step when it is first seen.
    """

    def __init__(  # noqa: PLR0913  # each is one stage's
        self,
        catalogue: Catalogue,
        site: Site,
        *,
        derive: bool = True,
        max_line_bytes: int = DEFAULT_MAX_LINE_BYTES,
        clock_tolerance_seconds: float = DEFAULT_TOLERANCE_SECONDS,
        shared: Shared | None = None,
        assume_in_step: bool = False,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._catalogue = catalogue
        self.site = site
        self._derive = derive
        self._text = RunDecoder(self.counts, max_line_bytes)
        self._buses = Buses(self.counts, catalogue.narrowest_other, assume_in_sync=assume_in_step)
        self._scans: dict[str, ScanAssembler] = {}
        shared = shared or Shared()
        self._clock = ControllerClock(self.counts, clock_tolerance_seconds, shared.sender)
        self._held: list[_Held] = []
        self._held_bytes = 0
        # Times that were not made with the clock's present offset, and what they were made with.
        self._earlier_offsets: dict[int | None, int] = {}
        self._used_ns = 0
        self._paced_ns = max(_PACED_NS, round(clock_tolerance_seconds * 1e9))
        self._owners = shared.owners
        self._stream = Stream(self.counts)
        self._notes = shared.notes
        self._offsets = shared.offsets
        self._replayed: dict[str, Cursor] = {}
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
            self._clock.state,
            self._lag_ns,
            dict(self._polls),
            dict(self._repeats),
            tuple(self._held),
            dict(self._replayed),
        )

    def resume(self, state: PipelineState) -> None:
        """Go on from where another pipeline of the same catalogue stood."""
        profiles = {profile.device: profile for profile in self._catalogue.profiles}
        self._text.resume(state.text)
        self._buses.resume(state.buses)
        self._scans = {device: ScanAssembler(profiles[device]) for device, _ in state.scans}
        for device, scan in state.scans:
            self._scans[device].resume(scan)
        self._clock.resume(state.clock)
        self._lag_ns = state.lag_ns
        self._polls = dict(state.polls)
        self._repeats = dict(state.repeats)
        self._held = list(state.held)
        self._replayed = dict(state.replayed)

    @property
    def undecidable_buses(self) -> int:
        """How many buses have no request whose response could ever prove them in step."""
        return self._buses.undecidable

    @property
    def clock_offset_seconds(self) -> float:
        """What is added to the controller's stamps, in s."""
        return self._clock.offset_ns / 1e9

    def clock_was_set(self, by_ns: int) -> None:
        """Learn that the clock that gives times of receipt was set forward by so many ns."""
        self._clock.clock_was_set(by_ns)
        self._held = [held._replace(received_at_ns=held.received_at_ns + by_ns) for held in self._held]
        self._keep_offsets(self._clock.offset_ns)
        self._earlier_offsets = {
            None if time_ns is None else time_ns + by_ns: offset_ns + by_ns
            for time_ns, offset_ns in self._earlier_offsets.items()
        }
        for assembler in self._scans.values():
            assembler.clock_was_set(by_ns)

    def feed(self, chunk: bytes, received_at_ns: int | None) -> list[Point]:
        """Take the next bytes of the stream, in any split, and give the points that they complete.

        Args:
            chunk: text as it came.
            received_at_ns: Unix time in ns of its receipt. None keeps the stream's own stamps, or
                adds the `offsets` to them, and leaves points without time where it has none.

        While nothing tells whether the controller's clock is right, the text waits: see `points.clock`.
        """
        items = self._text.feed_runs(chunk)
        if not items:
            return []
        if received_at_ns is None:
            return self._take(items, _as_stamped)
        if not self._held:
            span = span_of_reads_ns(items)
            offset_ns = None if span is None else self._clock.offset_of(*span, received_at_ns)
            if span is not None and offset_ns is not None:
                self._lag_ns = received_at_ns - span[1] - offset_ns
                if offset_ns != self._used_ns:
                    self._keep_offsets(offset_ns)
                return self._take(
                    items, lambda _, stamp_ns: None if stamp_ns is None else stamp_ns + offset_ns
                )
        self._hold(items, received_at_ns)
        self._held_bytes += len(chunk)
        if self._held_bytes > _MOST_HELD_BYTES:
            self._clock.decide()
        return self._release()

    def feed_paced(self, chunk: bytes, time_of_line: Callable[[int], int]) -> list[Point]:
        """Take text that was captured without stamps, as `feed` takes it line by line.

        Args:
            chunk: the next bytes of the capture.
            time_of_line: gives the Unix time in ns of a line by its number in the capture, from 0 on.
        """
        # Times by a pace are not the controller's.
        self._offsets = None
        first = self.counts["lines"]
        items = self._text.feed_runs(chunk)

        def time_of(number: int, stamped_at_ns: int | None) -> int:
            paced_ns = time_of_line(first + number)
            is_near = stamped_at_ns is not None and abs(stamped_at_ns - paced_ns) <= self._paced_ns
            return stamped_at_ns if stamped_at_ns is not None and is_near else paced_ns

        return self._take(items, time_of)

    def expire(self, now_ns: int) -> list[Point]:
        """Close the scans that a stream left open for too long; `now_ns` is Unix time in ns.

        A scan is as old as its stream lets it be: text that comes late brings its scans late.
        """
        self._clock.expire(now_ns)
        points = self._release()
        if not self._held:
            for assembler in self._scans.values():
                self._publish(assembler.expire(now_ns - self._lag_ns), points)
        return points

    def finish(self) -> list[Point]:
        """End the stream: give what it leaves whole, and count what it leaves open."""
        self._clock.decide()
        points = self._release()
        self._text.finish()
        for exchange in self._buses.finish():
            self._exchange(exchange, points)
        for assembler in self._scans.values():
            self._publish(assembler.finish(), points)
        self._emit(self._owners.leave(self._stream), points)
        return points

    def _hold(self, items: list[Run | Single], received_at_ns: int) -> None:
        """Let the clock learn from a chunk, which waits for what it says."""
        lines = {
            number: (stamp_ns, 0 if stamp_ns is None else self._clock.place(stamp_ns, received_at_ns))
            for number, stamp_ns in _stamps_of_reads(items)
        }
        self._clock.end_chunk()
        self._held.append(_Held(items, received_at_ns, lines))

    def _release(self) -> list[Point]:
        """Take the chunks that waited, once the clock is known."""
        points: list[Point] = []
        if not self._held or self._clock.is_learning:
            return points
        held, self._held, self._held_bytes = self._held, [], 0
        for items, received_at_ns, lines in held:
            times: dict[int, int] = {}
            offsets_ns: dict[int | None, int] = {}
            for number, (stamp_ns, segment) in lines.items():
                offset_ns = 0 if stamp_ns is None else self._clock.offset_in(segment)
                times[number] = received_at_ns if stamp_ns is None else stamp_ns + offset_ns
                offsets_ns[times[number]] = offset_ns
            if times:
                self._lag_ns = received_at_ns - times[max(times)]
            self._keep_offsets(self._clock.offset_ns)
            self._earlier_offsets |= offsets_ns
            points += self._take(items, lambda number, _, times=times: times[number])  # type: ignore[misc]
        self._clock.forget_segments()
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
        if self._offsets is not None and captured_at_ns is not None:
            self._bridge(self._offsets, assembler, profile.device, captured_at_ns)
        scans = assembler.feed(values, captured_at_ns)
        if scans:
            self._publish(scans, points)

    def _bridge(self, offsets: Offsets, assembler: ScanAssembler, device: str, stamped_at_ns: int) -> None:
        """Let an open scan go on where the controller's clock was set, as it did in the live recording."""
        last_ns = assembler.state.last_at_ns
        if last_ns is not None and stamped_at_ns - last_ns > _PAUSE_NS:
            cursor = self._replayed.get(device)
            before_ns, _ = offsets.find(device, last_ns, cursor)
            now_ns, _ = offsets.find(device, stamped_at_ns, cursor)
            assembler.clock_was_set(before_ns - now_ns)

    def _publish(self, scans: list[Scan], points: list[Point]) -> None:
        """Give the samples of this stream, but for those that another stream of the site has given."""
        for profile, values, captured_at_ns in scans:
            self._count_lost_samples(profile, values)
            offset_ns, timed_at_ns = self._earlier_offsets.get(captured_at_ns, self._used_ns), captured_at_ns
            if self._offsets is not None and captured_at_ns is not None:
                device = profile.device
                offset_ns, cursor = self._offsets.find(device, captured_at_ns, self._replayed.get(device))
                if cursor is not None:
                    self._replayed[device] = cursor
                timed_at_ns = captured_at_ns + offset_ns
            sample = Sample(profile, values, self._distinct_time(profile.device, timed_at_ns), offset_ns)
            self._emit(self._owners.admit(self._stream, sample), points)

    def _emit(self, samples: Sequence[Sample], points: list[Point]) -> None:
        for profile, values, time_ns, offset_ns in samples:
            device = profile.device
            if self._notes is not None and time_ns is not None:
                self._notes.note(self.site.name, device, time_ns - offset_ns, offset_ns)
            point = Point(
                profile.measurement, (("device", device), ("site", self.site.name)), values, time_ns
            )
            if self._derive:
                points += self.site.take(device, point, self.counts)
            else:
                points.append(point)
        self.counts["points"] += len(samples)

    def _keep_offsets(self, next_ns: int) -> None:
        """Remember what open scans were timed with, before the offset changes."""
        times = [assembler.state.last_at_ns for assembler in self._scans.values()]
        self._earlier_offsets = {
            time_ns: self._earlier_offsets.get(time_ns, self._used_ns) for time_ns in times
        }
        self._used_ns = next_ns

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
        polls = values.get(profile.poll_counter)
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

"""One stream's stages joined: strace text in, points out.

Takes chunks of text with the time of their receipt, gives points. Does no I/O, so that the service,
`decode`, `replay` and the tests run the very same path:

    text ─► syscalls ─► bus ─► exchange ─► readings ─► scan ─► point, flow
"""

from collections import Counter
from typing import Final

from recorder.modbus.exchange import Bus, Buses, Exchange
from recorder.points.clock import DEFAULT_TOLERANCE_SECONDS, ControllerClock
from recorder.points.flow import FlowBalance
from recorder.points.point import Point
from recorder.points.scan import Scan, ScanAssembler
from recorder.profiles.catalogue import Catalogue
from recorder.profiles.model import Profile
from recorder.profiles.readings import INVALID
from recorder.strace.runs import Run, RunDecoder
from recorder.strace.syscalls import DEFAULT_MAX_LINE_BYTES, Transfer

# A larger jump of the device's poll counter is a restart, not samples that were lost.
_MOST_LOST_SAMPLES: Final = 3600


class Pipeline:
    """Decodes one stream.

    Args:
        catalogue: which profile a request names.
        site: the `site` tag of the stream's points.
        flow: the balance of that site, shared by its streams.
        max_line_bytes: longer lines are dropped.
        clock_tolerance_seconds: how far the controller's clock may be from ours before it is corrected.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        site: str,
        flow: FlowBalance,
        *,
        max_line_bytes: int = DEFAULT_MAX_LINE_BYTES,
        clock_tolerance_seconds: float = DEFAULT_TOLERANCE_SECONDS,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._catalogue = catalogue
        self._site = site
        self._flow = flow
        self._text = RunDecoder(self.counts, max_line_bytes)
        self._buses = Buses(self.counts)
        self._scans: dict[str, ScanAssembler] = {}
        self._clock = ControllerClock(self.counts, clock_tolerance_seconds)
        # How long after its stamp the latest text arrived, by the corrected stamp.
        self._lag_ns = 0
        self._polls: dict[str, float] = {}
        self._repeats: dict[str, tuple[int, int]] = {}

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
        points: list[Point] = []
        at_ns: int | None = None
        for item in self._text.feed_runs(chunk):
            if item.descriptor < 0:
                self._buses.lose()
                continue
            bus = self._buses.bus(item.process, item.descriptor)
            if isinstance(item, Run):
                at_ns = self._run(bus, item, received_at_ns, points)
            elif item.written:
                bus.wrote(item.data, complete=item.complete)
            else:
                at_ns = self._read(bus, item, received_at_ns, points)
        if received_at_ns is not None and at_ns is not None:
            self._lag_ns = received_at_ns - at_ns
        return points

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
        self._buses.finish()
        points: list[Point] = []
        for assembler in self._scans.values():
            self._publish(assembler.finish(), points)
        return points

    def _read(self, bus: Bus, read: Transfer, received_at_ns: int | None, points: list[Point]) -> int | None:
        """Take one read, and give its time."""
        at_ns = self._time(read.stamped_at_ns, received_at_ns)
        for exchange in bus.read(read.data, complete=read.complete, captured_at_ns=at_ns):
            self._exchange(exchange, points)
        return at_ns

    def _run(self, bus: Bus, run: Run, received_at_ns: int | None, points: list[Point]) -> int | None:
        """Take reads at once where that gives the same as one by one, and give the time of the last."""
        at_ns: int | None = None
        if not bus.can_read_at_once(run.data):
            for read in run.transfers():
                at_ns = self._read(bus, read, received_at_ns, points)
            return at_ns
        if received_at_ns is None:
            at_ns = run.stamped_at_ns
        else:
            # The clock learns from every stamp.
            for stamped_at_ns in run.stamps_ns():
                at_ns = self._time(stamped_at_ns, received_at_ns)
        for exchange in bus.read(run.data, complete=True, captured_at_ns=at_ns):
            self._exchange(exchange, points)
        return at_ns

    def _time(self, stamped_at_ns: int | None, received_at_ns: int | None) -> int | None:
        """Give the time of a line: its stamp, corrected, or else its receipt."""
        if stamped_at_ns is None or received_at_ns is None:
            return received_at_ns if stamped_at_ns is None else stamped_at_ns
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

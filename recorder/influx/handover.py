"""What was recorded before there was an InfluxDB, handed over from the store.

Takes the store's days, oldest first, gives them to InfluxDB as what the continuous queries would have
written there. Never writes a field that InfluxDB has already, but for the minute whose first samples are in
the store only. Never forgets a day before InfluxDB has it, and reads and writes a few hours of one series
at a time. Doing it twice changes nothing.

    finest that is stored    written                            by the queries themselves, run over that day
    minutes                  *_1m, energy_15m                   *_1h, energy_1h, energy_1d
    quarters of an hour      *_1h, energy_15m                   energy_1h, energy_1d
    hours                    *_1h, energy_1h, energy_1d
    days                     energy_1d
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from threading import Event
from typing import Final

import structlog

from recorder.influx.answers import Action, judge
from recorder.influx.continuous_queries import ContinuousQuery, PolicyNames
from recorder.influx.errors import InfluxError, InfluxRefused
from recorder.influx.influxql import identifier, text
from recorder.influx.server import InfluxServer
from recorder.influx.setup import SetUp
from recorder.influx.thinned import FLOW, Buckets, Thinned
from recorder.points.energy import MEASUREMENT as ENERGY_MEASUREMENT
from recorder.points.line_protocol import cleaned, to_line
from recorder.points.point import Point
from recorder.store.buckets import DAY, MINUTE, STEPS, Step
from recorder.store.store import Store
from recorder.store.thinning import ENERGY, SeriesKey

_MINUTES, _QUARTERS, _HOURS, _ = STEPS
# So much is read and written at once: a day of minutes would be much memory for a small machine.
_PIECE_SECONDS: Final = 6 * 3600
_ROUNDING_SECONDS: Final = 1e-3
_SETTLED_AFTER_SECONDS: Final = 2 * 3600
# Below the smallest step of a counter, and above what sums of floats differ by.
_LEAST_MISSING_KWH: Final = 1e-6
# No sample of a quarter of an hour has this stamp: those of energies are whole tens of seconds.
_STAMP_OF_MISSING_SECONDS: Final = 895
_SECOND_NS: Final = 10**9

_log = structlog.get_logger(__name__)


class _Stopped(Exception):  # noqa: N818  # no error: the service ends
    """The rest is to be handed over after the next start."""


class _ClockBehind(Exception):  # noqa: N818  # says what is so
    """What is owed lies ahead of the clock."""

    def __init__(self) -> None:
        super().__init__("this machine's clock is behind what was recorded; set it, or let NTP do so")


class HandOver:
    """Hands the store's days over, from where an earlier run ended.

    Args:
        store: what was recorded, and the time of it that no InfluxDB has got yet.
        server: where it goes, an InfluxDB 1.x.
        set_up: that of its database, for its queries.
        thinned: gives the store's buckets their names in InfluxDB.
        now_ns: the wall clock, Unix ns.
    """

    def __init__(
        self,
        store: Store,
        server: InfluxServer,
        set_up: SetUp,
        thinned: Thinned,
        now_ns: Callable[[], int],
    ) -> None:
        self._store = store
        self._server = server
        self._thinned = thinned
        self._set_up = set_up
        self._now_ns = now_ns
        self._policy = PolicyNames().rollups
        self._stop = Event()
        self.problem = ""

    def stop(self) -> None:
        """Let a run that is under way end after what it is writing."""
        self._stop.set()

    def run(self) -> None:
        """Hand over what is owed, day by day; what is not done stays remembered. Blocks."""
        # What is regrouped by another time zone now has days of two zones.
        if self._store.owed is None or self._store.note:
            self.problem = ""
            return
        try:
            self._run()
        except (InfluxError, OSError, _ClockBehind) as error:
            self.problem = f"the history from before InfluxDB is not handed over yet: {error}"
            _log.debug("the history is not handed over yet", reason=str(error))
        except _Stopped:
            return
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not end the thread unseen
            self.problem = f"the history from before InfluxDB: unexpected {type(error).__name__}"
            _log.error("the history is not handed over", exc_info=error)
        else:
            self.problem = ""
            _log.info("the history from before InfluxDB was handed over")

    def _run(self) -> None:
        oldest = {step: self._store.oldest_s(step) for step in STEPS}
        known = [at_s for at_s in oldest.values() if at_s is not None]
        now_s = self._now_ns() // _SECOND_NS
        while (owed := self._store.owed) is not None:
            # What is no longer stored is no longer owed.
            first_s = max(owed.first_s, min(known, default=owed.last_s))
            end_s = owed.last_s
            if first_s < end_s:
                if first_s > now_s:
                    raise _ClockBehind
                begin_s = self._store.buckets.begin(DAY, first_s)
                end_s = self._store.buckets.following(DAY, begin_s)
                self._hand_over_day(self._finest(begin_s, oldest), begin_s, end_s, first_s)
            self._store.hand_over(owed, end_s)

    def _finest(self, day_s: int, oldest: dict[Step, int | None]) -> Step:
        """Give the finest width that the store has of all of a day, or of all that was recorded of it."""
        for step, oldest_s in oldest.items():
            if oldest_s is None:
                continue
            first_day_s = self._store.buckets.begin(DAY, oldest_s)
            if day_s > first_day_s or (day_s == first_day_s and self._is_whole(step, day_s)):
                return step
        return DAY

    def _is_whole(self, step: Step, day_s: int) -> bool:
        """Whether buckets of a width hold all that the day holds: its first ones may be forgotten."""
        end_s = self._store.buckets.following(DAY, day_s)
        for key in self._store.series():
            of_day = self._read(key, DAY, day_s, end_s).get(day_s)
            if of_day:
                name = max(of_day, key=lambda one: of_day[one][0])
                found = self._store.read({key: {name}}, step, day_s, end_s)[key].values()
                seconds = sum(cells[name][0] for cells in found if name in cells)
                if seconds < of_day[name][0] - _ROUNDING_SECONDS:
                    return False
        return True

    def _hand_over_day(self, step: Step, begin_s: int, end_s: int, owed_s: int) -> None:
        for key in self._store.series():
            if step is _MINUTES:
                self._hand_over_minutes(key, begin_s, end_s, owed_s)
            else:
                self._hand_over_rollups(key, step, begin_s, end_s)
        if step is _MINUTES:
            self._compute(begin_s, end_s, lambda one: one.source_policy == self._policy)
        elif step is _QUARTERS:
            self._compute(begin_s, end_s, lambda one: one.source == "energy_15m")

    def _compute(self, begin_s: int, end_s: int, wanted: Callable[[ContinuousQuery], bool]) -> None:
        start, end = (datetime.fromtimestamp(at_s, UTC) for at_s in (begin_s, end_s))
        now = datetime.fromtimestamp(self._now_ns() / _SECOND_NS, UTC)
        self._set_up.compute(start, end, now, wanted)

    def _hand_over_minutes(self, key: SeriesKey, begin_s: int, end_s: int, owed_s: int) -> None:
        if key.measurement in {ENERGY, FLOW}:
            self._hand_over_quarters(key, begin_s, end_s)
        if key.measurement == ENERGY:
            return
        oldest_s = self._oldest_sample_s(key, owed_s, end_s)
        cut_s = None
        for first_s in range(begin_s, end_s, _PIECE_SECONDS):
            minutes = self._read(key, _MINUTES, first_s, min(end_s, first_s + _PIECE_SECONDS))
            # Samples from before the oldest one were lost: its minute is whole in the store only.
            if oldest_s is not None and any(at_s < oldest_s - MINUTE for at_s in minutes):
                cut_s = oldest_s // MINUTE * MINUTE
            self._write(self._thinned.minutes(key, minutes), cut_s)
        if not self._thinned.has_queries(key):
            self._write(self._thinned.hours(key, self._read(key, _HOURS, begin_s, end_s)))

    def _hand_over_quarters(self, key: SeriesKey, begin_s: int, end_s: int) -> None:
        """Hand over the energies of quarters of an hour.

        Where InfluxDB has raw energies it computes the sum itself. What they lack of it, because the queue
        let it go, is added to them: so the sum is right whenever it is computed.
        """
        quarters = self._read(key, _QUARTERS, begin_s, end_s)
        raw = self._raw_energies(key, begin_s, end_s)
        since_s = self._store.energy_since_s
        points = list(self._thinned.energies("energy_15m", key, quarters, since_s))
        self._write(point for point in points if point.time_ns not in raw)
        # Of younger ones something may be on its way.
        settled_ns = self._now_ns() - _SETTLED_AFTER_SECONDS * _SECOND_NS
        for point in points:
            if point.time_ns is not None and point.time_ns in raw and point.time_ns <= settled_ns:
                self._add_missing(point, point.time_ns, raw[point.time_ns])

    def _add_missing(self, quarter: Point, begin_ns: int, raw: Mapping[str, float]) -> None:
        """Add to the raw energies of a quarter of an hour what they lack, and compute their sum again."""
        missing = {name: kwh - raw.get(name, 0.0) for name, kwh in quarter.fields.items()}
        if all(kwh < _LEAST_MISSING_KWH for name, kwh in missing.items() if name != "loss"):
            return
        stamp_ns = begin_ns + _STAMP_OF_MISSING_SECONDS * _SECOND_NS
        within = f"time = {stamp_ns} AND {_with_tags(**dict(quarter.tags))}"
        query = f"SELECT * FROM {identifier(ENERGY_MEASUREMENT)} WHERE {within}"  # noqa: S608 - all names are quoted
        before = next(iter(self._server.query(query)), {})
        # A loss may be negative; of another flow InfluxDB may know more, where captures were replayed.
        added = {
            name: kwh + (before.get(name) or 0.0)
            for name, kwh in missing.items()
            if name == "loss" or kwh > 0
        }
        self._send([to_line(Point(ENERGY_MEASUREMENT, quarter.tags, added, stamp_ns))], policy="")
        at_s = begin_ns // _SECOND_NS
        end_s = at_s + _QUARTERS.width_seconds
        self._compute(at_s, end_s, lambda one: one.source == ENERGY_MEASUREMENT)

    def _raw_energies(self, key: SeriesKey, begin_s: int, end_s: int) -> dict[int, dict[str, float]]:
        """Return the raw energies that InfluxDB has of a series, kWh, by the quarter of an hour in ns."""
        within = f"time >= {begin_s}s AND time < {end_s}s AND {_with_tags(key.site, key.device)}"
        source = identifier(ENERGY_MEASUREMENT)
        query = f"SELECT sum(*) FROM {source} WHERE {within} GROUP BY time(15m) fill(none)"  # noqa: S608 - all names are quoted
        return {
            row["time"]: {
                name.removeprefix("sum_"): value
                for name, value in row.items()
                if name.startswith("sum_") and value is not None
            }
            for row in self._server.query(query)
        }

    def _hand_over_rollups(self, key: SeriesKey, step: Step, begin_s: int, end_s: int) -> None:
        thinned = self._thinned
        points: list[Iterator[Point]] = []
        since_s = self._store.energy_since_s
        buckets = self._read(key, step, begin_s, end_s)
        if key.measurement != ENERGY and step is not DAY:
            points.append(thinned.hours(key, buckets))
        if key.measurement in {ENERGY, FLOW}:
            if step is _QUARTERS:
                self._hand_over_quarters(key, begin_s, end_s)
            else:
                if step is _HOURS:
                    points.append(thinned.energies_of_hours(key, buckets, since_s))
                days = self._read(key, DAY, begin_s, end_s)
                points.append(thinned.energies("energy_1d", key, days, since_s))
        for some in points:
            self._write(some)

    def _read(self, key: SeriesKey, step: Step, begin_s: int, end_s: int) -> Buckets:
        if self._stop.is_set():
            raise _Stopped
        return self._store.read({key: self._thinned.fields(key)}, step, begin_s, end_s)[key]

    def _write(self, points: Iterator[Point], anyway_s: int | None = None) -> None:
        """Write the fields of one series that InfluxDB does not have, and all of one time anyway.

        Raises:
            InfluxUnreachable: Nothing answered in time; some points may have been written.
            InfluxRefused: The server does not take them now.
        """
        known = [point for point in points if point.fields]
        if not known:
            return
        present = self._present(known)
        if anyway_s is not None:
            present.pop(anyway_s * _SECOND_NS, None)
        lines = []
        for point in known:
            had = present.get(point.time_ns, frozenset())
            fields = {name: value for name, value in point.fields.items() if name not in had}
            if fields:
                lines.append(to_line(point._replace(fields=fields)))
        if lines:
            self._send(lines, self._policy)

    def _present(self, points: Sequence[Point]) -> dict[int | None, frozenset[str]]:
        """Give which fields InfluxDB has at the times of these points, which are of one series."""
        measurement, tags, _, first_ns = points[0]
        source = ".".join(map(identifier, (self._server.connection.database, self._policy, measurement)))
        within = f"time >= {first_ns} AND time <= {points[-1].time_ns} AND {_with_tags(**dict(tags))}"
        rows = self._server.query(f"SELECT * FROM {source} WHERE {within}")  # noqa: S608 - all names are quoted
        return {
            row["time"]: frozenset(name for name, value in row.items() if value is not None) for row in rows
        }

    def _oldest_sample_s(self, key: SeriesKey, begin_s: int, end_s: int) -> int | None:
        """Give the time of the oldest sample that InfluxDB has of a range, Unix seconds."""
        within = f"time >= {begin_s}s AND time < {end_s}s AND {_with_tags(key.site, key.device)}"
        source = identifier(key.measurement)
        rows = self._server.query(f"SELECT * FROM {source} WHERE {within} ORDER BY time LIMIT 1")  # noqa: S608 - all names are quoted
        return min((int(row["time"]) // _SECOND_NS for row in rows), default=None)

    def _send(self, lines: Sequence[bytes], policy: str) -> None:
        """Write lines into a retention policy; an empty name is the default one."""
        answer = self._server.write_into(policy, b"\n".join(lines))
        verdict = judge(answer.status, answer.body, answer.headers)
        if verdict.action in {Action.RETRY, Action.PAUSE}:
            raise InfluxRefused(answer.status, verdict.reason, verdict.remedy or "it is tried again")
        if verdict.action is Action.SPLIT and len(lines) > 1:
            middle = len(lines) // 2
            self._send(lines[:middle], policy)
            self._send(lines[middle:], policy)
        elif verdict.action is not Action.ACCEPT:
            # Beyond retention, or of another type: what else was sent is written.
            _log.warning("InfluxDB refuses some of the history", lines=len(lines), reason=verdict.reason)


def _with_tags(site: str = "", device: str = "") -> str:
    """A condition for the one series that has these tags; a tag that it lacks is empty there too."""
    tags = {"site": site, "device": device}
    return " AND ".join(f"{identifier(name)} = {text(cleaned(value))}" for name, value in tags.items())

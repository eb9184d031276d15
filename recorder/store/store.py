"""The store: thinned points on disk, bounded by age and size, and any range of them at once.

Takes points as they are made, gives the buckets of a range. Writes once a minute in a thread of its
own, so that an SD card lasts; what is not written yet is in every answer all the same. Never makes its
caller wait for a disk, and never keeps the recorder from recording: what is wrong stands in `problem`.

    observe ─► cells of minutes (memory) ─ each minute ─► 1m, 15m, 1h, 1d on disk
                        └────────────── read ◄──────────────┘
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final

import structlog

from recorder.points.counters import Reading
from recorder.points.point import Point
from recorder.profiles.model import Profile
from recorder.store.buckets import STEPS, Buckets, Cells, Step, merge
from recorder.store.database import FILE_NAME, Database, Owed, Rows, is_damage
from recorder.store.thinning import ENERGY, UNTIL, Pending, SeriesKey, Thinning
from recorder.store.zone_change import ZoneChange, zone_change

FLUSH_EVERY_SECONDS: Final = 60.0
_MOST_PENDING_MINUTES: Final = 20_000
# So many are stored in some 20 ms; one home has four a minute.
_MINUTES_A_PORTION: Final = 64
# Where the size is at its bound, this share of the finest buckets' time goes at once.
_SHARE_TO_FORGET: Final = 0.1
_FORGET_EVERY_SECONDS: Final = 3600.0
_HOUR: Final = 3600

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How long each width of buckets is kept, in seconds by its name, and how large the file may be."""

    kept_seconds: dict[str, float]
    max_bytes: int


class Store:
    """What was recorded, by minute, quarter of an hour, hour and local day.

    Args:
        directory: where its file is; nothing is touched before `start`.
        limits: what it may hold.
        timezone: IANA name; days and hours begin by it. A file that was written by another one is regrouped.
        profiles: the devices, whose counters' last readings are looked up when the file is opened.
        now: gives Unix seconds.
    """

    def __init__(
        self,
        directory: Path,
        limits: StoreLimits,
        timezone: str,
        profiles: Sequence[Profile],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = directory / FILE_NAME
        self._limits = limits
        self._now = now
        self._alone = False
        self.buckets = Buckets(timezone)
        self._timezone = timezone
        self._change: ZoneChange | None = None
        self._profiles = tuple(profiles)
        self._thinning = Thinning(_MOST_PENDING_MINUTES)
        self._last_readings: dict[SeriesKey, dict[str, Reading]] = {}
        self._energies_until: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()  # the cells in memory; never held during input or output
        self._disk_lock = threading.Lock()  # the file; taken before the other one
        self._database: Database | None = None
        self._problem = ""
        self._bytes = 0
        self._since: float | None = None
        self._next_forget_s = 0.0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def problem(self) -> str:
        """What keeps the history from being stored and what to do about it; empty while all is well."""
        return self._problem

    @property
    def note(self) -> str:
        """What is done to the file now that makes its answers incomplete; empty where nothing is."""
        change = self._change
        if change is None:
            return ""
        return (
            f"the time zone was changed: the recorder's own history is regrouped by the days of "
            f"{change.timezone}, {change.days_left} days are left; days and hours are complete after that"
        )

    @property
    def used_bytes(self) -> int:
        """How much of the file is in use."""
        return self._bytes

    @property
    def since_s(self) -> float | None:
        """When the oldest bucket begins, Unix seconds; None where nothing is stored yet."""
        return self._since

    @property
    def dropped_minutes(self) -> int:
        """How many minutes of all series the memory did not hold while the disk failed, since the start."""
        return self._thinning.dropped

    @property
    def owed(self) -> Owed | None:
        """The time that was recorded without an InfluxDB and is in none yet; None where there is none."""
        database = self._database
        return database.owed if database else None

    @property
    def energy_since_s(self) -> int:
        """From when on every flow has an energy of its own, Unix seconds.

        Before, as stored by an earlier version, only counted flows have, and others are integrated from
        `flow`.
        """
        database = self._database
        return database.energy_since_s if database else 0

    @property
    def counted_flows(self) -> frozenset[str]:
        """The flows that a counter of the devices knows."""
        return frozenset(flow for profile in self._profiles for flow, _ in profile.energy)

    def last_readings(
        self, site: str, profile: Profile, sites: Collection[str] = ()
    ) -> Mapping[str, Reading]:
        """Return what a device's energy counters said last when the file was opened, by field.

        Nothing where the only one of the settings' `sites` had another name since then: under that name
        counters counted on.
        """
        own = SeriesKey(site, profile.measurement, profile.device)
        found = self._last_readings.get(own, {})
        if len(sites) == 1:
            newest_ns = max((reading.time_ns for reading in found.values()), default=0)
            for key, readings in self._last_readings.items():
                is_renamed = key.site not in sites and key[1:] == own[1:]
                if is_renamed and any(reading.time_ns > newest_ns for reading in readings.values()):
                    return {}
        return found

    def energies_until_s(self, site: str) -> Mapping[str, float]:
        """Return the time of each device's latest energy when the file was opened, Unix seconds."""
        return {device: at_s for (name, device), at_s in self._energies_until.items() if name == site}

    def record_alone(self) -> None:
        """Owe what is recorded from now on to an InfluxDB that is named later."""
        self._alone = True

    def hand_over(self, owed: Owed, until_s: int) -> None:
        """Remember on the disk that an InfluxDB has what is owed up to a time, Unix seconds.

        Where something else is owed by now, as after a damage of the file, nothing changes.

        Raises:
            OSError: the file cannot be written now.
        """
        with self._disk_lock:
            database = self._database
            if database is None or database.owed != owed:
                return
            try:
                database.owe(Owed(until_s, owed.last_s) if until_s < owed.last_s else None)
            except sqlite3.Error as error:
                self._tell(error)
                raise OSError(self._problem) from error

    def oldest_s(self, step: Step) -> int | None:
        """Give when the oldest bucket of this width on the disk begins, Unix seconds; None without one.

        Raises:
            OSError: the file cannot be read now.
        """
        with self._disk_lock:
            try:
                return self._database.oldest_s((step,)) if self._database else None
            except sqlite3.Error as error:
                self._tell(error)
                raise OSError(self._problem) from error

    def kept_since(self, step: Step) -> float:
        """Give from when on buckets of this width are kept, Unix seconds."""
        return self._now() - self._limits.kept_seconds[step.name]

    def start(self) -> None:
        """Open the file and write to it each minute, in a thread, until `close`."""
        self.flush()
        self._thread = threading.Thread(target=self._keep_flushing, name="store", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is pending, and let go of the file."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()
        with self._disk_lock:
            if self._database is not None:
                self._database.close()
            self._database = self._change = None

    def observe(self, points: Sequence[Point]) -> None:
        """Take points as they are made. Cheap, no I/O."""
        with self._lock:
            self._thinning.observe(points, self._now())

    def clock_was_set(self, by_seconds: float) -> None:
        """Learn that our clock was set: the newest samples are as old as before. Cheap, no I/O."""
        with self._lock:
            self._thinning.clock_was_set(by_seconds)

    def read(
        self, wanted: Mapping[SeriesKey, Container[str]], step: Step, start_s: int, end_s: int
    ) -> dict[SeriesKey, dict[int, Cells]]:
        """Give the wanted fields of each series: the buckets that begin in a range; may wait for a disk.

        Raises:
            OSError: the file cannot be read now.
        """
        with self._disk_lock:
            try:
                database = self._database
                found = {
                    key: dict(database.read(key, names, step, start_s, end_s)) if database else {}
                    for key, names in wanted.items()
                }
            except sqlite3.Error as error:
                self._tell(error)
                raise OSError(self._problem) from error
            with self._lock:
                last_s = self._end_of(step, end_s)
                pending = {key: self._thinning.pending_in(key, start_s, last_s) for key in wanted}
        for key, minutes in pending.items():
            for minute_s, cells in minutes:
                merge(found[key].setdefault(self.buckets.begin(step, minute_s), {}), cells)
        return found

    def series(self) -> list[SeriesKey]:
        """Give every series there is, in order."""
        with self._disk_lock, self._lock:
            stored = self._database.series if self._database else ()
            return sorted({*stored, *self._thinning.pending_series})

    def flush(self, spread_seconds: float = 0.0) -> bool:
        """Write what is pending, and forget what is too old; False where the disk fails.

        What many sites have made goes in portions, over so many seconds, so that neither what is recorded
        meanwhile nor who reads has to wait for all of it.
        """
        with self._lock:
            portions = 1 + self._thinning.pending_minutes // _MINUTES_A_PORTION
        for portion in range(portions):
            if portion:
                self._stopping.wait(spread_seconds / portions)
            if not self._write_portion():
                return False
        with self._disk_lock:
            return self._attempt(self._forget)

    def _write_portion(self) -> bool:
        with self._disk_lock:
            with self._lock:
                pending = self._thinning.take(_MINUTES_A_PORTION)
            stored = self._attempt(lambda database: self._add(database, pending))
            if not stored:
                with self._lock:
                    self._thinning.give_back(pending)
            return stored

    def _add(self, database: Database, pending: Pending) -> None:
        # Once the file is open: only then it is known by which zone its hours and days begin.
        rows = self._rows(pending)
        database.add(rows, self._owed_with(pending, database.owed))
        if rows and self._since is not None:
            self._since = min(self._since, *(begin_s for _, _, begin_s in rows))

    def _attempt(self, work: Callable[[Database], None]) -> bool:
        """Do something with the file, which is opened where it is not open; False where that fails."""
        try:
            work(self._database or self._open())
        except (sqlite3.Error, OSError) as error:
            self._tell(error)
            return False
        self._tell(None)
        return True

    def regroup(self) -> bool:
        """Regroup a day of a file that was written by another time zone; returns whether more are left."""
        with self._disk_lock:
            if self._change is None:
                return False
            return self._attempt(self._regroup_day) and self._change is not None

    def _regroup_day(self, database: Database) -> None:
        if self._change is not None and self._change.regroup_day():
            self._change = zone_change(database, self._timezone)
            if self._change is None:
                _log.info("the history is regrouped by the new time zone", timezone=self._timezone)

    def _keep_flushing(self) -> None:
        next_at = time.monotonic()
        while True:
            # What is recorded meanwhile is written each minute all the same.
            while time.monotonic() < next_at + FLUSH_EVERY_SECONDS and not self._stopping.is_set():
                if not self.regroup():
                    break
            next_at += FLUSH_EVERY_SECONDS
            if self._stopping.wait(max(0.0, next_at - time.monotonic())):
                return
            try:
                self.flush(FLUSH_EVERY_SECONDS / 2)
            except Exception as error:  # noqa: BLE001  # whatever it is, recording goes on
                _log.error("unexpected error while storing the history", exc_info=error)
                self._problem = f"store: unexpected {type(error).__name__}; please report it with the log"

    def _open(self) -> Database:
        # Known before it is read, so that damage which is met here is moved aside too.
        self._database = database = Database(self._path)
        try:
            self._change = zone_change(database, self._timezone)
            self._read_counters(database)
        except sqlite3.Error as error:
            if not is_damage(error):
                database.close()
                self._database = self._change = None
            raise
        return database

    def _read_counters(self, database: Database) -> None:
        counters = {
            (one.measurement, one.device): [counter.field for counter in one.energy_counters]
            for one in self._profiles
        }
        since_s = self._counters_since(database)
        for key in database.series:
            if key.measurement == ENERGY:
                _, energies = database.newest(key, STEPS[0])
                if UNTIL in energies:
                    self._energies_until[key.site, key.device] = energies[UNTIL][3]
                continue
            names = counters.get((key.measurement, key.device), ())
            begin_s, newest = database.newest(key, STEPS[0]) if names else (0, {})
            # The highest of the last minute is where a counter was.
            self._last_readings[key] = {
                name: Reading(newest[name][3], begin_s * 10**9)
                for name in names
                if name in newest and begin_s >= since_s[key.measurement, key.device, name]
            }

    def _counters_since(self, database: Database) -> dict[tuple[str, str, str], int]:
        """Return from when on each counter is read as it is now, Unix seconds, by measurement, device, field.

        What was stored before, with another scale, is not the level from which it goes on; nor is it where
        the counter was no part of the settings meanwhile, or counted something else: then others counted.
        """
        since_s: dict[tuple[str, str, str], int] = {}
        changed: dict[str, str] = {}
        absent = set(database.fact_names("counter "))
        for profile in self._profiles:
            for register in profile.registers:
                if register.kind != "counter":
                    continue
                place = (profile.measurement, profile.device, register.name)
                fact = " ".join(("counter", *place))
                absent.discard(fact)
                known = database.fact(fact)
                reading = f"{register.address} {register.type} {register.scale} {register.offset}"
                counts = f"{reading} {profile.role} {_flow_of(profile, register.name)}"
                before, _, at_s = str(known or "").partition(" since ")
                since_s[place] = int(at_s or 0)
                if before != counts:
                    # Earlier versions noted the reading alone.
                    since_s[place] = int(self._now()) if known and before != reading else since_s[place]
                    changed[fact] = f"{counts} since {since_s[place]}"
        for fact in absent:
            if not str(database.fact(fact) or "").startswith("-"):
                changed[fact] = "- since 0"
        if changed:
            database.put(changed)
        return since_s

    def _rows(self, pending: Pending) -> Rows:
        rows: Rows = {}
        for (key, minute_s), cells in pending.items():
            buckets = self._change.buckets_of(minute_s) if self._change else self.buckets
            for step in STEPS:
                merge(rows.setdefault((key, step, buckets.begin(step, minute_s)), {}), cells)
        return rows

    def _owed_with(self, pending: Pending, owed: Owed | None) -> Owed | None:
        """Widen what is owed, in whole hours, so that its row is written once an hour."""
        if not self._alone or not pending:
            return owed
        minutes = [minute_s for _, minute_s in pending]
        first_s, last_s = min(minutes) // _HOUR * _HOUR, (max(minutes) // _HOUR + 1) * _HOUR
        if owed is None:
            return Owed(first_s, last_s)
        return Owed(min(owed.first_s, first_s), max(owed.last_s, last_s))

    def _end_of(self, step: Step, end_s: int) -> int:
        """Give where the last bucket of a range ends: its minutes lie behind its beginning."""
        begin_s = self.buckets.begin(step, end_s - 1)
        return self.buckets.following(step, begin_s)

    def _forget(self, database: Database) -> None:
        """Delete what is too old, each hour, and the oldest of the finest where the file is too large."""
        due = self._now() >= self._next_forget_s
        if due:
            self._next_forget_s = self._now() + _FORGET_EVERY_SECONDS
            for step in STEPS:
                if self._limits.kept_seconds[step.name] != inf:
                    database.forget_before(step, int(self.kept_since(step)))
        self._bytes = database.used_bytes()
        if self._bytes > self._limits.max_bytes:
            due = True
            self._make_room(database)
        if due or self._since is None:
            # Asks for every series of each width: too much for each minute of many sites.
            self._since = database.oldest_s()

    def _make_room(self, database: Database) -> None:
        for step in STEPS[:-1]:
            while self._bytes > self._limits.max_bytes:
                oldest_s = database.oldest_s((step,))
                if oldest_s is None:
                    break
                span_s = max(step.width_seconds, (self._now() - oldest_s) * _SHARE_TO_FORGET)
                database.forget_before(step, int(oldest_s + span_s))
                self._bytes = database.used_bytes()

    def _tell(self, error: sqlite3.Error | OSError | None) -> None:
        """Say once what is wrong, and once that it works again; a damaged file is moved aside."""
        if error is None:
            if self._problem:
                _log.info("the store works again")
            self._problem = ""
            return
        if isinstance(error, sqlite3.Error) and is_damage(error) and self._database is not None:
            self._database.set_aside(str(error))
            self._database = self._since = self._change = None
        problem = (
            f"store: {self._path} cannot be used: {error}; free space there, or check the disk or SD card; "
            "until then the history is in memory only"
        )
        if problem != self._problem:
            _log.error("the history is not stored", reason=str(error))
        self._problem = problem


def _flow_of(profile: Profile, field: str) -> str:
    """Return the flow whose energy a field counts, "-" where there is none."""
    return next((flow for flow, name in profile.energy if name == field), "-")

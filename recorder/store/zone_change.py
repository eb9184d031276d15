"""Hours and days of the store's file, regrouped after the time zone of the settings was changed.

Takes the open file, one old day at a time, oldest first: rebuilds its rows from finer ones, by the new zone.
Each day is one transaction together with how far the change is, so that kill -9 at any moment loses and
doubles nothing. Bounded in memory by one day of one series.

What is rebuilt comes from the finest rows that still hold all of the old day: quarter hours, else hours,
else the day itself. A row that two new days share counts with the day that holds its middle.

    old rows │ old day ─► finer rows of it ─► new hours and days │ until_s, still by the old zone ...
"""

from collections.abc import Iterable, Sequence
from typing import Final
from zoneinfo import available_timezones

import structlog

from recorder.store.buckets import DAY, HOUR, STEPS, Buckets, Cells, Step, merge
from recorder.store.database import EVERYTHING, LAST_S, Database, Rows
from recorder.store.thinning import SeriesKey

_QUARTER: Final = STEPS[1]
_ZONE: Final = "timezone"
_HOURS_BY: Final = "hours_by"
_NEXT_ZONE: Final = "next_timezone"
_UNTIL: Final = "regrouped_until_s"
# Weights are sums of many floats.
_ROUNDING: Final = 1e-6

_log = structlog.get_logger(__name__)

_Source = tuple[Step, Sequence[tuple[int, Cells]]]


class ZoneChange:
    """A change that is under way.

    Args:
        database: the open file.
        old: where the file's hours and days begin so far.
        timezone: IANA name, the zone by which they are to begin.
        begins: where old days begin, Unix seconds, in order.
        until_s: how far the change is, Unix seconds.
    """

    def __init__(
        self, database: Database, old: Buckets, timezone: str, begins: Sequence[int], until_s: int
    ) -> None:
        self._database = database
        self._old = old
        self._new = Buckets(timezone)
        self._begins = begins
        self.timezone = timezone
        self.until_s = until_s

    @property
    def days_left(self) -> int:
        """How many days are still grouped by the old zone."""
        return sum(begin_s >= self.until_s for begin_s in self._begins)

    def buckets_of(self, minute_s: int) -> Buckets:
        """Return where the buckets of a minute begin in the file now."""
        return self._new if minute_s < self.until_s else self._old

    def regroup_day(self) -> bool:
        """Regroup the next day; returns whether that was the last one.

        Raises:
            sqlite3.Error: the file cannot be read or written; nothing has changed.
        """
        end_s = next((begin_s for begin_s in self._begins if begin_s > self.until_s), LAST_S)
        rows: Rows = {}
        replaced: list[tuple[SeriesKey, Step]] = []
        for key in self._database.series:
            for step, sources in self._outdated(key, end_s):
                replaced.append((key, step))
                for begin_s, cells in _regrouped(sources, self._new, step):
                    merge(rows.setdefault((key, step, begin_s), {}), cells)
        is_last = end_s == LAST_S
        facts = {_UNTIL: None, _NEXT_ZONE: None, _HOURS_BY: None, _ZONE: self.timezone}
        self._database.replace(replaced, self.until_s, end_s, rows, facts if is_last else {_UNTIL: end_s})
        self.until_s = end_s
        return is_last

    def _outdated(self, key: SeriesKey, end_s: int) -> list[tuple[Step, _Source]]:
        """Return the widths of a series that begin elsewhere now, each with what it is rebuilt from."""
        days, hours = self._read(key, DAY, end_s), self._read(key, HOUR, end_s)
        has_same_days, has_same_hours = self._is_same(DAY, days), self._is_same(HOUR, hours)
        if has_same_days and has_same_hours:
            return []
        quarters = self._read(key, _QUARTER, end_s)
        finer = [hours, quarters] if has_same_hours else [quarters, hours]
        outdated = []
        if not has_same_hours:
            outdated.append((HOUR, _first_whole((quarters, hours), hours)))
        if not has_same_days:
            outdated.append((DAY, _first_whole((*finer, days), days)))
        return outdated

    def _read(self, key: SeriesKey, step: Step, end_s: int) -> _Source:
        return step, list(self._database.read(key, EVERYTHING, step, self.until_s, end_s))

    def _is_same(self, step: Step, source: _Source) -> bool:
        return all(
            self._new.begin(step, begin_s) == begin_s
            and self._new.following(step, begin_s) == self._old.following(step, begin_s)
            for begin_s, _ in source[1]
        )


def zone_change(database: Database, timezone: str) -> ZoneChange | None:
    """Return the change that a file needs so that its days begin by `timezone`; None where it needs none.

    A change that was interrupted is finished first, to whatever zone it led. A file of an earlier version
    does not name its zone, and has hours of UTC.

    Raises:
        sqlite3.Error: the file cannot be read or written.
    """
    zone, hours_by = database.fact(_ZONE), str(database.fact(_HOURS_BY) or "")
    begins: Sequence[int] = database.begins(DAY)
    if zone is None:
        zone = _zone_of(begins, timezone)
        hours_by = "UTC" if any(begin_s % HOUR.width_seconds for begin_s in begins) else ""
        database.put({_ZONE: zone, _HOURS_BY: hours_by or None})
    wanted = database.fact(_NEXT_ZONE) or timezone
    if hours_by:
        # Hours first, cut by days of UTC, which hold whole hours of UTC.
        wanted = zone
        begins = range(begins[0] // DAY.width_seconds * DAY.width_seconds, begins[-1], DAY.width_seconds)
    elif wanted == zone:
        return None
    until_s = database.fact(_UNTIL) or 0
    database.put({_NEXT_ZONE: wanted})
    _log.info("days and hours of the history are regrouped by another time zone", old=zone, new=wanted)
    return ZoneChange(database, Buckets(str(zone), hours_by), str(wanted), begins, int(str(until_s)))


def _zone_of(begins: Sequence[int], timezone: str) -> str:
    """Return a zone whose days begin at these times: `timezone` where it fits, or where none does."""
    for zone in (timezone, *sorted(available_timezones())):
        buckets = Buckets(zone)
        if all(buckets.begin(DAY, begin_s) == begin_s for begin_s in begins):
            return zone
    return timezone


def _first_whole(sources: Iterable[_Source], truth: _Source) -> _Source:
    """Return the first source that holds all that is known: its oldest rows may have been deleted."""
    needed = _weight(truth)
    return next((one for one in sources if _weight(one) >= needed * (1 - _ROUNDING)), truth)


def _weight(source: _Source) -> float:
    return sum(cell[0] for _, cells in source[1] for cell in cells.values())


def _regrouped(source: _Source, new: Buckets, step: Step) -> Iterable[tuple[int, Cells]]:
    finer, rows = source
    for begin_s, cells in rows:
        yield new.begin(step, begin_s + finer.width_seconds // 2), cells

"""Days and hours in InfluxDB, computed again after the time zone of the settings was changed.

Takes the set-up of a database, deletes the rollups whose days or hours begin by another zone, and computes
them from quarter hours and minutes, which are the same in every zone. What has no finer rollups any more
stays. Remembers in a small file that there is something to do, so that a restart at any moment goes on.
Blocks.

    queries with another TZ, or days that begin at no local midnight
        └─► mark (file) ─► delete ─► compute ─► forget
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import structlog

from recorder.influx.backfill import bucket_start
from recorder.influx.continuous_queries import ContinuousQuery
from recorder.influx.errors import InfluxError
from recorder.influx.influxql import identifier
from recorder.influx.savings import MEASUREMENT as SAVINGS
from recorder.influx.savings import DailySavings
from recorder.influx.server import InfluxServer
from recorder.influx.setup import SetUp

FILE_NAME: Final = "day-borders.json"
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)
# What begins so long before the oldest point of its source may hold nothing of it, on a day of 23 hours.
_SHORTEST: Final = {_HOUR: timedelta(hours=1), _DAY: timedelta(hours=23)}
_SECOND_NS: Final = 10**9

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Outdated:
    """The rollups of one query that are to be computed again from where its source begins."""

    query: ContinuousQuery
    source_since: datetime
    delete_since: datetime


class DayBorders:
    """Keeps days and hours in InfluxDB to one time zone.

    Args:
        file: where it is remembered that there is something to do.
        set_up: that of the database; tells when it finds queries of another time zone.
        server: where the database is.
        timezone: IANA name, by which days and hours begin.
    """

    def __init__(self, file: Path, set_up: SetUp, server: InfluxServer, timezone: str) -> None:
        self._file = file
        self._set_up = set_up
        self._server = server
        self._timezone = timezone
        self._zone = ZoneInfo(timezone)
        self._looked: date | None = None
        self._progress = (0, 0)
        # What a full disk did not take: the zone of before.
        self._unsaved: str | None = None
        self.savings: DailySavings | None = None
        self.last_error = ""
        set_up.on_other_timezone = self.mark

    @property
    def is_pending(self) -> bool:
        """Whether days or hours are to be computed again."""
        return self._unsaved is not None or self._file.exists()

    @property
    def note(self) -> str:
        """What makes days incomplete now; empty while nothing does."""
        if not self.is_pending:
            return ""
        done, steps = self._progress
        return (
            f"the time zone was changed: days and hours in InfluxDB are computed again by {self._timezone}, "
            f"{done} of {steps} steps are done; until then they are incomplete"
        )

    @property
    def problem(self) -> str:
        """What keeps days from being right and what to do about it; empty while all is well."""
        return f"days of the new time zone are not computed yet: {self.last_error}" if self.last_error else ""

    def mark(self, old_timezone: str = "") -> None:
        """Remember that days and hours are to be computed again, on the disk where it can be written."""
        beside = self._file.with_suffix(".new")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with beside.open("w", encoding="utf-8") as file:
                json.dump({"old_timezone": old_timezone}, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._file)
        except OSError as error:
            self._unsaved = old_timezone
            _log.warning("the change of time zone is remembered in memory only", reason=str(error))

    def run(self, now: datetime) -> None:
        """Compute again what is to be; once a local day look whether all days begin at midnight."""
        try:
            if self._looked != (today := now.astimezone(self._zone).date()):
                if not self.is_pending and self.has_other_days(now):
                    self.mark()
                self._looked = today
            if self.is_pending:
                self.regroup(now)
        except (InfluxError, OSError) as error:
            self.last_error = str(error)
            _log.debug("days are not computed again yet", reason=str(error))
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not end the thread unseen
            self.last_error = f"unexpected {type(error).__name__}"
            _log.error("days are not computed again", exc_info=error)
        else:
            self.last_error = ""

    def has_other_days(self, now: datetime) -> bool:
        """Return whether a day begins at another time than a local midnight, though quarter hours are known.

        Raises:
            InfluxUnreachable: Nothing answered in time.
            InfluxRefused: The server does not carry a statement out.
        """
        return any(
            self._others(query, since - _SHORTEST[_DAY] + _SECOND, now)
            for query, since in self._sources()
            if query.bucket == _DAY
        )

    def regroup(self, now: datetime, progress: Callable[[int, int], None] | None = None) -> None:
        """Delete and compute again; `progress` is called with the steps done and their total.

        Raises:
            InfluxUnreachable: Nothing answered in time.
            InfluxRefused: The server does not carry a statement out.
        """
        outdated = [
            _Outdated(query, since, self._delete_since(query, since)) for query, since in self._wanted(now)
        ]
        for one in outdated:
            targets = [one.query.target]
            if one.query.bucket == _DAY and self.savings is not None:
                targets.append(SAVINGS)
            for target in targets:
                since_ns = round(one.delete_since.timestamp()) * _SECOND_NS
                self._server.query(f"DELETE FROM {identifier(target)} WHERE time >= {since_ns}")  # noqa: S608 - all names are quoted
        for done, one in enumerate(outdated):
            self._progress = (done, len(outdated))
            if progress is not None:
                progress(*self._progress)
            self._set_up.compute(one.source_since, now, now, one.query.__eq__)
        if self.savings is not None and (first := self.savings.first_day()) is not None:
            self.savings.compute(first, self.savings.today(now))
        self._file.unlink(missing_ok=True)
        self._unsaved = None
        _log.info("days and hours were computed again by the new time zone", timezone=self._timezone)

    def _wanted(self, now: datetime) -> list[tuple[ContinuousQuery, datetime]]:
        """Return the queries whose rollups are outdated, each with when its source begins."""
        old = self._old_timezone()
        return [
            (query, since)
            for query, since in self._sources()
            if query.bucket == _DAY
            or (self._has_other_hours(old, since, now) if old else self._has_other_ends(query, since, now))
        ]

    def _sources(self) -> list[tuple[ContinuousQuery, datetime]]:
        """Return the queries by local time, each with the time of the oldest point of its source."""
        found = []
        for query in self._set_up.installable_queries():
            if query.timezone:
                rows = self._server.query(query.oldest_statement())
                if rows:
                    found.append((query, datetime.fromtimestamp(rows[0]["time"] // _SECOND_NS, UTC)))
        return found

    def _others(self, query: ContinuousQuery, start: datetime, end: datetime) -> list[datetime]:
        """Return the times in a range of a query's results that are not where one of its buckets begins."""
        found: set[datetime] = set()
        while start < end:
            # In pieces, for years of hours with many fields are much memory.
            piece_end = min(end, start + query.chunk)
            rows = self._server.query(query.results_statement(start, piece_end))
            times = {datetime.fromtimestamp(row["time"] // _SECOND_NS, UTC) for row in rows}
            found |= {at for at in times if bucket_start(at, query.bucket, self._zone) != at}
            start = piece_end
        return sorted(found)

    def _delete_since(self, query: ContinuousQuery, since: datetime) -> datetime:
        """Return the begin of the outdated bucket that holds the oldest point of the source."""
        old_timezone = self._old_timezone()
        if old_timezone:
            return bucket_start(since, query.bucket, ZoneInfo(old_timezone))
        others = self._others(query, since - _SHORTEST[query.bucket] + _SECOND, since + _SECOND)
        return max(others, default=since)

    def _has_other_ends(self, query: ContinuousQuery, since: datetime, now: datetime) -> bool:
        """Return whether the first or last hours begin elsewhere."""
        return any(self._others(query, start, start + _DAY) for start in (since - _DAY, since, now - _DAY))

    def _has_other_hours(self, old_timezone: str, since: datetime, now: datetime) -> bool:
        """Return whether hours of two zones ever begin at different times between a time and now."""
        old = ZoneInfo(old_timezone)
        days = range(round(since.timestamp()), round(now.timestamp()) + 86_400, 86_400)
        moments = (datetime.fromtimestamp(at, UTC) for at in days)
        return any(bucket_start(at, _HOUR, old) != bucket_start(at, _HOUR, self._zone) for at in moments)

    def _old_timezone(self) -> str:
        """Return the zone of before; empty where it is not known."""
        try:
            name = self._unsaved or str(json.loads(self._file.read_bytes())["old_timezone"])
            ZoneInfo(name)
        except (OSError, ValueError, LookupError, TypeError):
            return ""
        return name

"""The continuous queries once more, over a range of the past.

Takes queries and a range, gives the statements that write what the queries would have written had
the data been there in time. Never deletes a point; running it twice changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from recorder.influx.continuous_queries import ContinuousQuery
from recorder.influx.server import Row
from recorder.store.buckets import hour_of

Ask = Callable[[str], list[Row]]

# A field may be missing in most samples: so many rows are read to find one sample of each field.
_ROWS_FOR_A_SAMPLE = 4
# What lies so close before a range is read for all series at once.
_LONG_PAUSE = timedelta(minutes=10)
_UTC = ZoneInfo("UTC")
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of a backfill: one query over one range, both ends where its buckets begin."""

    query: ContinuousQuery
    start: datetime
    end: datetime

    def statements(self, ask: Ask, oldest: datetime) -> Iterator[str]:
        """Give the statements of this piece: one for all series, and one for each that had a long pause.

        A result such as the mean of ten samples needs samples from before the range, and how far before
        depends on the pauses of each series: `ask` runs a statement that finds them. Nothing is computed
        from before `oldest`.
        """
        if not self.query.preceding:
            yield self.query.backfill_statement(self.start, self.end)
            return
        series = [_tags(row) for row in ask(self.query.series_statement(self.start, self.end))]
        if not series:
            return
        rows = ask(self.query.preceding_statement(self.start, self.query.preceding * _ROWS_FOR_A_SAMPLE))
        begin = self.start
        for tags in series:
            before = [row for row in rows if _tags(row) == tags]
            if not before:
                continue
            needed = datetime.fromtimestamp(_needed_ns(before, self.query.preceding) // 10**9, UTC)
            needed = bucket_start(max(needed, oldest), self.query.bucket, _UTC)
            if needed < self.start - _LONG_PAUSE:
                yield self.query.backfill_statement(needed, self.end, tags)
            else:
                begin = min(begin, needed)
        yield self.query.backfill_statement(begin, self.end)


def _tags(row: Row) -> dict[str, str]:
    """Give the tags of a row: what is text; every field of a source is a number."""
    return {name: value for name, value in row.items() if isinstance(value, str) and name != "series_name"}


def _needed_ns(rows: Sequence[Row], samples: int) -> int:
    """Give the time from which on every field has so many samples among the rows, newest first."""
    fields = {name for row in rows for name, value in row.items() if isinstance(value, int | float)}
    seen = {name: [row["time"] for row in rows if row.get(name) is not None][:samples] for name in fields}
    return int(min(times[-1] for times in seen.values()))


def steps(query: ContinuousQuery, start: datetime, end: datetime, timezone: ZoneInfo) -> Iterator[Step]:
    """Cut the buckets that touch `start` to `end` into pieces that end where the query's chunks end, in UTC.

    Days of 23 and 25 hours are whole days. A chunk's end is a bucket's begin for every bucket in use.
    """
    cursor = bucket_start(start, query.bucket, timezone)
    last = bucket_start(end, query.bucket, timezone)
    if last < end:
        last = _next_bucket(last, query.bucket, timezone)
    while cursor < last:
        chunk = bucket_start(cursor, query.chunk, timezone)
        piece_end = min(last, _next_bucket(chunk, query.chunk, timezone))
        yield Step(query, cursor, piece_end)
        cursor = piece_end


def bucket_start(at: datetime, bucket: timedelta, timezone: ZoneInfo) -> datetime:
    """Where the bucket that holds `at` begins by local time, in whole seconds, in UTC.

    UTC, because Python compares two times of one zone by the clock on the wall, which shows an hour twice.
    """
    local = at.astimezone(timezone)
    if bucket >= _DAY:
        return _midnight(local, 0)
    if bucket == _HOUR:
        return datetime.fromtimestamp(hour_of(at.timestamp(), timezone)[0], UTC)
    offset = local.utcoffset() or timedelta()
    seconds = max(bucket, _SECOND).total_seconds()
    since_epoch = (local.timestamp() + offset.total_seconds()) // seconds * seconds
    return datetime.fromtimestamp(since_epoch - offset.total_seconds(), UTC)


def _next_bucket(begin: datetime, bucket: timedelta, timezone: ZoneInfo) -> datetime:
    if bucket >= _DAY:
        return _midnight(begin.astimezone(timezone), bucket.days)
    if bucket == _HOUR:
        return datetime.fromtimestamp(hour_of(begin.timestamp(), timezone)[1], UTC)
    return begin + max(bucket, _SECOND)


def _midnight(local: datetime, days_later: int) -> datetime:
    day = local.date() + days_later * _DAY
    return datetime.combine(day, datetime.min.time(), local.tzinfo).astimezone(UTC)

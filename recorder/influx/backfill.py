"""The continuous queries once more, over a range of the past.

Takes queries and a range, gives the statements that write what the queries would have written had
the data been there in time. Never deletes a point; running it twice changes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from recorder.influx.continuous_queries import ContinuousQuery

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a backfill, and what it is about."""

    query: ContinuousQuery
    start: datetime
    end: datetime

    @property
    def statement(self) -> str:
        """The statement; it reads, and writes alike, the query's look-back before the range."""
        return self.query.backfill_statement(self.start - self.query.lookback, self.end)


def steps(query: ContinuousQuery, start: datetime, end: datetime, timezone: ZoneInfo) -> Iterator[Step]:
    """Cut the buckets that touch `start` to `end` into pieces that end at local midnights.

    Days of 23 and 25 hours are whole days. Local midnight is a bucket's begin for every bucket in use.
    """
    cursor = bucket_start(start, query.bucket, timezone)
    last = bucket_start(end, query.bucket, timezone)
    if last < end:
        last = _next_bucket(last, query.bucket)
    while cursor < last:
        piece_end = min(last, _midnight(cursor, query.chunk_days))
        yield Step(query, cursor, piece_end)
        cursor = piece_end


def bucket_start(at: datetime, bucket: timedelta, timezone: ZoneInfo) -> datetime:
    """Where the bucket that holds `at` begins, by local time, in whole seconds."""
    local = at.astimezone(timezone)
    if bucket >= _DAY:
        return _midnight(local, 0)
    offset = local.utcoffset() or timedelta()
    seconds = max(bucket, _SECOND).total_seconds()
    since_epoch = (local.timestamp() + offset.total_seconds()) // seconds * seconds
    return datetime.fromtimestamp(since_epoch - offset.total_seconds(), timezone)


def _next_bucket(begin: datetime, bucket: timedelta) -> datetime:
    if bucket >= _DAY:
        return _midnight(begin, 1)
    # Python adds to the time on the wall; the next bucket is a matter of elapsed time.
    return datetime.fromtimestamp(begin.timestamp() + max(bucket, _SECOND).total_seconds(), begin.tzinfo)


def _midnight(at: datetime, days_later: int) -> datetime:
    return datetime.combine(at.date() + days_later * _DAY, datetime.min.time(), at.tzinfo)

"""Local quarter hours, hours and days against zoneinfo, in zones with every kind of offset, over years."""

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recorder.influx.backfill import bucket_start
from recorder.store.buckets import DAY, HOUR, STEPS, Buckets, Step
from tests.support.influxd import Influxd

ZONES = (
    "UTC",
    "Europe/Berlin",
    "Africa/Casablanca",
    "America/St_Johns",
    "America/Havana",
    "America/Santiago",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Pyongyang",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
)
MINUTE, QUARTER = STEPS[:2]
# 2000 to 2060; St John's moved its clock at one minute past midnight until 2011.
FIRST_S, LAST_S = 946_684_800, 2_840_140_800


@cache
def changes(zone: str) -> list[int]:
    """Quarter hours with which the clock of a zone is set."""
    offsets = {day: local(day, zone).utcoffset() for day in range(FIRST_S, LAST_S, 86_400)}
    days = [day for day in offsets if offsets[day] != offsets.get(day + 86_400, offsets[day])]
    return [
        next(at for at in range(day, day + 86_401, 900) if local(at, zone).utcoffset() != offsets[day])
        for day in days
    ]


@st.composite
def moments(draw: st.DrawFn) -> tuple[int, str]:
    """A time and a zone: every other one within two hours of a time at which the clock is set."""
    zone = draw(st.sampled_from(ZONES))
    is_near = draw(st.booleans())
    if is_near and changes(zone):
        return draw(st.sampled_from(changes(zone))) + draw(st.integers(-7200, 7200)), zone
    return draw(st.integers(FIRST_S, LAST_S)), zone


def local(at_s: int, zone: str) -> datetime:
    return datetime.fromtimestamp(at_s, ZoneInfo(zone))


def wall(at_s: int, zone: str) -> datetime:
    """What the clock on the wall shows."""
    return local(at_s, zone).replace(tzinfo=None)


def midnight(day: date, zone: str) -> int:
    return int(datetime.combine(day, time(), ZoneInfo(zone)).timestamp())


@settings(max_examples=300)
@given(moments(), st.sampled_from(STEPS))
def test_bucket_holds_its_times_and_no_others(moment: tuple[int, str], step: Step) -> None:
    """Each time is in one bucket: buckets follow each other without a hole, and agree on where they begin."""
    at_s, zone = moment
    buckets = Buckets(zone)
    begin = buckets.begin(step, at_s)
    end = buckets.following(step, begin)
    assert begin <= at_s < end
    assert Buckets(zone).begin(step, end - 1) == begin
    assert Buckets(zone).begin(step, end) == end


@settings(max_examples=300)
@given(moments())
def test_hour_has_one_name_on_the_clock(moment: tuple[int, str]) -> None:
    """All times of an hour show the same local hour; it begins at minute 0, or where the clock is set."""
    at_s, zone = moment
    begin = Buckets(zone).begin(HOUR, at_s)
    end = Buckets(zone).following(HOUR, begin)
    if zone in {"America/St_Johns", "Pacific/Chatham"}:
        # There the clock is set by an hour within an hour.
        assert end - begin == 3600
        return
    named = {wall(one, zone).replace(minute=0) for one in range(begin, end, 900)}
    assert named == {wall(at_s, zone).replace(minute=0, second=0)}
    is_full = wall(begin, zone).minute == 0
    assert is_full or wall(begin, zone) - wall(begin - 1, zone) != timedelta(seconds=1)


@settings(max_examples=300)
@given(moments())
def test_day_has_one_date(moment: tuple[int, str]) -> None:
    """A day holds exactly the times that show its date."""
    at_s, zone = moment
    buckets = Buckets(zone)
    begin = buckets.begin(DAY, at_s)
    end = buckets.following(DAY, begin)
    day = local(at_s, zone).date()
    if local(at_s, zone).date() == date(2011, 12, 29) and zone == "Pacific/Apia":
        return
    assert {local(one, zone).date() for one in (begin, at_s, end - 1)} == {day}
    assert local(begin - 1, zone).date() < day < local(end, zone).date()


@settings(max_examples=300)
@given(moments())
def test_quarter_hours_are_local(moment: tuple[int, str]) -> None:
    """A quarter hour begins when the clock shows a quarter of an hour, in every zone."""
    at_s, zone = moment
    begin = Buckets(zone).begin(QUARTER, at_s)
    shown = wall(begin, zone)
    assert (shown.minute % 15, shown.second) == (0, 0)


@settings(max_examples=300)
@given(moments())
def test_backfill_and_history_have_the_same_hours_and_days(moment: tuple[int, str]) -> None:
    """What InfluxDB is asked to compute again begins where the buckets of the history begin."""
    at_s, zone = moment
    at = datetime.fromtimestamp(at_s, UTC)
    for step, width in ((HOUR, timedelta(hours=1)), (DAY, timedelta(days=1))):
        assert bucket_start(at, width, ZoneInfo(zone)).timestamp() == Buckets(zone).begin(step, at_s)


@pytest.mark.parametrize(
    ("zone", "day", "minutes"),
    [
        # The clock goes back by half an hour, and forward by half an hour.
        ("Australia/Lord_Howe", date(2026, 4, 5), [60, 90] + [60] * 22),
        ("Australia/Lord_Howe", date(2026, 10, 4), [60, 60, 30] + [60] * 21),
        ("Europe/Berlin", date(2026, 10, 25), [60] * 25),
        ("Pacific/Chatham", date(2026, 9, 27), [60] * 23),
    ],
)
def test_hours_of_a_day_on_which_the_clock_is_set(zone: str, day: date, minutes: list[int]) -> None:
    """The hours of such a day are as long as the clock makes them."""
    buckets = Buckets(zone)
    begin = midnight(day, zone)
    end = buckets.following(DAY, begin)
    hours = list(buckets.beginnings(HOUR, begin, end))
    assert [(buckets.following(HOUR, one) - one) // 60 for one in hours] == minutes


DAYS = [
    ("Asia/Kolkata", date(2026, 6, 1)),
    ("Asia/Kathmandu", date(2026, 6, 1)),
    ("Australia/Lord_Howe", date(2026, 4, 4)),
    ("Australia/Lord_Howe", date(2026, 10, 3)),
    ("Pacific/Chatham", date(2026, 9, 26)),
    ("America/St_Johns", date(2026, 10, 31)),
    ("America/Santiago", date(2026, 9, 5)),
    ("Africa/Casablanca", date(2026, 2, 14)),
    ("Europe/Berlin", date(2026, 3, 28)),
    ("Atlantic/Azores", date(2026, 10, 24)),
]


def test_influxdb_groups_by_the_same_hours_and_days(tmp_path: Path) -> None:
    """`GROUP BY time(1h) TZ(...)` and `time(1d)` of a real InfluxDB have the borders of the history."""
    with Influxd(tmp_path) as influxd:
        influxd.query("CREATE DATABASE x")
        for number, (zone, day) in enumerate(DAYS):
            begin = midnight(day, zone)
            quarters = range(begin, begin + 3 * 86_400, 900)
            influxd.write("\n".join(f"m{number} v=1 {at * 10**9}" for at in quarters).encode(), "x")
            for step in (HOUR, DAY):
                grouping = f"GROUP BY time({step.name}) fill(none) TZ('{zone}')"
                within = f"time >= {begin}s AND time < {quarters.stop}s"
                rows = influxd.query(f"SELECT sum(v) FROM m{number} WHERE {within} {grouping}", "x")
                counted: dict[int, float] = {}
                for at in quarters:
                    bucket = Buckets(zone).begin(step, at)
                    counted[bucket] = counted.get(bucket, 0) + 1
                assert {row["time"] // 10**9: row["sum"] for row in rows} == counted, (zone, step.name)

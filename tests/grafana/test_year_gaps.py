"""Where the simulated year lacks data, how curves end at the newest point, and what is marked on them."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from tests.grafana.as_grafana import TimeRange, resolved
from tests.grafana.pages import CHOSEN, DASHBOARDS, panel
from tests.grafana.test_year import last, local_days, number, rows, table, values
from tests.grafana.year import PAUSE_DAYS, PAUSE_SECONDS, SHORT_PAUSE_SECONDS, ZONE, Year
from tests.support.influxd import Row, as_of


def pause(year: Year) -> TimeRange:
    """When nothing was recorded, of the long pause."""
    silent = [span for span in year.truth.spans if not span.recorded and span.seconds > 1]
    start = datetime.fromtimestamp(silent[0].start_s, ZONE)
    return TimeRange(start, start + timedelta(seconds=PAUSE_SECONDS))


@pytest.mark.parametrize(
    ("dashboard", "title"),
    [("energy-flows", "Power"), ("battery-and-pv", "State of charge"), ("grid", "Frequency")],
)
@pytest.mark.parametrize("days", [1, 10])
def test_a_pause_is_a_gap(year: Year, dashboard: str, title: str, days: int) -> None:
    """Where nothing was recorded a curve is empty, before and after it is not."""
    start, end = pause(year)
    around = TimeRange(start - timedelta(days=days / 2), end + timedelta(days=days / 2))
    found = rows(year, panel(dashboard, title), around)
    inside = [row for row in found if start.timestamp() * 1e9 <= row["time"] < end.timestamp() * 1e9 - 36e11]
    assert inside
    assert all(value is None for row in inside for value in values(row).values())
    outside = [row for row in found if row["time"] < start.timestamp() * 1e9 - 36e11][1:]
    assert outside
    assert all(value is not None for row in outside for value in values(row).values())


def test_a_short_pause_of_samples_is_a_gap(year: Year) -> None:
    """Ten minutes without samples are empty in a plot of samples."""
    silent = [span.start_s for span in year.truth.spans if not span.recorded and span.seconds == 1]
    found = rows(year, panel("energy-flows", "Power"), last(year, 4 / 24))
    inside = [row for row in found if silent[0] + 30 < row["time"] / 1e9 < silent[-1] - 30]
    assert len(inside) > 20
    assert all(value is None for row in inside for value in values(row).values())


@pytest.mark.parametrize("days", [1, 3, 30])
def test_rate_of_frames_is_true_to_the_newest_point(year: Year, days: int) -> None:
    """A source of a frame a second shows that rate, also in the newest piece of time, which goes on."""
    now = year.now - timedelta(seconds=25)
    rate = panel("recorder", "Rate of frames")
    found = rows(year, rate, TimeRange(now - timedelta(days=days), now))
    shown = [value for row in found for value in values(row).values() if value is not None]
    assert len(shown) > 100
    assert shown == pytest.approx([1.0] * len(shown))


def test_coverage_tells_the_pause(year: Year) -> None:
    """The day of the pause has data in as many hours as were recorded; another day in all of them."""
    day = pause(year).start.date()
    for at, hours in ((day, 24 - PAUSE_SECONDS / 3600), (day - timedelta(days=2), 24)):
        covered = number(year, "energy-history", "Data coverage", local_days(at))["Coverage"]
        assert covered == pytest.approx(100 * hours / 24, abs=0.01)


def test_deviation_tells_what_a_pause_hid(year: Year) -> None:
    """Integrated energy of the day of the pause lacks what the counters saw; else both agree."""
    day = pause(year).start.date()
    (row,) = table(year, panel("energy-history", "Deviation from the counters, by day"), local_days(day))
    hidden = year.truth.energy(*pause(year))
    assert hidden["bought"] + hidden["sold"] > 0.05
    assert row["Bought"] == pytest.approx(-hidden["bought"], abs=0.02)
    assert row["Sold"] == pytest.approx(-hidden["sold"], abs=0.02)
    week = local_days(day - timedelta(days=9), 7)
    percent = number(year, "energy-history", "Deviation from the counters", week)
    counted = number(year, "energy-flows", "Energy in the chosen range", week)
    by_day = table(year, panel("energy-history", "Deviation from the counters, by day"), week)
    for name, shown in percent.items():
        apart = sum(row[name] for row in by_day)
        assert abs(apart) < 0.11
        assert shown * counted[name] == pytest.approx(100 * apart, abs=1e-6)


def annotation(year: Year, name: str, days: float) -> Sequence[Row]:
    """What an annotation marks in the last days."""
    (found,) = (each for each in DASHBOARDS["energy-flows"]["annotations"]["list"] if each["name"] == name)
    return year.ask(resolved(found["target"]["query"], last(year, days), CHOSEN))


def test_annotations_mark_pauses(year: Year) -> None:
    """A pause of minutes is marked at its end, one of hours by the hours that it took, also in a year."""
    (short,) = annotation(year, "Gaps: minutes without data", 1)
    assert 9 <= short["minutes"] <= 11
    end = pause(year).end
    for days in (PAUSE_DAYS + 1, 365):
        hours = annotation(year, "Gaps: hours since the last data", days)
        lacking = annotation(year, "Gaps: minutes that an hour lacks", days)
        missed = sum(60 * (row["hours"] - 1) for row in hours) + sum(row["minutes"] for row in lacking)
        assert missed == pytest.approx(PAUSE_SECONDS / 60, abs=1)
        assert all(abs(row["time"] / 1e9 - end.timestamp()) <= 4 * 3600 for row in (*hours, *lacking))


def test_annotations_mark_restarts_and_alerts(year: Year) -> None:
    """A restart is marked where the recorder said so; alerts are Grafana's own annotations."""
    (restart,) = annotation(year, "Restarts", 365)
    assert restart["started"] == 1.0
    for dashboard in DASHBOARDS.values():
        alerts = dashboard["annotations"]["list"][0]
        assert (alerts["builtIn"], alerts["enable"]) == (1, True)
        assert alerts["datasource"]["uid"] == "-- Grafana --"


@pytest.mark.parametrize(("hours", "percent"), [(1, 100), (24, 100 * (1 - SHORT_PAUSE_SECONDS / 86_400))])
def test_coverage_is_of_the_range_that_is_chosen(year: Year, hours: int, percent: float) -> None:
    """The last hour and the last day are covered but for the pause in them, wherever hours begin."""
    covered = number(year, "energy-history", "Data coverage", last(year, hours / 24))["Coverage"]
    assert covered == pytest.approx(percent, abs=0.15)


def test_coverage_bears_that_grafana_asks_a_moment_later(year: Year) -> None:
    """Grafana resolves `__from` some ms before it sends the query with the range."""
    end = last(year, 1).end
    for days in (1, 365):
        start = end - timedelta(days=days)
        found = []
        for target in panel("energy-history", "Data coverage")["targets"]:
            earlier = target["query"].replace("${__from}", str(round(start.timestamp() * 1000) - 377))
            found += year.ask(resolved(earlier, TimeRange(start, end), CHOSEN, days * 86_400))
        (row,) = found
        assert row["Coverage"] > 99


def test_coverage_counts_the_time_before_the_first_data(year: Year) -> None:
    """Of a range that began before anything was recorded, that part is not covered."""
    first = datetime.fromtimestamp(year.truth.spans[0].start_s, ZONE)
    for days in (3, 30):
        chosen = TimeRange(first - timedelta(days=days), first + timedelta(days=days))
        covered = number(year, "energy-history", "Data coverage", chosen)["Coverage"]
        assert covered == pytest.approx(50, abs=0.2)


def test_coverage_over_time_has_no_cut_piece(year: Year) -> None:
    """Each piece but that of a pause is whole, also the first and the last one; one without data is 0."""
    found = rows(year, panel("energy-history", "Data coverage over time"), last(year, 15))
    assert [row["Coverage"] for row in found] == pytest.approx([100] * len(found), abs=1)
    first = datetime.fromtimestamp(year.truth.spans[0].start_s, ZONE)
    chosen = TimeRange(first - timedelta(days=4), first + timedelta(days=4))
    assert rows(year, panel("energy-history", "Data coverage over time"), chosen)[0]["Coverage"] == 0


def test_outage_that_goes_on_is_marked_from_its_start(year: Year) -> None:
    """Half an hour after the last data a region is marked, from the last data to the end of the range."""
    (found,) = (
        each
        for each in DASHBOARDS["energy-flows"]["annotations"]["list"]
        if each["name"] == "Gaps: without an end"
    )
    for minutes, marks in ((2, 0), (33, 1)):
        now = year.now + timedelta(minutes=minutes)
        for hours in (0.25, 24):
            chosen = TimeRange(now - timedelta(hours=hours), now)
            asked = as_of(now, resolved(found["target"]["query"], chosen, CHOSEN))
            marked = year.server.query(asked, "ess")
            assert len(marked) == marks
            for mark in marked:
                assert mark["time"] == (year.truth.end_s - 60) * 10**9
                assert mark["until"] == round(now.timestamp() * 1000)
                assert minutes - 3 <= mark["minutes"] <= minutes

"""Savings in a real InfluxDB: each site and local day once, counters first, and computed anew."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from recorder.influx.errors import InfluxRefused
from recorder.influx.savings import DailySavings
from recorder.influx.server import Connection, InfluxServer
from recorder.tariffs.model import Tariffs, parse_tariffs
from tests.support.influxd import Influxd, Row

ZONE = ZoneInfo("Europe/Berlin")
SPRING, AUTUMN = date(2026, 3, 29), date(2026, 10, 25)
SITE = "24/7 \"Müllers\" Haus, Nr. 3 'am See'"
TAG = SITE.replace(",", "\\,").replace(" ", "\\ ")
FLAT = "{valid_from: 2020-01-01, import_price: 0.3, feed_in_price: 0.08}"


def tariffs(*each: str) -> Tariffs:
    """A file with these tariffs."""
    return parse_tariffs("currency: EUR\ntariffs:\n" + "\n".join(f"  - {one}" for one in each), "t.yaml", {})


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """A database with the policy of the rollups, and no point."""
    with Influxd(tmp_path / "influxd") as server:
        server.query('CREATE DATABASE "ess"')
        server.query('CREATE RETENTION POLICY "rollups" ON "ess" DURATION INF REPLICATION 1')
        yield server


def daily(server: Influxd, *each: str) -> DailySavings:
    """What computes savings by these tariffs."""
    return DailySavings(InfluxServer(Connection(server.url)), tariffs(*(each or (FLAT,))), str(ZONE))


def write_days(server: Influxd, first: date, days: int, site: str = TAG) -> None:
    """Quarters of local days, each with 1 kWh used, 0.5 bought and 0.25 sold, in two series as ever."""
    at = datetime.combine(first, datetime.min.time(), ZONE).timestamp()
    end = datetime.combine(first + timedelta(days=days), datetime.min.time(), ZONE).timestamp()
    lines = []
    while at < end:
        flow = "home=1.0,grid_import_integrated=0.4,grid_export_integrated=0.2"
        lines.append(f"energy_15m,device=pcs,site={site} {flow} {round(at)}000000000")
        lines.append(
            f"energy_15m,device=meter,site={site} grid_import=0.5,grid_export=0.25 {round(at)}000000000"
        )
        at += 900
    server.write("\n".join(lines).encode(), "ess", "rollups")


def stored(server: Influxd) -> list[Row]:
    """What is in the database."""
    return server.query('SELECT * FROM "ess"."rollups"."savings_1d"', "ess")


@pytest.mark.parametrize(("day", "quarters"), [(date(2026, 6, 10), 96), (SPRING, 92), (AUTUMN, 100)])
def test_day_stands_at_its_local_midnight(influxd: Influxd, day: date, quarters: int) -> None:
    """A day of 23, 24 or 25 hours is one point, with the counters' energies, at the time where it begins."""
    write_days(influxd, day - timedelta(days=1), 3)
    assert daily(influxd).compute(day, day) == 1
    (row,) = stored(influxd)
    begin = datetime.combine(day, datetime.min.time(), ZONE)
    assert (row["time"], row["site"]) == (round(begin.timestamp()) * 10**9, SITE)
    assert row["cost_without_system"] == pytest.approx(0.3 * quarters, abs=1e-9)
    assert row["import_cost"] == pytest.approx(0.15 * quarters, abs=1e-9)
    assert row["feed_in_income"] == pytest.approx(0.02 * quarters, abs=1e-9)
    assert row["saved"] == pytest.approx(0.17 * quarters, abs=1e-9)


def test_quarter_without_a_counter_is_integrated(influxd: Influxd) -> None:
    """Where no counter gained what is known, what power integrates to counts, and not nothing."""
    at = round(datetime(2026, 6, 10, 12, tzinfo=ZONE).timestamp())
    for begin, field in (
        (at, "grid_import_integrated=2.0"),
        (at + 900, "grid_import=3.0,grid_import_integrated=9.0"),
    ):
        influxd.write(
            f"energy_15m,device=pcs,site=a home=1.0,{field} {begin}000000000".encode(), "ess", "rollups"
        )
    daily(influxd).compute(date(2026, 6, 10), date(2026, 6, 10))
    (row,) = stored(influxd)
    assert row["import_cost"] == pytest.approx(0.3 * 5)


def test_each_site_has_its_own(influxd: Influxd) -> None:
    """Sites are computed apart, and a site without energy on a day has no point."""
    write_days(influxd, date(2026, 6, 1), 40, "a")
    write_days(influxd, date(2026, 6, 3), 2, "b")
    assert daily(influxd).compute(date(2026, 5, 1), date(2026, 7, 20)) == 42
    rows = stored(influxd)
    assert [row["site"] for row in rows].count("b") == 2
    assert len({(row["time"], row["site"]) for row in rows}) == 42


def test_twice_changes_nothing(influxd: Influxd) -> None:
    """Computing days again leaves the same points."""
    write_days(influxd, date(2026, 6, 1), 3)
    for _ in range(2):
        daily(influxd).compute(date(2026, 6, 1), date(2026, 6, 3))
        rows = stored(influxd)
        assert len(rows) == 3
    daily(influxd).compute_anew(date(2026, 6, 1), date(2026, 6, 3))
    assert stored(influxd) == rows


def test_changed_tariff_changes_history(influxd: Influxd) -> None:
    """Computed anew, days have the new prices, those without a tariff have nothing, and other days stay."""
    write_days(influxd, date(2026, 6, 1), 4)
    daily(influxd).compute(date(2026, 6, 1), date(2026, 6, 4))
    later = "{valid_from: 2026-06-03, import_price: 0.6}"
    assert daily(influxd, later).compute_anew(date(2026, 6, 2), date(2026, 6, 3)) == 1
    costs = [round(row["import_cost"], 6) for row in stored(influxd)]
    assert costs == [14.4, 28.8, 14.4]


def test_first_day_is_local(influxd: Influxd) -> None:
    """The oldest energy is found, and an empty database has none."""
    assert daily(influxd).first_day() is None
    write_days(influxd, date(2026, 6, 1), 1)
    assert daily(influxd).first_day() == date(2026, 6, 1)


def test_missing_database_is_an_error_with_a_remedy(influxd: Influxd) -> None:
    """What InfluxDB refuses is an error in its own words."""
    influxd.query('DROP DATABASE "ess"')
    with pytest.raises(InfluxRefused, match="database not found: ess"):
        daily(influxd).compute(date(2026, 6, 1), date(2026, 6, 1))

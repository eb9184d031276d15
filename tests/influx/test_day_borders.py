"""Days and hours of a real InfluxDB after the time zone of the settings was changed."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from recorder.influx.day_borders import DayBorders
from recorder.influx.savings import DailySavings
from recorder.influx.server import Connection, InfluxServer
from recorder.influx.setup import SetUp
from recorder.tariffs.model import parse_tariffs
from tests.influx.plant import NS, line, quiet, set_up
from tests.support.influxd import Influxd, Row

BEGIN = datetime(2026, 10, 20, 9, 7, tzinfo=UTC)
NOW = datetime(2026, 10, 30, 12, tzinfo=UTC)
CHANGES = [
    ("Europe/Berlin", "America/New_York"),
    ("Europe/Berlin", "Africa/Lagos"),
    ("Europe/Berlin", "Asia/Kolkata"),
    ("Asia/Kathmandu", "Pacific/Chatham"),
]
FLAT = parse_tariffs(
    "currency: EUR\ntariffs:\n  - {valid_from: 2020-01-01, import_price: 0.3, feed_in_price: 0.08}", "t", {}
)
DAYS_AND_HOURS = ("energy_1d", "energy_1h", "flow_1h", "pcs_1h", "savings_1d", "recorder_1h")


@pytest.fixture(scope="module")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    with Influxd(tmp_path_factory.mktemp("influxd")) as server:
        yield server


@pytest.fixture(autouse=True)
def _empty(influxd: Influxd) -> None:
    influxd.query("DROP DATABASE ess")


def lines() -> list[bytes]:
    """Ten days of a home: 1 kW at all times, so that an hour has 1 kWh."""
    made = []
    for at in range(round(BEGIN.timestamp()), round(NOW.timestamp()), 60):
        made.append(line("flow", at * NS, {"home": 1000.0}, "pcs"))
        made.append(line("pcs", at * NS, {"active_power": float(at % 7200)}))
        made.append(line("recorder", at * NS, {"sample_age": float(at % 7200)}, "x"))
        made.append(line("energy_10s", at * NS, {"home": 1 / 60, "grid_import": 1 / 60}, "pcs"))
    return made


def changed(influxd: Influxd, tmp_path: Path, zone: str) -> tuple[SetUp, DayBorders]:
    """What a recorder with this zone does at its start."""
    made = set_up(influxd, timezone=zone)
    server = InfluxServer(Connection(influxd.url))
    borders = DayBorders(tmp_path / "day-borders.json", made, server, zone)
    borders.savings = DailySavings(server, FLAT, zone)
    made.apply()
    return made, borders


def record(influxd: Influxd, tmp_path: Path, zone: str) -> None:
    """Fill an empty database as a recorder with this zone does."""
    influxd.query("DROP DATABASE ess")
    made, borders = changed(influxd, tmp_path / "none", zone)
    influxd.write(b"\n".join(lines()), "ess")
    made.backfill(BEGIN, NOW, NOW, quiet)
    assert borders.savings is not None
    borders.savings.compute(BEGIN.date() - timedelta(days=1), NOW.date() + timedelta(days=1))


def content(influxd: Influxd) -> dict[str, list[Row]]:
    found = {name: influxd.query(f"SELECT * FROM rollups.{name}", "ess") for name in DAYS_AND_HOURS}
    assert all(found.values())
    return found


def energy(influxd: Influxd, measurement: str = "energy_1d") -> float:
    rows = influxd.query(f"SELECT home FROM rollups.{measurement}", "ess")
    return sum(float(row["home"]) for row in rows)


def assert_same(found: dict[str, list[Row]], expected: dict[str, list[Row]]) -> None:
    for name, rows in expected.items():
        assert [row["time"] for row in found[name]] == [row["time"] for row in rows], name
        for one, other in zip(found[name], rows, strict=True):
            assert one == pytest.approx(other), name


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_days_and_hours_are_those_of_the_new_zone(
    influxd: Influxd, tmp_path: Path, old: str, new: str
) -> None:
    """After a change, days, hours and savings are what they were had the zone always been the new one."""
    record(influxd, tmp_path, new)
    expected = content(influxd)
    record(influxd, tmp_path, old)
    _, borders = changed(influxd, tmp_path, new)
    assert borders.note
    borders.run(NOW)
    assert (borders.note, borders.problem) == ("", "")
    assert_same(content(influxd), expected)
    truth = (NOW - BEGIN) / timedelta(hours=1)
    assert energy(influxd) == pytest.approx(truth, abs=0.02)
    assert energy(influxd, "energy_1h") == pytest.approx(truth, abs=0.02)


def test_restart_midway_goes_on(influxd: Influxd, tmp_path: Path) -> None:
    """A recorder that ends at any statement of the change goes on after its next start."""
    record(influxd, tmp_path, "Asia/Kolkata")
    expected = content(influxd)
    statements = 0
    while True:
        record(influxd, tmp_path, "Europe/Berlin")
        _, borders = changed(influxd, tmp_path, "Asia/Kolkata")
        ended = _end_after(borders, statements)
        # The next process knows what is on the disk only.
        _, again = changed(influxd, tmp_path, "Asia/Kolkata")
        again.run(NOW)
        assert not again.note
        assert_same(content(influxd), expected)
        if not ended:
            break
        statements += 7
    assert statements > 20


def _end_after(borders: DayBorders, statements: int) -> bool:
    """Run, but end as a killed process does before a statement; whether it came to that."""
    server, left = borders._server, statements
    query = server.query

    def counted(statement: str, **options: float) -> list[Row]:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return query(statement, **options)

    server.query = borders._set_up._server.query = counted  # type: ignore[method-assign, assignment]
    try:
        borders.run(NOW)
    except KeyboardInterrupt:
        return True
    return False


def test_days_with_other_borders_are_found_without_a_memory(influxd: Influxd, tmp_path: Path) -> None:
    """Where queries were replaced by hand, old and new midnights coexist: a look finds and ends that."""
    record(influxd, tmp_path, "Europe/Berlin")
    made = set_up(influxd, timezone="America/New_York")
    made.apply()
    made.backfill(BEGIN, NOW, NOW, quiet)
    truth = (NOW - BEGIN) / timedelta(hours=1)
    assert energy(influxd) == pytest.approx(2 * truth, abs=0.04)
    _, borders = changed(influxd, tmp_path, "America/New_York")
    borders.run(NOW)
    assert energy(influxd) == pytest.approx(truth, abs=0.02)


def test_days_that_have_no_quarter_hours_stay(influxd: Influxd, tmp_path: Path) -> None:
    """What was handed over as days only keeps its amounts, and no day of it is counted twice."""
    record(influxd, tmp_path, "Europe/Berlin")
    zone = ZoneInfo("Europe/Berlin")
    cut = datetime.combine(date(2026, 10, 24), datetime.min.time(), zone)
    influxd.query(f"DELETE FROM energy_15m WHERE time < {round(cut.timestamp())}s", "ess")
    before = energy(influxd)
    _, borders = changed(influxd, tmp_path, "America/New_York")
    borders.run(NOW)
    assert energy(influxd) == pytest.approx(before)
    # A second look changes nothing.
    _, borders = changed(influxd, tmp_path, "America/New_York")
    assert not borders.has_other_days(NOW)


def test_zone_with_the_same_midnights_changes_nothing(influxd: Influxd, tmp_path: Path) -> None:
    """Berlin and Paris have the same days and hours."""
    record(influxd, tmp_path, "Europe/Berlin")
    expected = content(influxd)
    _, borders = changed(influxd, tmp_path, "Europe/Paris")
    borders.run(NOW)
    assert_same(content(influxd), expected)

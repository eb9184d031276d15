"""Savings by the service itself and by its command, on a real InfluxDB, with a tariff file."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.support.influxd import Influxd, Row, wait_until
from tests.support.service import Service, ess_recorder

# Where it is noon, so that no day ends during a test; the sign of these names is that of the way to UTC.
NOON_ZONE = f"Etc/GMT{datetime.now(UTC).hour - 12:+d}"
ZONE = ZoneInfo(NOON_ZONE)
TARIFF = "currency: EUR\ntariffs: [{valid_from: 2020-01-01, import_price: 0.5}]"


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """Energies of the last three local days: in each quarter of an hour 1 kWh is used, half of it bought."""
    with Influxd(tmp_path / "influxd") as server:
        server.query('CREATE DATABASE "ess"')
        server.query('CREATE RETENTION POLICY "rollups" ON "ess" DURATION INF REPLICATION 1')
        server.write("\n".join(quarters()).encode(), "ess", "rollups")
        (tmp_path / "tariff.yaml").write_text(TARIFF)
        yield server


def by_local_days(directory: Path) -> dict[str, str]:
    """What the fixture's energies are counted by: its tariff and its time zone."""
    return {"ESS_TARIFF_FILE": str(directory / "tariff.yaml"), "ESS_TIMEZONE": NOON_ZONE}


def midnight(days_ago: int) -> int:
    """When a local day began, Unix s."""
    today = datetime.now(ZONE).replace(hour=0, minute=0, second=0, microsecond=0)
    return round((today - timedelta(days=days_ago)).timestamp())


def quarters() -> list[str]:
    return [
        f"energy_15m,device=meter,site=home home=1.0,grid_import=0.5,grid_export=0.0 {at}000000000"
        for at in range(midnight(2), midnight(0) + 3600, 900)
    ]


def stored(influxd: Influxd) -> dict[int, float]:
    """What each day saved, by the Unix s at which it began."""
    rows: list[Row] = influxd.query('SELECT "saved" FROM "ess"."rollups"."savings_1d"', "ess")
    return {row["time"] // 10**9: row["saved"] for row in rows}


def test_service_computes_yesterday_and_today(tmp_path: Path, influxd: Influxd) -> None:
    """With a tariff file the savings of yesterday and today are there after the start, and no older ones."""
    with Service(tmp_path, influxd.url, **by_local_days(tmp_path)):
        wait_until(lambda: bool(stored(influxd)))
    found = stored(influxd)
    assert found.keys() == {midnight(1), midnight(0)}
    assert found[midnight(0)] == pytest.approx(4 * 0.25)
    assert found[midnight(1)] == pytest.approx((midnight(0) - midnight(1)) / 900 * 0.25)


def test_command_computes_all_days(tmp_path: Path, influxd: Influxd) -> None:
    """Without days the command computes from the oldest energy to today, and says how many."""
    env = {"ESS_INFLUXDB_URL": influxd.url, **by_local_days(tmp_path)}
    done = ess_recorder("savings", env=env)
    assert (done.returncode, done.stdout) == (0, b"3 days written\n")
    assert stored(influxd).keys() == {midnight(2), midnight(1), midnight(0)}


def test_command_computes_the_days_it_is_given(tmp_path: Path, influxd: Influxd) -> None:
    """Days are local ones, both ends included."""
    env = {"ESS_INFLUXDB_URL": influxd.url, **by_local_days(tmp_path)}
    day = f"{datetime.fromtimestamp(midnight(1), ZONE):%Y-%m-%d}"
    assert ess_recorder("savings", "--from", day, "--to", day, env=env).stdout == b"1 days written\n"
    assert stored(influxd).keys() == {midnight(1)}


@pytest.mark.parametrize(
    ("options", "tariff", "message"),
    [
        ((), "", b"name one as tariff_file"),
        (("--from", "2026-06-02", "--to", "2026-06-01"), "tariff.yaml", b"--from must not be after --to"),
        (("--from", "June"), "tariff.yaml", b"'June'"),
        ((), "missing.yaml", b"tariff_file: there is no file"),
    ],
)
def test_wrong_usage_is_explained(
    tmp_path: Path, options: tuple[str, ...], tariff: str, message: bytes
) -> None:
    """Wrong days and a missing tariff file exit with 2 and say what to change."""
    (tmp_path / "tariff.yaml").write_text(TARIFF)
    env = {"ESS_TARIFF_FILE": str(tmp_path / tariff) if tariff else ""}
    done = ess_recorder("savings", *options, env=env)
    assert (done.returncode, message in done.stderr) == (2, True)


def test_database_that_is_away_is_explained(tmp_path: Path) -> None:
    """Without InfluxDB the command fails with 1, and says what to check."""
    (tmp_path / "tariff.yaml").write_text(TARIFF)
    env = {"ESS_INFLUXDB_URL": "http://127.0.0.1:9", "ESS_TARIFF_FILE": str(tmp_path / "tariff.yaml")}
    done = ess_recorder("savings", env=env)
    assert (done.returncode, b"check that it runs" in done.stderr) == (1, True)

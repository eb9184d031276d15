"""The service after its time zone was changed: days in InfluxDB and in the history follow by themselves."""

import time
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.profiles.parse import parse_profile
from recorder.store.buckets import DAY, STEPS, Buckets
from recorder.store.database import FILE_NAME, glance
from recorder.store.history import Question, history
from recorder.store.store import Store, StoreLimits
from tests.influx.plant import quiet, set_up
from tests.support.influxd import Influxd, wait_until
from tests.support.service import ROOT, Service

NS = 10**9
DAYS = 6


def points(end_s: int) -> list[Point]:
    """One kWh an hour, up to now."""
    tags = (("device", "pcs"), ("site", "home"))
    times = range(end_s - DAYS * 86_400, end_s, 60)
    return [Point("energy_10s", tags, {"home": 1 / 60}, at * NS) for at in times]


def store(directory: Path, zone: str) -> Store:
    limits = StoreLimits({step.name: inf for step in STEPS}, 1 << 30)
    opened = Store(directory / "data", limits, zone, ())
    opened.flush()
    return opened


def test_days_follow_the_zone_of_the_settings(tmp_path: Path) -> None:
    """After a restart with another zone each day is counted once, and begins at the new midnight."""
    end_s = int(time.time()) // 900 * 900
    some = points(end_s)
    recorded = store(tmp_path, "Europe/Berlin")
    recorded.observe(some)
    recorded.close()
    names = ("lg-ess-gen1-pcs", "abb-b2x")
    files = [ROOT / f"config/profiles/{name}.yaml" for name in names]
    profiles = tuple(parse_profile(file.read_text(), file.name) for file in files)
    with Influxd(tmp_path / "influxd") as influxd:
        berlin = set_up(influxd, profiles=profiles)
        berlin.apply()
        influxd.write(b"\n".join(map(to_line, some)), "ess")
        now = datetime.now(UTC)
        berlin.backfill(now - timedelta(days=DAYS + 1), now, now, quiet)

        def days() -> dict[int, float]:
            rows = influxd.query("SELECT home FROM rollups.energy_1d", "ess")
            return {row["time"] // NS: row["home"] for row in rows}

        assert sum(days().values()) == pytest.approx(24 * DAYS)
        kolkata = Buckets("Asia/Kolkata")
        expected = {kolkata.begin(DAY, point.time_ns // NS) for point in some if point.time_ns}
        with Service(tmp_path, influxd.url, ESS_TIMEZONE="Asia/Kolkata") as service:
            wait_until(lambda: not service.report()["notes"] and days().keys() == expected)
            assert service.report()["timezone"] == "Asia/Kolkata"
            # The running day is computed again by the queries, from the same quarter hours.
            assert sum(days().values()) == pytest.approx(24 * DAYS)
    assert glance(tmp_path / "data" / FILE_NAME).timezone == "Asia/Kolkata"
    opened = store(tmp_path, "Asia/Kolkata")
    assert opened.note == ""
    question = Question("home", end_s - (DAYS + 2) * 86_400, end_s + 1, DAY)
    answer = history(opened, question)
    assert answer["totals"]["energy"]["home"] == pytest.approx(24 * DAYS)
    midnight = datetime.fromtimestamp(answer["time"][-1], ZoneInfo("Asia/Kolkata"))
    assert (midnight.hour, midnight.minute) == (0, 0)
    opened.close()

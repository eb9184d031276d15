"""`ess-recorder rename-site` with a real history and a real InfluxDB."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from random import Random

import pytest

from recorder.influx.rename import SiteRename
from recorder.influx.server import Connection, InfluxServer, WriteAnswer
from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.spool.segments import SegmentDirectory
from recorder.store.buckets import STEPS
from recorder.store.database import FILE_NAME, glance
from recorder.store.history import Question, history
from recorder.store.store import Store, StoreLimits
from tests.influx.plant import quiet, set_up
from tests.support.influxd import Influxd, Row
from tests.support.service import ess_recorder

NS = 10**9
# Old names may hold what has a meaning in line protocol and in InfluxQL.
OLD, NEW = 'Müller\'s, old = "home"', "house"
BEGIN = datetime(2026, 11, 20, 9, 7, tzinfo=UTC)
CHANGED = BEGIN + timedelta(hours=20, minutes=5)
END = BEGIN + timedelta(hours=40)


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    with Influxd(tmp_path / "influxd") as server:
        yield server


class _Ending(InfluxServer):
    """A server before whose next write the process is ended."""

    writes_left = 0

    def write_into(self, policy: str, lines: bytes) -> WriteAnswer:
        self.writes_left -= 1
        if self.writes_left < 0:
            raise KeyboardInterrupt
        return super().write_into(policy, lines)


def points(site: str, start: datetime, end: datetime) -> list[Point]:
    """A home with 1 kW and 1 kWh an hour."""
    made = []
    for at in range(round(start.timestamp()), round(end.timestamp()), 30):
        tags = (("device", "pcs"), ("site", site))
        power = Random(at).uniform(0, 2000)
        made.append(Point("flow", tags, {"home": power}, at * NS))
        made.append(Point("pcs", tags, {"active_power": power, "energy": float(at // 600)}, at * NS))
        made.append(Point("energy_10s", tags, {"home": 1 / 120}, at * NS))
    return made


def write(influxd: Influxd, some: list[Point]) -> None:
    for first in range(0, len(some), 5000):
        influxd.write(b"\n".join(map(to_line, some[first : first + 5000])), "ess")


def record(influxd: Influxd, old: str) -> None:
    """Points of the old name, then of the new one, with their rollups."""
    set_up(influxd).apply()
    write(influxd, points(old, BEGIN, CHANGED) + points(NEW, CHANGED, END))
    set_up(influxd).backfill(BEGIN, END, datetime.now(UTC), quiet)


def renaming(influxd: Influxd) -> SiteRename:
    return SiteRename(InfluxServer(Connection(influxd.url)), set_up(influxd), OLD, NEW)


def content(influxd: Influxd) -> dict[str, list[Row]]:
    names = ("autogen.flow", "autogen.pcs", "autogen.energy_10s", "rollups.flow_1m", "rollups.pcs_1h")
    energies = ("rollups.energy_15m", "rollups.energy_1h", "rollups.energy_1d")
    return {name: influxd.query(f"SELECT * FROM {name}", "ess") for name in (*names, *energies)}


def assert_same(found: dict[str, list[Row]], expected: dict[str, list[Row]]) -> None:
    for name, rows in expected.items():
        assert len(found[name]) == len(rows), name
        for one, other in zip(found[name], rows, strict=True):
            assert one == pytest.approx(other), name


def test_database_is_as_if_the_site_always_had_its_new_name(influxd: Influxd, tmp_path: Path) -> None:
    """Samples and rollups of the old name are those of the new one, the day of the change included."""
    record(influxd, NEW)
    expected = content(influxd)
    influxd.query("DROP DATABASE ess")
    record(influxd, OLD)
    assert renaming(influxd).run(quiet) > 5000
    assert_same(content(influxd), expected)
    # Again, there is nothing to do.
    assert renaming(influxd).run(quiet) == 0
    assert_same(content(influxd), expected)


def test_interrupted_renaming_can_be_repeated(influxd: Influxd, tmp_path: Path) -> None:
    """Ended at any write, the command leaves every old point, and a second one completes it."""
    record(influxd, NEW)
    expected = content(influxd)
    influxd.query("DROP DATABASE ess")
    record(influxd, OLD)
    for writes in (0, 2, 7):
        server = _Ending(Connection(influxd.url))
        server.writes_left = writes
        with pytest.raises(KeyboardInterrupt):
            SiteRename(server, set_up(influxd), OLD, NEW).run(quiet)
    renaming(influxd).run(quiet)
    assert_same(content(influxd), expected)


def settings_file(tmp_path: Path, influxdb_url: str = "", site: str = NEW) -> Path:
    path = tmp_path / "recorder.yaml"
    settings = {
        "site": site,
        "timezone": "Europe/Berlin",
        "data_dir": str(tmp_path / "data"),
        "listeners": [{"name": "pcs", "port": 0}],
        "http": {"port": 0},
        "devices": [{"profile": "lg-ess-gen1-pcs"}, {"profile": "abb-b2x"}],
        **({"influxdb": {"url": influxdb_url}} if influxdb_url else {}),
    }
    path.write_text(json.dumps(settings))
    return path


def store(directory: Path) -> Store:
    limits = StoreLimits({step.name: inf for step in STEPS}, 1 << 30)
    opened = Store(directory, limits, "Europe/Berlin", (), END.timestamp)
    opened.flush()
    return opened


def test_history_is_merged_under_the_new_name(tmp_path: Path) -> None:
    """What was recorded under both names is one history, and repeating the command changes nothing."""
    recorded = store(tmp_path / "data")
    for first in (points(OLD, BEGIN, CHANGED), points(NEW, CHANGED, END)):
        recorded.observe(first)
    recorded.close()
    config = settings_file(tmp_path)
    checked = ess_recorder("check", "--config", str(config))
    assert b"rename-site" in checked.stdout
    for _ in range(2):
        done = ess_recorder("rename-site", OLD, NEW, "--config", str(config))
        assert done.returncode == 0, done.stderr
        assert glance(tmp_path / "data" / FILE_NAME).sites == {NEW}
    assert b"rename-site" not in ess_recorder("check", "--config", str(config)).stdout
    opened = store(tmp_path / "data")
    for step in STEPS:
        question = Question(NEW, BEGIN.timestamp(), END.timestamp(), step)
        assert history(opened, question)["totals"]["energy"]["home"] == pytest.approx(40.0, abs=0.01)
    opened.close()


def test_command_refuses_while_a_recorder_runs(tmp_path: Path) -> None:
    """The history is not touched while a recorder has the data directory."""
    store(tmp_path / "data").close()
    queue = SegmentDirectory(tmp_path / "data" / "queue", 1 << 20)
    done = ess_recorder("rename-site", OLD, NEW, "--config", str(settings_file(tmp_path)))
    queue.close()
    assert done.returncode == 1
    assert b"another recorder uses" in done.stderr


@pytest.mark.parametrize(("old", "new"), [(NEW, NEW), (OLD, "other"), (NEW, OLD)])
def test_only_a_name_that_the_settings_have_is_given(tmp_path: Path, old: str, new: str) -> None:
    """The new name is a site of the settings, and the old one is not."""
    done = ess_recorder("rename-site", old, new, "--config", str(settings_file(tmp_path)))
    assert done.returncode == 2


def test_check_tells_of_another_time_zone(influxd: Influxd, tmp_path: Path) -> None:
    """Days of another zone, and a site that the settings do not name, are explained with what to do."""
    record(influxd, "garden")
    recorded = store(tmp_path / "data")
    recorded.observe(points("garden", BEGIN, CHANGED))
    recorded.close()
    config = settings_file(tmp_path, influxd.url)
    config.write_text(config.read_text().replace("Europe/Berlin", "America/New_York"))
    told = ess_recorder("check", "--config", str(config)).stdout.decode()
    assert "InfluxDB: days begin by Europe/Berlin, in the settings by America/New_York" in told
    assert "history.db: days begin by Europe/Berlin, in the settings by America/New_York" in told
    assert "InfluxDB holds the site garden" in told
    applied = ess_recorder("queries", "apply", "--config", str(config))
    assert b"computed days and hours again" in applied.stdout
    told = ess_recorder("check", "--config", str(config)).stdout.decode()
    assert "InfluxDB: days begin by" not in told

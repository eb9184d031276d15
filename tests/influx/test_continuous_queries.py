"""What the continuous queries compute, on a real server: means, rollups, energies."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest

from recorder.influx.continuous_queries import PolicyNames, statements
from recorder.profiles.parse import parse_profile
from tests.influx.plant import METER, NS, PCS, line, quiet, set_up
from tests.support.influxd import Influxd, Row, wait_until

PROFILES = Path(__file__).parents[2] / "config" / "profiles"
BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2026, 7, 1, tzinfo=UTC)
NOW = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """A server with the database set up, whose own continuous queries do not run."""
    with Influxd(tmp_path, sections={"continuous_queries": {"enabled": "false"}}) as server:
        set_up(server).apply()
        yield server


def irregular(start_ns: int, count: int, seed: int) -> list[tuple[int, dict[str, float]]]:
    """Samples 0.7 to 1.6 s apart, in which one field is missing in a third of the samples."""
    rng = Random(seed)
    samples, now = [], start_ns
    for _ in range(count):
        fields = {"active_power": rng.uniform(-5000, 5000)}
        if rng.random() < 0.67:
            fields["pv1_power"] = rng.uniform(0, 3000)
        samples.append((now, fields))
        now += rng.randint(700, 1600) * 1_000_000
    return samples


def ring_buffer_means(samples: list[tuple[int, dict[str, float]]]) -> dict[tuple[int, str], float]:
    """The mean of the last ten values of each field, by bucket of 100 ms, from the tenth on."""
    means, values = {}, dict[str, list[float]]()
    for time_ns, fields in samples:
        for name, value in fields.items():
            ring = values.setdefault(name, [])
            ring.append(value)
            if len(ring) >= 10:
                means[time_ns // 100_000_000 * 100_000_000, name] = sum(ring[-10:]) / 10
    return means


def stored_means(rows: list[Row]) -> dict[tuple[int, str], float]:
    """The same of what the database holds."""
    return {
        (row["time"], name): row[name]
        for row in rows
        for name in ("active_power", "pv1_power")
        if row.get(name) is not None
    }


def days(influxd: Influxd, field: str) -> dict[date, float]:
    """A field of energy_1d by local date."""
    rows = influxd.query(f"SELECT {field} FROM rollups.energy_1d", "ess")
    return {datetime.fromtimestamp(row["time"] / NS, BERLIN).date(): row[field] for row in rows}


def test_average_is_the_mean_of_the_last_ten_samples(influxd: Influxd) -> None:
    """Each field has its mean of ten from its tenth sample on, also where it is missing in some."""
    samples = irregular(int(START.timestamp()) * NS, 300, seed=7)
    influxd.write(b"\n".join(line("pcs", at, fields) for at, fields in samples), "ess")
    set_up(influxd).backfill(START, START + timedelta(minutes=10), NOW, quiet)
    expected = ring_buffer_means(samples)
    stored = stored_means(influxd.query("SELECT * FROM avg10.pcs_avg10", "ess"))
    assert len(expected) > 450
    assert stored == pytest.approx(expected)


def test_average_is_right_across_the_pieces_of_a_backfill(influxd: Influxd) -> None:
    """Samples just after a local midnight are averaged with those before it."""
    midnight = datetime(2026, 7, 2, tzinfo=BERLIN)
    samples = irregular(int((midnight - timedelta(seconds=30)).timestamp()) * NS, 60, seed=8)
    influxd.write(b"\n".join(line("pcs", at, fields) for at, fields in samples), "ess")
    set_up(influxd).backfill(START, START + timedelta(days=2), NOW, quiet)
    stored = stored_means(influxd.query("SELECT * FROM avg10.pcs_avg10", "ess"))
    assert stored == pytest.approx(ring_buffer_means(samples))


def test_live_average_is_the_mean_of_the_last_ten_samples(tmp_path: Path) -> None:
    """The installed queries compute the same while the samples arrive, and keep the tags."""
    with Influxd(tmp_path) as influxd:
        set_up(influxd).apply()
        # Samples as a recorder sends them; the last is due when the test has waited for all averages.
        samples = irregular(time.time_ns() - 45 * NS, 42, seed=9)
        for at, fields in samples:
            wait_until(lambda at=at: time.time_ns() >= at)  # type: ignore[misc]
            influxd.write(line("pcs", at, fields), "ess")
        expected = ring_buffer_means(samples)
        assert expected

        def averages() -> dict[tuple[int, str], float]:
            rows = influxd.query("SELECT * FROM avg10.pcs_avg10", "ess")
            assert all((row["site"], row["device"]) == ("home", "pcs") for row in rows)
            return stored_means(rows)

        wait_until(lambda: averages().keys() >= expected.keys())
        assert averages() == pytest.approx(expected)


def test_minutes_hold_mean_extremes_and_last(influxd: Influxd) -> None:
    """A gauge is averaged, with min and max where the profile asks, counters and states keep the last."""
    values = [100.0, 400.0, -200.0]
    lines = [
        line(
            "pcs",
            START + timedelta(seconds=20 * number),
            {"active_power": value, "energy": 7.0 + number, "status": 3.0 - number, "pv1_power": value},
        )
        for number, value in enumerate(values)
    ]
    influxd.write(b"\n".join(lines), "ess")
    set_up(influxd).backfill(START, START + timedelta(minutes=2), NOW, quiet)
    (row,) = influxd.query("SELECT * FROM rollups.pcs_1m", "ess")
    assert (row["active_power"], row["active_power_min"], row["active_power_max"]) == (100.0, -200.0, 400.0)
    assert (row["energy"], row["status"], row["site"]) == (9.0, 1.0, "home")
    assert "pv1_power_min" not in row


def test_hours_hold_the_same_of_the_minutes(influxd: Influxd) -> None:
    """An hour has the mean of its minutes, their extremes, the last count, and its coverage."""
    lines = []
    for minute in range(45):
        at = START + timedelta(minutes=minute)
        fields = {"active_power": 100.0 * minute, "energy": 7.0 + minute}
        lines.append(line("pcs", at, fields))
        lines.append(line("flow", at, {"home": 60.0 * minute, "loss": -1.0}, "pcs"))
        lines.append(line("recorder", at, {"sample_age": float(minute % 7), "frames": 10.0 * minute}, "pcs"))
    influxd.write(b"\n".join(lines), "ess")
    set_up(influxd).backfill(START, START + timedelta(hours=1), NOW, quiet)
    (pcs,), (flow,), (health,) = (
        influxd.query(f"SELECT * FROM rollups.{name}_1h", "ess") for name in ("pcs", "flow", "recorder")
    )
    assert (pcs["active_power"], pcs["active_power_min"], pcs["active_power_max"]) == (2200, 0, 4400)
    assert (pcs["energy"], flow["home"], flow["loss"]) == (51, 1320, -1)
    assert (flow["home_max"], flow["coverage"]) == (2640, 0.75)
    assert (health["sample_age"], health["frames"], health["device"]) == (6, 440, "pcs")
    assert {row["time"] for row in (pcs, flow, health)} == {int(START.timestamp()) * NS}


def test_no_result_has_the_name_of_another() -> None:
    """`battery_soc_max` of the shipped profile is the device's own, not the greatest charge of a minute."""
    shipped = [parse_profile(path.read_text(), path.name) for path in PROFILES.glob("*.yaml")]
    for query in statements("ess", shipped, PolicyNames(), "Europe/Berlin"):
        names = re.findall(r'AS "(\w+)"', query.select)
        assert len(names) == len(set(names)), query.name
    (minutes,) = (
        query for query in statements("ess", shipped, PolicyNames(), "UTC") if query.name == "pcs_1m"
    )
    assert 'mean("battery_soc_max") AS "battery_soc_max"' in minutes.select
    assert 'max("battery_soc") AS "battery_soc_maximum"' in minutes.select


def test_energies_of_longer_times_are_the_sums_of_ten_seconds(influxd: Influxd) -> None:
    """A counted flow has its integral beside it, and a submeter is a series of its own."""
    lines = []
    for number in range(360):
        at = START + timedelta(seconds=10 * number)
        energy = {"grid_import": 0.005, "grid_import_integrated": 0.0049, "home": 0.006, "loss": -0.001}
        lines.append(line("energy_10s", at, energy, "pcs"))
        lines.append(line("energy_10s", at, {"submeter_import": 0.002}, "heat_pump"))
    influxd.write(b"\n".join(lines), "ess")
    heat_pump = replace(METER, name="heat-pump", device="heat_pump", unit=2, role="submeter")
    devices = set_up(influxd, profiles=(PCS, METER, heat_pump))
    devices.backfill(START, START + timedelta(hours=1), NOW, quiet)
    quarter = {"grid_import": 0.45, "grid_import_integrated": 0.441, "home": 0.54, "loss": -0.09}
    for measurement, share in (("energy_15m", 1), ("energy_1h", 4), ("energy_1d", 4)):
        rows = influxd.query(f"SELECT * FROM rollups.{measurement}", "ess")
        assert len(rows) == 8 // share
        for row in rows:
            of_device = {"pcs": quarter, "heat_pump": {"submeter_import": 0.18}}[row["device"]]
            found = {name: value for name, value in row.items() if isinstance(value, float)}
            assert found == pytest.approx({name: share * kwh for name, kwh in of_device.items()})


def test_power_and_counters_alone_are_no_energy(influxd: Influxd) -> None:
    """Energies are those that the recorder derived: no query computes them from power or counters."""
    at = START + timedelta(minutes=1)
    lines = [
        line("flow", at, {"home": 6000.0}, "pcs"),
        line("powermeter", START, {"active_import": 1.0}),
        line("powermeter", at, {"active_import": 2.0}),
    ]
    influxd.write(b"\n".join(lines), "ess")
    set_up(influxd).backfill(START, START + timedelta(hours=1), NOW, quiet)
    assert influxd.query("SELECT * FROM rollups./energy.*/", "ess") == []


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25)])
def test_days_of_23_and_25_hours_are_whole(influxd: Influxd, day: date, hours: int) -> None:
    """On the days on which the clock changes, a day's energy is that of 23 or 25 hours."""
    before = datetime.combine(day - timedelta(days=1), datetime.min.time(), BERLIN)
    after = datetime.combine(day + timedelta(days=2), datetime.min.time(), BERLIN)
    first, last = int(before.timestamp()), int(after.timestamp())
    lines = [line("energy_10s", at * NS, {"home": 1 / 60}, "pcs") for at in range(first, last, 60)]
    influxd.write(b"\n".join(lines), "ess")
    set_up(influxd).backfill(before, after, NOW, quiet)
    expected = {day - timedelta(days=1): 24.0, day: float(hours), day + timedelta(days=1): 24.0}
    assert days(influxd, "home") == pytest.approx(expected)
    rows = influxd.query("SELECT home FROM rollups.energy_1h", "ess")
    assert [row["home"] for row in rows] == pytest.approx([1.0] * (48 + hours))


def test_hours_of_a_half_hour_zone_begin_by_local_time(influxd: Influxd) -> None:
    """In India an hour begins at half past in UTC, and a day at 18:30."""
    zone = ZoneInfo("Asia/Kolkata")
    midnight = datetime(2026, 7, 2, tzinfo=zone)
    lines = [
        line("energy_10s", midnight + timedelta(minutes=minute), {"home": 0.01}, "pcs")
        for minute in range(24 * 60)
    ]
    influxd.write(b"\n".join(lines), "ess")
    set_up(influxd, timezone="Asia/Kolkata").backfill(midnight, midnight + timedelta(days=1), NOW, quiet)
    hours = influxd.query("SELECT home FROM rollups.energy_1h", "ess")
    assert [row["home"] for row in hours] == pytest.approx([0.6] * 24)
    assert hours[0]["time"] == int(midnight.timestamp()) * NS
    (day,) = influxd.query("SELECT home FROM rollups.energy_1d", "ess")
    assert (day["time"], day["home"]) == (int(midnight.timestamp()) * NS, pytest.approx(14.4))


def test_backfill_twice_changes_nothing(influxd: Influxd) -> None:
    """A second backfill writes the same points over the first."""
    times = [START + timedelta(seconds=10 * number) for number in range(500)]
    lines = [line("flow", at, {"home": float(number)}) for number, at in enumerate(times)]
    lines += [line("energy_10s", at, {"home": number / 360_000}) for number, at in enumerate(times)]
    influxd.write(b"\n".join(lines), "ess")
    seen: list[tuple[int, int]] = []
    content = []
    for _ in range(2):
        end = START + timedelta(hours=2)
        assert set_up(influxd).backfill(START, end, NOW, lambda done, total: seen.append((done, total))) > 0
        content.append(influxd.query("SELECT * FROM rollups./.*/", "ess"))
    assert content[0] == content[1]
    assert seen[-1][0] == seen[-1][1] == seen[0][1]


def test_live_energy_of_today_is_there_at_once(tmp_path: Path) -> None:
    """The queries compute the running quarter of an hour and the running day before their end."""
    with Influxd(tmp_path) as influxd:
        set_up(influxd).apply()
        eight_minutes_ago = time.time_ns() - 8 * 60 * NS
        influxd.write(line("energy_10s", eight_minutes_ago, {"home": 0.1}, "pcs"), "ess")
        # A server that was started runs each query at once, and not only every five minutes.
        influxd.stop()
        influxd.start()

        def energy_today() -> list[float]:
            return [row["home"] for row in influxd.query("SELECT home FROM rollups.energy_1d", "ess")]

        wait_until(lambda: bool(energy_today()))
        assert energy_today() == pytest.approx([0.1])


def test_table_has_one_query_for_each_result() -> None:
    """Two profiles give averages, minutes and hours each, and one set of energies."""
    queries = statements("ess", (PCS, METER), PolicyNames(), "Europe/Berlin")
    assert [query.name for query in queries] == [
        "pcs_avg10",
        "powermeter_avg10",
        "pcs_1m",
        "powermeter_1m",
        "flow_1m",
        "pcs_1h",
        "powermeter_1h",
        "flow_1h",
        "recorder_1h",
        "energy_15m",
        "energy_1h",
        "energy_1d",
    ]
    assert queries[0].create_statement == (
        'CREATE CONTINUOUS QUERY "pcs_avg10" ON "ess" RESAMPLE EVERY 1s FOR 1m BEGIN SELECT '
        'moving_average(mean("active_power"), 10) AS "active_power", '
        'moving_average(mean("pv1_power"), 10) AS "pv1_power", '
        'moving_average(mean("energy"), 10) AS "energy", '
        'moving_average(mean("status"), 10) AS "status", '
        'moving_average(mean("pv_power"), 10) AS "pv_power" '
        'INTO "ess"."avg10"."pcs_avg10" FROM "ess"."autogen"."pcs" '
        "GROUP BY time(100ms), * fill(none) END"
    )

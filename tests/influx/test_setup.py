"""The set-up on a real server: created once, repaired when changed, never more than that."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from hypothesis import example, given
from hypothesis import strategies as st

from recorder.influx.backfill import bucket_start, steps
from recorder.influx.errors import InfluxRefused
from recorder.influx.influxql import duration, parse_duration
from recorder.influx.retention import Retention, policy
from recorder.influx.schedule import schedule_audit
from recorder.influx.server import Connection, InfluxServer
from recorder.influx.setup import Report, SetUp, show
from tests.influx.plant import NS, PCS, SETTINGS, line, quiet, set_up
from tests.support.influxd import Influxd, QueryError, VictoriaMetrics, wait_until


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """A server without a database."""
    with Influxd(tmp_path) as server:
        yield server


def queries(influxd: Influxd, database: str = "ess") -> dict[str, str]:
    """The continuous queries of a database as the server prints them."""
    rows = influxd.query("SHOW CONTINUOUS QUERIES")
    return {row["name"]: row["query"] for row in rows if f" ON {database} " in row["query"]}


def policies(influxd: Influxd) -> dict[str, tuple[str, str]]:
    """Duration and shard duration of each retention policy."""
    rows = influxd.query("SHOW RETENTION POLICIES ON ess")
    return {row["name"]: (row["duration"], row["shardGroupDuration"]) for row in rows}


def test_fresh_server_is_set_up_once(influxd: Influxd) -> None:
    """The first run creates everything, and a second one changes nothing, in this process or another."""
    setup = set_up(influxd)
    first = setup.apply()
    assert first.problems == []
    assert "created the database ess" in first.changes
    assert set(queries(influxd)) == {query.name for query in setup.queries()}
    assert setup.apply().changes == []
    assert set_up(influxd).apply().changes == []
    assert set_up(influxd).audit().changes == []


def test_dropped_and_changed_queries_are_repaired(influxd: Influxd) -> None:
    """An audit brings back what was dropped or changed, and then finds nothing more."""
    setup = set_up(influxd)
    setup.apply()
    before = queries(influxd)
    influxd.query("DROP CONTINUOUS QUERY pcs_avg10 ON ess")
    influxd.query("DROP CONTINUOUS QUERY flow_1m ON ess")
    influxd.query(
        "CREATE CONTINUOUS QUERY flow_1m ON ess BEGIN SELECT mean(home) INTO rollups.flow_1m FROM flow "
        "GROUP BY time(1m) END"
    )
    report = setup.audit()
    assert report.changes == [
        "created the continuous query pcs_avg10",
        "repaired the continuous query flow_1m",
    ]
    assert queries(influxd) == before
    assert setup.audit().changes == []


def test_queries_of_others_stay_and_stale_ones_of_ours_go(influxd: Influxd) -> None:
    """Only what writes into our retention classes under our names is ours to drop."""
    influxd.query("CREATE DATABASE ess")
    influxd.query("CREATE DATABASE other")
    for database, name in (("ess", "foreign_1m"), ("other", "pcs_1m")):
        influxd.query(
            f"CREATE CONTINUOUS QUERY {name} ON {database} "
            f"BEGIN SELECT mean(f) INTO {name} FROM m GROUP BY time(1m) END"
        )
    set_up(influxd).apply()
    report = set_up(influxd, profiles=(PCS,)).apply()
    assert "dropped the continuous query powermeter_avg10, which is not needed any more" in report.changes
    assert "foreign_1m" in queries(influxd)
    assert set(queries(influxd, "other")) == {"pcs_1m"}
    assert not [name for name in queries(influxd) if "powermeter" in name]


def test_dropped_database_comes_back_with_the_audit(influxd: Influxd) -> None:
    """DROP DATABASE while running is repaired as a whole."""
    setup = set_up(influxd)
    setup.apply()
    influxd.query("DROP DATABASE ess")
    assert setup.audit().problems == []
    assert set(queries(influxd)) == {query.name for query in setup.queries()}


def test_database_is_not_created_unless_allowed(influxd: Influxd) -> None:
    """Without leave to create it, a missing database is a problem with a remedy."""
    report = set_up(influxd, create_database=False).apply()
    assert report.changes == []
    assert "create it" in report.problems[0]


def test_retention_classes_get_their_durations_and_fitting_shards(influxd: Influxd) -> None:
    """Each class has its policy from the start, with shards of at most a tenth of it."""
    retention = Retention(raw=timedelta(days=90), avg10=timedelta(days=14))
    assert set_up(influxd, retention=retention).apply().problems == []
    assert policies(influxd) == {
        "autogen": ("2160h0m0s", "168h0m0s"),
        "avg10": ("336h0m0s", "24h0m0s"),
        "rollups": ("0s", "672h0m0s"),
    }
    assert set_up(influxd, retention=retention).apply().changes == []


def test_retention_is_lengthened_but_never_shortened_silently(influxd: Influxd) -> None:
    """A policy that keeps more than the setting says is reported, with the statement that shortens it."""
    influxd.query("CREATE DATABASE ess")
    shorter = Retention(raw=timedelta(days=30))
    (problem,) = set_up(influxd, retention=shorter).apply().problems
    assert "deletes data" in problem
    assert policies(influxd)["autogen"][0] == "0s"
    influxd.query(problem[problem.index("ALTER") :])
    assert set_up(influxd, retention=shorter).apply().problems == []
    assert policies(influxd)["autogen"][0] == "720h0m0s"
    assert set_up(influxd, retention=Retention(raw=timedelta(days=60))).apply().problems == []
    assert policies(influxd)["autogen"][0] == "1440h0m0s"


def test_default_policy_of_an_existing_database_is_used_under_its_name(influxd: Influxd) -> None:
    """Queries read raw data from the default policy, whatever it is called."""
    influxd.query("CREATE DATABASE ess WITH DURATION INF NAME mine")
    assert set_up(influxd).apply().problems == []
    assert "FROM ess.mine.pcs" in queries(influxd)["pcs_avg10"]
    assert set_up(influxd).apply().changes == []


def test_retention_below_an_hour_is_refused() -> None:
    """What InfluxDB would refuse is refused before it is sent."""
    with pytest.raises(ValueError, match="at least 1 h"):
        Retention(raw=timedelta(minutes=59))


def test_server_with_authentication_is_claimed_and_gets_a_reader(tmp_path: Path) -> None:
    """With leave the configured user becomes the first admin; the reader may read, and only that."""
    with Influxd(tmp_path, auth=True) as influxd:
        influxd.username, influxd.password = "recorder", "it's \\ a secret"
        reader = {"reader_username": "grafana", "reader_password": "look"}
        assert "create admin user first" in set_up(influxd, **reader).apply().problems[0]
        report = set_up(influxd, claim_new_server=True, **reader).apply()
        assert report.problems == []
        assert "created the admin user recorder" in report.changes
        assert set_up(influxd, **reader).apply().changes == []
        influxd.write(line("pcs", NS, {"active_power": 1.0}), "ess")

        influxd.query("SET PASSWORD FOR grafana = 'changed'")
        assert set_up(influxd, **reader).apply().changes == ["set the password of grafana"]
        influxd.username, influxd.password = "grafana", "look"
        assert influxd.query("SELECT * FROM pcs", "ess")
        with pytest.raises(QueryError):
            influxd.write(line("pcs", NS, {"active_power": 2.0}), "ess")
        with pytest.raises(QueryError):
            influxd.query("CREATE DATABASE evil")


def test_wrong_password_is_a_problem_that_names_the_remedy_and_no_secret(tmp_path: Path) -> None:
    """A wrong password changes nothing and is never shown."""
    with Influxd(tmp_path, auth=True) as influxd:
        influxd.create_admin("recorder", "right")
        influxd.password = "hunter2"
        report = set_up(influxd).apply()
        assert report.changes == []
        assert "password" in report.problems[0]
        assert "hunter2" not in f"{report} {Connection(influxd.url, password='hunter2', token='hunter2')}"


def test_server_without_continuous_queries_is_reported(tmp_path: Path) -> None:
    """VictoriaMetrics has none: the report says so, and nothing breaks."""
    with VictoriaMetrics(tmp_path) as server:
        report = SetUp(InfluxServer(Connection(server.url)), SETTINGS).apply()
    assert not report.has_continuous_queries
    assert report.changes == []
    assert "InfluxDB 1.x" in report.problems[0]


def test_names_with_quotes_and_spaces_are_settled_as_well(influxd: Influxd) -> None:
    """A database whose name needs quotes is created, read back and found unchanged."""
    connection = Connection(influxd.url, database='my "home" db')
    setup = SetUp(InfluxServer(connection), SETTINGS)
    assert setup.apply().problems == []
    assert SetUp(InfluxServer(connection), SETTINGS).apply() == Report()


def test_shown_statements_can_be_run_by_hand(influxd: Influxd) -> None:
    """What is printed for the user installs the same queries."""
    setup = set_up(influxd)
    setup.apply()
    before = queries(influxd)
    for name in before:
        influxd.query(f"DROP CONTINUOUS QUERY {name} ON ess")
    for statement in show(setup.queries()).splitlines():
        influxd.query(statement)
    assert queries(influxd) == before


def test_backfill_leaves_out_what_retention_no_longer_keeps(influxd: Influxd) -> None:
    """A range that begins before the retention of a class is cut there, instead of failing."""
    now = datetime.now(UTC)
    setup = set_up(influxd, retention=Retention(avg10=timedelta(hours=2)))
    setup.apply()
    samples = [
        line("pcs", now - timedelta(days=3) + timedelta(hours=1, seconds=number), {"active_power": 1.0})
        for number in range(20)
    ]
    influxd.write(b"\n".join(samples), "ess")
    assert setup.backfill(now - timedelta(days=3), now, now, quiet) > 0
    assert influxd.query("SELECT * FROM rollups.pcs_1m", "ess")
    assert not influxd.query("SELECT * FROM avg10.pcs_avg10", "ess")


def test_remedy_for_a_field_of_another_type_mends_a_backfill(influxd: Influxd) -> None:
    """What refuses the averages, an integer that another program wrote, is named with what ends it."""
    setup = set_up(influxd)
    setup.apply()
    begin, end = (datetime(2026, 6, 1, 12, minute, tzinfo=UTC) for minute in (0, 1))
    at_ns = int(begin.timestamp()) * NS
    influxd.write(b"pcs_1m,device=other active_power_max=1i %d" % at_ns, "ess", "rollups")
    influxd.write(line("pcs", at_ns, {"active_power": 5.0}), "ess")
    with pytest.raises(InfluxRefused, match=r"pcs_1m.*integer.*DROP MEASUREMENT"):
        setup.backfill(begin, end, datetime.now(UTC), quiet)
    influxd.query("DROP MEASUREMENT pcs_1m", "ess")
    setup.backfill(begin, end, datetime.now(UTC), quiet)
    (row,) = influxd.query("SELECT active_power_max FROM rollups.pcs_1m", "ess")
    assert row["active_power_max"] == 5.0


async def test_scheduled_audit_repairs_without_being_asked(influxd: Influxd) -> None:
    """The job of the scheduler brings a dropped query back while the event loop goes on."""
    setup = set_up(influxd)
    setup.apply()
    influxd.query("DROP CONTINUOUS QUERY energy_1d ON ess")
    scheduler = AsyncIOScheduler()
    schedule_audit(scheduler, setup, audit_every_seconds=0.1)
    scheduler.start()
    try:
        await asyncio.to_thread(wait_until, lambda: "energy_1d" in queries(influxd))
    finally:
        scheduler.shutdown()


ZONES = st.sampled_from(["Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe", "UTC"])


@given(
    zone=ZONES,
    start=st.integers(1_700_000_000, 1_900_000_000),
    seconds=st.integers(1, 40 * 86400),
    index=st.integers(0, 8),
)
# From 2:00 to 2:00, the hour that comes twice when summer time ends.
@example(zone="Europe/Berlin", start=1_729_987_200, seconds=3600, index=0)
def test_pieces_of_a_backfill_cover_the_range_without_gap_or_overlap(
    zone: str, start: int, seconds: int, index: int
) -> None:
    """Pieces follow each other, begin where buckets begin, and hold the whole range."""
    timezone = ZoneInfo(zone)
    query = SetUp(InfluxServer(Connection("http://localhost")), SETTINGS).queries()[index]
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (start, start + seconds))
    pieces = list(steps(query, begin, end, timezone))
    assert pieces[0].start <= begin
    assert pieces[-1].end >= end
    for piece in pieces:
        assert piece.start < piece.end
        assert bucket_start(piece.start, query.bucket, timezone) == piece.start
        assert bucket_start(piece.end, query.bucket, timezone) == piece.end
    assert all(one.end == next_one.start for one, next_one in pairwise(pieces))


@given(st.integers(0, 10**7))
def test_duration_comes_back_from_its_text(seconds: int) -> None:
    """A duration is read back as it was written."""
    assert parse_duration(duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@given(hours=st.integers(1, 100_000))
def test_shard_fits_its_policy(hours: int) -> None:
    """A shard is at least an hour, and at most a tenth of what is kept unless that is below an hour."""
    shard = policy("raw", timedelta(hours=hours), timedelta(days=7)).shard
    assert timedelta(hours=1) <= shard <= max(timedelta(hours=1), timedelta(hours=hours) / 10)

"""The service against a real influxd: what is sent is stored, whatever happens to the database."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest

from recorder.app import Recorder
from recorder.commands.configuration import load_configuration
from recorder.simulator.drive import Pace, Progress, Receiver, simulate
from recorder.simulator.faults import FaultRates
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import ExpectedSample, SiteStream, StreamSecond
from tests.faults.recorder_process import RecorderProcess
from tests.support.influxd import Influxd, free_port, wait_until
from tests.support.service import Service, ess_recorder

SECOND = 10**9


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """Give a running influxd of the test's own."""
    with Influxd(tmp_path / "influxd") as server:
        yield server


def site(start_s: int, dialect: str = "ttt", seed: int = 5) -> SiteStream:
    return SiteStream(Plant(seed, start_s), DIALECTS[dialect], FaultRates(), seed)


def record(start_s: int, seconds: int, dialect: str = "ttt") -> tuple[bytes, list[ExpectedSample]]:
    pieces = list(islice(site(start_s, dialect), seconds))
    return b"".join(piece.texts[0] for piece in pieces), [s for piece in pieces for s in piece.truth]


def stored(influxd: Influxd, measurement: str, database: str = "ess") -> dict[int, dict[str, float]]:
    """Give the points of a measurement by their time in ns."""
    rows = influxd.query(f'SELECT * FROM "{measurement}"', database)
    return {
        row["time"]: {k: v for k, v in row.items() if isinstance(v, float | int) and k != "time"}
        for row in rows
    }


def assert_stored(influxd: Influxd, truth: list[ExpectedSample]) -> None:
    """Every sample of the truth is a point with its values, and no other point is there."""
    for device in ("pcs", "powermeter"):
        points = stored(influxd, device)
        expected = {sample.at_ns: sample.fields for sample in truth if sample.device == device}
        assert points.keys() == expected.keys()
        for at_ns, fields in expected.items():
            assert points[at_ns] == pytest.approx(fields, rel=1e-14)


def count(influxd: Influxd, measurement: str) -> int:
    if not any(row["name"] == "ess" for row in influxd.query("SHOW DATABASES")):
        return 0
    rows = influxd.query(f'SELECT count("active_power") FROM "{measurement}"', "ess")
    return int(rows[0]["count"]) if rows else 0


def test_stream_is_stored(tmp_path: Path, influxd: Influxd) -> None:
    """Each sample that is sent is a point in InfluxDB, with its values and its own time."""
    text, truth = record(int(time.time()) - 30, 30)
    with RecorderProcess(tmp_path, influxd.url) as service:
        service.send(text)
        wait_until(lambda: count(influxd, "powermeter") == 30)
        wait_until(lambda: count(influxd, "pcs") == 30)
    assert_stored(influxd, truth)


def test_database_queries_and_retention_are_there(tmp_path: Path, influxd: Influxd) -> None:
    """A new InfluxDB is set up at the first connection: policies and continuous queries."""
    with Service(tmp_path, influxd.url):
        wait_until(lambda: len(influxd.query("SHOW CONTINUOUS QUERIES")) >= 8)
    policies = {row["name"]: row["duration"] for row in influxd.query("SHOW RETENTION POLICIES ON ess")}
    assert policies == {"autogen": "2160h0m0s", "avg10": "720h0m0s", "rollups": "0s"}


def test_health_is_stored_and_told(tmp_path: Path, influxd: Influxd) -> None:
    """The recorder measurement says how old each device's newest sample is, and /healthz says the same."""
    text, _ = record(int(time.time()) - 5, 5)
    with Service(tmp_path, influxd.url) as service:
        service.send(text)
        wait_until(lambda: count(influxd, "pcs") == 5)
        status, health = service.health()
        wait_until(
            lambda: len(influxd.query('SELECT last("sample_age") FROM "recorder" GROUP BY *', "ess")) == 2
        )
    assert (status, health["problems"]) == (200, [])
    assert health["sources"]["pcs"]["frames"] == 40
    assert health["sample_age_seconds"].keys() == {"home/pcs", "home/meter"}


def test_recorder_starts_without_influxdb(tmp_path: Path) -> None:
    """An InfluxDB that is away at the start is reported, and waited for: then its points are written."""
    influxd = Influxd(tmp_path / "influxd")
    text, truth = record(int(time.time()) - 10, 10)
    with RecorderProcess(tmp_path, influxd.url) as service:
        service.send(text)
        wait_until(lambda: "InfluxDB" in "".join(service.health()[1]["problems"]))
        assert service.health()[1]["influxdb"]["queue_points"] >= 20
        with influxd:
            wait_until(lambda: service.health()[1]["influxdb"]["queue_points"] == 0)
            assert_stored(influxd, truth)
    assert "points are kept" in service.log.read_text()


@pytest.mark.parametrize("outage_seconds", [60])
async def test_outage_of_a_minute_loses_nothing(
    tmp_path: Path, influxd: Influxd, outage_seconds: int
) -> None:
    """The database is away for a minute while a stream runs: afterwards every point is there, once."""
    truth: list[ExpectedSample] = []

    def sent(_site: int, second: StreamSecond, complete: bool) -> None:
        assert complete
        truth.extend(second.truth)

    with RecorderProcess(tmp_path, influxd.url) as service:
        receiver = Receiver("127.0.0.1", (service.pcs_port,))
        seconds = outage_seconds + 20
        stream = asyncio.create_task(
            simulate(receiver, [site(int(time.time()))], Pace(1, seconds), Progress(), sent)
        )
        await asyncio.to_thread(wait_until, lambda: count(influxd, "pcs") > 3)
        await asyncio.to_thread(influxd.stop)
        began = len(truth)
        await asyncio.to_thread(wait_until, lambda: len(truth) >= began + 2 * outage_seconds)
        await asyncio.to_thread(influxd.start)
        await stream
        await asyncio.to_thread(
            wait_until, lambda: min(count(influxd, "pcs"), count(influxd, "powermeter")) >= seconds
        )
    assert_stored(influxd, truth)


def test_sigterm_writes_what_waits(tmp_path: Path, influxd: Influxd) -> None:
    """The service ends with 0, after it has written what it had read."""
    text, truth = record(int(time.time()) - 10, 10)
    with RecorderProcess(tmp_path, influxd.url) as service:
        service.send(text)
        wait_until(lambda: service.health()[1]["sources"]["pcs"].get("points", 0) >= 20)
        assert service.stop() == 0
    assert_stored(influxd, truth)


def test_sigterm_ends_in_time_while_influxdb_is_down(tmp_path: Path) -> None:
    """Nothing is waited for beyond the deadline, and the exit code is still 0."""
    with Service(tmp_path, f"http://127.0.0.1:{free_port()}") as service:
        service.send(record(int(time.time()), 3)[0])
        wait_until(lambda: service.health()[1]["influxdb"]["queue_points"] > 0)
        assert service.stop() == 0
    assert "InfluxDB did not take" in service.log.read_text()


def test_refused_points_are_told_until_they_were_sent_again(tmp_path: Path, influxd: Influxd) -> None:
    """Points that InfluxDB refused are a problem for as long as their files are there, over a restart too."""

    def tells_of_them(service: Service) -> bool:
        return "replay --dead-letters" in "".join(service.health()[1]["problems"])

    influxd.query("CREATE DATABASE ess")
    begin_s = int(time.time()) - 5
    # Of the same shard, or of both where one ends meanwhile, so that its integer forbids the floats. Of a
    # field without extremes: its rollup is a float all the same, should a minute end meanwhile.
    conflicts = [b"pcs,device=other frequency=1i %d" % (at_s * SECOND) for at_s in (begin_s, begin_s + 5)]
    influxd.write(b"\n".join(conflicts), "ess")
    service = RecorderProcess(tmp_path, influxd.url)
    with service:
        service.send(record(begin_s, 5)[0])
        wait_until(lambda: tells_of_them(service))
    with service:
        wait_until(lambda: tells_of_them(service))
        influxd.query("DROP MEASUREMENT pcs", "ess")
        done = ess_recorder("replay", "--dead-letters", env=service.env)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: not tells_of_them(service))
    assert count(influxd, "pcs") == 5


async def test_recorder_that_cannot_listen_lets_go_of_all(tmp_path: Path) -> None:
    """A start that fails at a taken port leaves no door, queue or store open: the next one can begin."""
    env = {"ESS_BIND": "127.0.0.1", "ESS_HTTP_PORT": "0", "ESS_PCS_PORT": "0", "ESS_DATA_DIR": str(tmp_path)}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        configuration = load_configuration(None, env | {"ESS_POWERMETER_PORT": port})
        recorder = Recorder(configuration.settings, configuration.profiles)
        with pytest.raises(OSError, match=port):
            await recorder.start()
    assert not [thread for thread in threading.enumerate() if thread.name == "store"]
    await recorder.start()
    assert recorder.ports["http"]
    await recorder.stop()


def test_replay_twice_leaves_the_same_points(tmp_path: Path, influxd: Influxd) -> None:
    """The same file again changes nothing, with stamps or without."""
    env = {"ESS_INFLUXDB_URL": influxd.url}
    for name, dialect in (("stamped", "ttt"), ("bare", "capture")):
        (tmp_path / name).write_bytes(record(int(time.time()) - 600, 40, dialect)[0])
        counts = []
        for _ in range(2):
            done = ess_recorder("replay", str(tmp_path / name), "--site", name, env=env)
            assert done.returncode == 0, done.stderr
            counts.append(
                [
                    influxd.query(
                        f"SELECT count(*) FROM {source} WHERE site = '{name}' GROUP BY device", "ess"
                    )
                    for source in (
                        '"pcs"',
                        '"powermeter"',
                        '"flow"',
                        '"avg10"."pcs_avg10"',
                        '"rollups"."flow_1m"',
                    )
                ]
            )
        assert counts[0] == counts[1]
        assert [rows[0]["count_active_power"] for rows in counts[0][:2]] == [40, 40]
        assert counts[0][3][0]["count_active_power"] == 31


def test_replay_of_text_without_stamps_keeps_the_pace(tmp_path: Path, influxd: Influxd) -> None:
    """Samples of a capture without stamps lie a second apart, up to the file's last change."""
    file = tmp_path / "bare"
    file.write_bytes(record(1_781_780_400, 30, "capture")[0])
    begin = datetime.now(UTC).replace(microsecond=0, tzinfo=None) - timedelta(days=2)
    done = ess_recorder(
        "replay", str(file), "--start", begin.isoformat(), env={"ESS_INFLUXDB_URL": influxd.url}
    )
    assert done.returncode == 0, done.stderr
    times = sorted(stored(influxd, "pcs"))
    assert 0 <= times[0] / SECOND - begin.replace(tzinfo=UTC).timestamp() < 1.5
    assert (times[-1] - times[0]) / 29 == pytest.approx(SECOND, rel=0.05)


def test_replay_fails_where_nothing_takes_the_points(tmp_path: Path) -> None:
    """Without InfluxDB it ends at once with 1 and says that nothing was written."""
    (tmp_path / "text").write_bytes(record(1_781_780_400, 3)[0])
    done = ess_recorder(
        "replay", str(tmp_path / "text"), env={"ESS_INFLUXDB_URL": f"http://127.0.0.1:{free_port()}"}
    )
    assert done.returncode == 1
    assert b"nothing was written" in done.stderr

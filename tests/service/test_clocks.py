"""Clocks and connections as the service sees them: real sockets, and a machine's clock that is set."""

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream, StreamSecond
from tests.faults.recorder_process import RecorderProcess
from tests.faults.rows_clock import FakeClock
from tests.support.influxd import Influxd, wait_until
from tests.support.service import Service, ess_recorder

HOUR_S = 3600


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """Give a running influxd of the test's own."""
    with Influxd(tmp_path / "influxd") as server:
        yield server


def stored_ns(influxd: Influxd, device: str = "pcs") -> list[int]:
    """Times of all points of a device, in order."""
    return [int(row["time"]) for row in influxd.query(f'SELECT active_power FROM "{device}"', "ess")]


def has_stored(influxd: Influxd, points: int) -> bool:
    databases = influxd.query("SHOW DATABASES")
    return any(row["name"] == "ess" for row in databases) and len(stored_ns(influxd)) >= points


def live(stream: Iterator[StreamSecond], seconds: int, behind_s: int) -> Iterator[bytes]:
    """Text of seconds, each once it has passed, by a clock that is so far behind."""
    for second in islice(stream, seconds):
        wait_until(lambda at_ns=second.at_ns: time.time() >= at_ns / 1e9 + behind_s + 1)  # type: ignore[misc]
        yield second.texts[0]


def site(behind_s: int) -> SiteStream:
    """A site whose clock is so far behind."""
    return SiteStream(Plant(5, int(time.time()) - behind_s), DIALECTS["ttt"])


def test_period_recorded_live_and_replayed_has_each_sample_once(tmp_path: Path, influxd: Influxd) -> None:
    """The controller's clock is an hour behind, and it connects three times; the replay adds nothing."""
    stream, text = site(HOUR_S), b""
    with Service(tmp_path, influxd.url) as service:
        for connection in range(1, 4):
            with socket.create_connection(("127.0.0.1", service.pcs_port)) as connected:
                for piece in live(stream, 4, HOUR_S):
                    text += piece
                    connected.sendall(piece)
            wait_until(lambda points=4 * connection: has_stored(influxd, points))  # type: ignore[misc]
        before = {device: stored_ns(influxd, device) for device in ("pcs", "powermeter", "flow")}
    assert len(before["pcs"]) == 12
    # A correction of zero, or by each connection's own first line, would be seen here.
    assert time.time() - before["pcs"][0] / 1e9 < HOUR_S
    capture = tmp_path / "capture.strace"
    capture.write_bytes(text)
    done = ess_recorder("replay", "--no-backfill", str(capture), env=service.env)
    assert done.returncode == 0, done.stderr
    assert {device: stored_ns(influxd, device) for device in ("pcs", "powermeter")} == {
        device: before[device] for device in ("pcs", "powermeter")
    }


def test_clock_offset_option_moves_every_stamp(tmp_path: Path) -> None:
    """Decoding with an offset gives the times without it, and that much."""
    text = next(site(0)).texts[0]
    capture = tmp_path / "capture.strace"
    capture.write_bytes(text)
    times = [
        [
            json.loads(line)["time"]
            for line in ess_recorder("decode", *options, str(capture)).stdout.splitlines()
        ]
        for options in ([], ["--clock-offset", "3600"])
    ]
    assert times[0]
    assert times[1] == [time_ns + HOUR_S * 10**9 for time_ns in times[0]]


@pytest.mark.parametrize("dialect", ["ttt", "capture"])
def test_device_over_two_connections_is_stored_once(tmp_path: Path, influxd: Influxd, dialect: str) -> None:
    """Both listeners get the same text, with and without stamps; what the second brings is counted."""
    stream = SiteStream(Plant(5, int(time.time()) - HOUR_S), DIALECTS[dialect])
    pieces = [second.texts[0] for second in islice(stream, 20)]
    with (
        Service(tmp_path, influxd.url) as service,
        socket.create_connection(("127.0.0.1", service.pcs_port)) as one,
        socket.create_connection(("127.0.0.1", service.powermeter_port)) as other,
    ):
        for piece in pieces:
            one.sendall(piece)
            other.sendall(piece)
        one.close()
        other.close()

        def counted(name: str) -> int:
            sources = service.health()[1]["sources"].values()
            return int(sum(source.get(name, 0) for source in sources))

        wait_until(lambda: counted("connections") == 0 and counted("frames") == 2 * 160)
        wait_until(lambda: has_stored(influxd, 20))
        assert counted("points") == 40
        assert counted("duplicate_samples") == 40
        wait_until(lambda: service.health()[1]["influxdb"]["queue_points"] == 0)
    assert len(stored_ns(influxd)) == 20
    assert len(stored_ns(influxd, "powermeter")) == 20


@pytest.mark.parametrize("by_s", [-1800, 1800, -365 * 86400])
def test_own_clock_that_is_set_leaves_no_old_value(tmp_path: Path, by_s: int) -> None:
    """The live values go on at once by the new time, and the step is told and counted."""
    clock = FakeClock(tmp_path / "recorder")
    changes: dict[str, dict[str, Any]] = {"clock": {"tolerance_seconds": 2}}
    stream = site(0)
    with (
        RecorderProcess(tmp_path / "recorder", "", changes, **clock.env) as recorder,
        socket.create_connection(("127.0.0.1", recorder.pcs_port)) as connected,
    ):

        def answer(path: str) -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{recorder.http_port}{path}", timeout=20) as found:
                return str(found.read().decode())

        def latest() -> tuple[float, dict[str, Any]]:
            found = json.loads(answer("/api/v1/latest"))
            (pcs,) = (point for point in found["points"] if point["measurement"] == "pcs")
            return found["time"], pcs

        for piece in live(stream, 3, 0):
            connected.sendall(piece)
        wait_until(lambda: recorder.counted("points") >= 5)
        _, before = latest()
        clock.set(by_s)
        for piece in live(stream, 3, 0):
            connected.sendall(piece)
        wait_until(lambda: recorder.counted("points") >= 11)
        now_s, after = latest()
        assert abs(now_s - time.time() - by_s) < 60
        assert after["fields"]["polls"] > before["fields"]["polls"]
        # By the new clock, and not older than the test has waited since the last line was sent.
        assert abs(after["time"] - time.time() - by_s) < 60
        report = json.loads(answer("/api/v1/health"))
        assert report["clock"]["steps"] == 1
        assert abs(report["clock"]["last_step"]["by_seconds"] - by_s) < 1
        assert report["problems"] == []
        assert "ess_recorder_clock_steps_total 1.0" in answer("/metrics")
        assert recorder.counted("clock_steps") == 0

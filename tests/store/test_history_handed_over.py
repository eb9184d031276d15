"""What left the queue before there was an InfluxDB reaches the one that comes later: the real service."""

import http.client
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from recorder.simulator.faults import FaultRates
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream
from tests.faults.recorder_process import RecorderProcess
from tests.support.influxd import TIMEOUT_SECONDS, Influxd, Row, wait_until

DAY_SECONDS = 86400
SECONDS = 720
QUEUE = {"queue": {"max_bytes": 1 << 20, "commit_interval_seconds": 0.5}}
MINUTES = ("pcs_1m", "powermeter_1m", "flow_1m")
ROLLUPS = (*MINUTES, "pcs_1h", "powermeter_1h", "flow_1h", "energy_15m", "energy_1h", "energy_1d")
COUNTERS = {"active_import", "active_export", "battery_energy_charged", "battery_energy_discharged", "polls"}
GAUGES = {"battery_temperature_max", "battery_temperature_min", "battery_soc_max"}
Key = tuple[int, str]


def recording(start_s: int) -> bytes:
    """Text of twelve minutes of a plant."""
    pieces = islice(SiteStream(Plant(5, start_s), DIALECTS["ttt"], FaultRates(), 5), SECONDS)
    return b"".join(piece.texts[0] for piece in pieces)


def days() -> list[int]:
    """When the recordings of three days begin, some minutes into a quarter of an hour, Unix seconds."""
    noon_s = int(time.time()) // DAY_SECONDS * DAY_SECONDS - DAY_SECONDS // 2
    return [noon_s - before * DAY_SECONDS + 200 for before in (2, 1, 0)]


def send_all(recorder: RecorderProcess, texts: Sequence[bytes]) -> None:
    """Send one day after the other; a day is sent once the one before it is recorded."""
    for sent, text in enumerate(texts, 1):
        recorder.send(text)
        wait_until(partial(has_recorded, recorder, 2 * sent * (SECONDS - 1)))


def has_recorded(recorder: RecorderProcess, points: int) -> bool:
    return recorder.counted("points") >= points


def rows(influxd: Influxd, measurement: str) -> dict[Key, Row]:
    """The rows of a rollup, by time and device."""
    found = influxd.query(f"SELECT * FROM rollups.{measurement}", "ess")
    drop = {"time", "device", "site", "name"}
    return {
        (row["time"], row["device"]): {k: v for k, v in row.items() if k not in drop and v is not None}
        for row in found
    }


def has_caught_up(recorder: RecorderProcess) -> bool:
    influx = recorder.influx()
    return influx["owed"] is None and influx["queue_points"] < 100 and influx["late_seconds"] == 0


class Gate:
    """A way to InfluxDB on which rollups written by hand stop after some, until it is opened."""

    def __init__(self, influxd: Influxd, lets_through: int) -> None:
        self.passed = 0
        self.stopped = threading.Event()
        self.opened = threading.Event()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.forward()

            def do_POST(self) -> None:
                if "rp=rollups" in self.path:
                    gate.passed += 1
                    if gate.passed > lets_through and not gate.opened.is_set():
                        gate.stopped.set()
                        gate.opened.wait(TIMEOUT_SECONDS)
                self.forward()

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                upstream = http.client.HTTPConnection("127.0.0.1", influxd.port, timeout=TIMEOUT_SECONDS)
                upstream.request(self.command, self.path, body, dict(self.headers))
                answer = upstream.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in {"transfer-encoding", "content-length", "connection"}:
                        self.send_header(name, value)
                if answer.status != 204:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(content)
                upstream.close()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @contextmanager
    def serving(self) -> Iterator["Gate"]:
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.opened.set()
            self.server.shutdown()
            self.server.server_close()
            thread.join()


def test_history_without_influxdb_is_handed_over_though_killed_midway(tmp_path: Path) -> None:
    """Three days, most of which left the queue, are in InfluxDB as in a twin's, after a kill -9 midway."""
    begins = days()
    texts = [recording(start_s) for start_s in begins]
    with Influxd(tmp_path / "twin") as influxd:
        with RecorderProcess(tmp_path / "beside", influxd.url) as twin:
            send_all(twin, texts)
            wait_until(lambda: twin.influx()["backfills"] > 0 and has_caught_up(twin))
            assert twin.influx()["owed"] is None
        expected = {name: rows(influxd, name) for name in ROLLUPS}
    recorder = RecorderProcess(tmp_path / "alone", "", QUEUE)
    with recorder:
        send_all(recorder, texts)
        wait_until(lambda: recorder.influx()["dropped"] > 0)
    with Influxd(tmp_path / "later") as influxd, Gate(influxd, 5).serving() as gate:
        recorder.env["ESS_INFLUXDB_URL"] = gate.url
        recorder.start()
        assert gate.stopped.wait(TIMEOUT_SECONDS)
        owed = recorder.report()["influxdb"]["owed"]
        assert begins[0] < owed["from"] < owed["to"]
        recorder.kill()
        gate.opened.set()
        with recorder:
            wait_until(lambda: has_caught_up(recorder))
        found = {name: rows(influxd, name) for name in ROLLUPS}
        raw = influxd.query('SELECT count("home") FROM flow', "ess")[0]["count"]
    assert raw < 2 * SECONDS
    for measurement in ROLLUPS:
        assert found[measurement].keys() == expected[measurement].keys()
        for key, row in found[measurement].items():
            assert_same(measurement, row, expected[measurement][key])


def assert_same(measurement: str, row: Row, expected: Row) -> None:
    """Counters and extremes are exact; means are by time in the store, by sample in the queries.

    The energy of a counted flow may be one step of its counter ahead, as far as the integral shows.
    """
    assert expected.keys() - row.keys() <= {"battery_status", "status"}
    for name, value in row.items():
        is_energy = measurement.startswith("energy_")
        is_counted = name in COUNTERS and not is_energy
        is_exact = name.endswith(("_min", "_max", "coverage", "status")) and name not in GAUGES
        if is_counted or is_exact:
            assert value == pytest.approx(expected[name], rel=1e-9, abs=1e-9), (measurement, name)
        elif is_energy:
            assert value == pytest.approx(expected[name], abs=1e-3), (measurement, name)
        else:
            assert value == pytest.approx(expected[name], rel=0.02, abs=2.0), (measurement, name)

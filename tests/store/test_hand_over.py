"""A recording made without InfluxDB, by the real service, goes into one that is configured later."""

import json
import time
import urllib.request
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from recorder.simulator.faults import FaultRates
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import ExpectedSample, SiteStream
from tests.faults.recorder_process import RecorderProcess
from tests.support.influxd import Influxd, Row, wait_until

MINUTE = 60 * 10**9
SECONDS = 1800


def recording(start_s: int) -> tuple[bytes, list[ExpectedSample]]:
    stream = SiteStream(Plant(5, start_s), DIALECTS["ttt"], FaultRates(), 5)
    pieces = list(islice(stream, SECONDS))
    return b"".join(piece.texts[0] for piece in pieces), [s for piece in pieces for s in piece.truth]


def rows(influxd: Influxd, source: str) -> dict[int, Row]:
    return {row["time"]: row for row in influxd.query(f"SELECT * FROM {source}", "ess")}


def history(recorder: RecorderProcess, start_s: int, step: str) -> dict[str, Any]:
    query = f"from={start_s}&to={start_s + SECONDS}&step={step}"
    with urllib.request.urlopen(f"http://127.0.0.1:{recorder.http_port}/api/v1/history?{query}") as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def test_recording_without_influxdb_is_handed_over_with_its_averages(tmp_path: Path) -> None:
    """Half an hour recorded without InfluxDB is in one that is named after a restart: points and averages."""
    start_s = (int(time.time()) - 7200) // 900 * 900
    text, truth = recording(start_s)
    recorder = RecorderProcess(tmp_path / "recorder", "")
    with recorder:
        recorder.send(text)
        wait_until(lambda: recorder.counted("points") >= 2 * SECONDS)
        assert recorder.influx()["state"] == "none"
        assert not [text for text in recorder.health()[1]["problems"] if "no sample" not in text]
    with recorder:
        own = history(recorder, start_s, "15m")
    with Influxd(tmp_path / "influxd") as influxd:
        recorder.env["ESS_INFLUXDB_URL"] = influxd.url
        with recorder:
            wait_until(lambda: recorder.influx()["backfills"] > 0)
            wait_until(lambda: recorder.influx()["late_seconds"] == 0)
            # What was recorded before is still in the recorder's own history.
            assert history(recorder, start_s, "15m") == own
        for device in ("pcs", "powermeter"):
            expected = {sample.at_ns: sample.fields for sample in truth if sample.device == device}
            found = rows(influxd, f'"{device}"')
            assert found.keys() == expected.keys()
            for at_ns, fields in expected.items():
                assert {name: found[at_ns][name] for name in fields} == pytest.approx(fields, rel=1e-14)
        flow = sorted(rows(influxd, "flow").values(), key=lambda row: row["time"])
        assert len(flow) >= SECONDS - 2
        assert_averages(influxd, flow)
        assert own["time"] == [start_s, start_s + 900]
        stored = {at_ns: row["home"] for at_ns, row in rows(influxd, "rollups.energy_15m").items()}
        for at_s, kwh in zip(own["time"], own["energy"]["home"], strict=True):
            assert kwh == pytest.approx(stored[at_s * 10**9], abs=1e-6)


def assert_averages(influxd: Influxd, flow: list[Row]) -> None:
    """The averages of ten samples and of minutes are those of the points, from the first to the last."""
    samples = [row["pv_power"] for _, row in sorted(rows(influxd, "pcs").items())]
    averages = [row["pv_power"] for _, row in sorted(rows(influxd, "avg10.pcs_avg10").items())]
    assert averages == pytest.approx([fmean(samples[at - 9 : at + 1]) for at in range(9, SECONDS)])
    minutes = rows(influxd, "rollups.flow_1m")
    assert minutes.keys() == {one["time"] // MINUTE * MINUTE for one in flow}
    for at_ns, row in minutes.items():
        within = [one["home"] for one in flow if at_ns <= one["time"] < at_ns + MINUTE]
        assert row["home"] == pytest.approx(fmean(within))

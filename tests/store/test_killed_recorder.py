"""Energies of a real service that is stopped and killed while a meter counts: the truth, in both places."""

import json
import time
import urllib.request
from itertools import islice, product
from pathlib import Path
from typing import NamedTuple

import pytest

from recorder.simulator.faults import FaultRates
from recorder.simulator.homes import HOMES
from recorder.simulator.plant import Plant, PlantSettings
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream
from tests.faults.recorder_process import RecorderProcess
from tests.support.influxd import LONG_SECONDS, Influxd, wait_until

STORED, UNSTORED, MISSED, AFTER = 300, 100, 30, 200
SETTINGS = PlantSettings(hybrid=False, heat_pump_w=12_000)


class Stream(NamedTuple):
    """Text of each second from `start_s` on, and the meter's counter, kWh."""

    start_s: int
    texts: list[bytes]
    counter: list[float]

    def part(self, first: int, seconds: int) -> bytes:
        return b"".join(self.texts[first : first + seconds])


def streamed(start_s: int, seed: int) -> Stream:
    stream = SiteStream(
        Plant(seed, start_s, SETTINGS), DIALECTS["ttt"], FaultRates(), 5, devices=HOMES["meter"].devices
    )
    pieces = list(islice(stream, STORED + UNSTORED + MISSED + AFTER))
    counter = [sample.fields["active_import"] for piece in pieces for sample in piece.truth]
    return Stream(start_s, [b"".join(piece.texts) for piece in pieces], counter)


def while_heating() -> Stream:
    """A time of the last days in which the home buys much, begun some minutes into a quarter of an hour."""
    newest_s = (int(time.time()) - 3600) // 900 * 900 + 130
    for quarters, seed in product(range(0, 200, 3), range(20)):
        stream = streamed(newest_s - quarters * 900, seed)
        if stream.counter[STORED + UNSTORED - 1] - stream.counter[STORED] > 0.1:
            return stream
    raise AssertionError("the heat pump never runs")


def bought(recorder: RecorderProcess, start_s: int) -> float:
    """What the recorder's own history says, kWh."""
    query = f"from={start_s - 900}&to={start_s + 3600}&step=15m"
    with urllib.request.urlopen(f"http://127.0.0.1:{recorder.http_port}/api/v1/history?{query}") as answer:
        return float(json.load(answer)["totals"]["energy"]["grid_import"] or 0)


def energies(influxd: Influxd, measurement: str) -> float:
    rows = influxd.query(f"SELECT sum(grid_import) AS kwh FROM {measurement}", "ess")
    return float(sum(row["kwh"] for row in rows))


def is_settled(recorder: RecorderProcess) -> bool:
    influx = recorder.influx()
    return bool(influx["backfills"]) and influx["late_seconds"] == 0 and influx["queue_points"] < 20


@pytest.mark.parametrize("ending", ["killed", "stopped"])
def test_what_a_meter_counts_is_there_once(tmp_path: Path, ending: str) -> None:
    """After kill -9, with a minute that the history had not stored, both places lack ten seconds at most."""
    stream = while_heating()
    recorder = RecorderProcess(tmp_path / "recorder", "")
    with Influxd(tmp_path / "influxd") as influxd:
        recorder.env["ESS_INFLUXDB_URL"] = influxd.url
        recorder.start()
        recorder.send(stream.part(0, STORED))
        wait_until(lambda: recorder.report()["store"]["since"] is not None, LONG_SECONDS)
        recorder.send(stream.part(STORED, UNSTORED))
        # All but the ten seconds that are open.
        last_ns = (stream.start_s + STORED + UNSTORED - 20) * 10**9
        wait_until(lambda: bool(influxd.query(f"SELECT * FROM energy_10s WHERE time >= {last_ns}", "ess")))
        if ending == "killed":
            recorder.kill()
        else:
            assert recorder.stop() == 0
        with recorder:
            recorder.send(stream.part(STORED + UNSTORED + MISSED, AFTER))
            wait_until(lambda: recorder.counted("points") >= AFTER - 1)
            assert recorder.stop() == 0
        with recorder:
            wait_until(lambda: is_settled(recorder), LONG_SECONDS)
            own = bought(recorder, stream.start_s)
        stored = energies(influxd, "rollups.energy_15m")
        assert stored == pytest.approx(energies(influxd, "energy_10s"), abs=1e-6)
    truth = stream.counter[-1] - stream.counter[0]
    open_kwh = 10 * 20 / 3600 if ending == "killed" else 0.0
    # At each start nobody knows how far the counter is in its step of 0.01 kWh.
    assert truth - open_kwh - 0.0201 <= stored <= truth + 0.0101
    assert own == pytest.approx(stored, abs=1e-5)

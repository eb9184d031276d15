"""Nothing simulated but the plant.

Modbus masters poll it over pseudo-terminals, real strace attaches to them, busybox nc and the shipped
script carry the text, `ess-recorder run` receives it, influxd stores it. What is stored is compared with
what the masters read, decoded here by `struct` and by nothing of the recorder.
"""

import asyncio
import json
import math
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from recorder.controller.script import Stream
from recorder.simulator.modbus_server import serve_plant_on_pty
from recorder.simulator.plant import Plant, PlantState
from tests.controller.rig import Controller, status_of, wait_until
from tests.end_to_end import modbus_master
from tests.faults.recorder_process import RecorderProcess
from tests.support.influxd import Influxd, Row
from tests.support.needs import needs_root

pytestmark = needs_root

MIDDAY = 1_718_970_000
MEASUREMENTS = "pcs", "powermeter"
PCS_REQUESTS = ["9C72:92"]
METER_REQUESTS = ["5000:4", "5004:4", "5B00:2", "5B02:2", "5B04:2", "5B14:2", "5B2C:1"]
POLL_INTERVAL_SECONDS = 0.5
SAMPLES = 24
STAMP_STEP_NS = 1000
"""strace cuts a stamp to microseconds."""


class Sample(NamedTuple):
    """What a master read, from its first request to its last answer, by the data model's names."""

    asked_at_ns: int
    answered_at_ns: int
    fields: dict[str, float]


def pcs_sample(exchanges: list[dict[str, int | str]]) -> Sample:
    """Decode the one answer of a PCS poll."""
    (read,) = exchanges
    value = struct.unpack(">46i", bytes.fromhex(str(read["registers"])))
    fields = {
        "status": value[0],
        "active_power": value[6],
        "pv1_voltage": value[9],
        "pv1_power": value[10],
        "pv2_voltage": value[12],
        "pv2_power": value[13],
        "pv_power": value[10] + value[13],
        "polls": value[15],
        "frequency": value[16] / 100,
        "battery_voltage": value[17] / 10,
        "battery_current": value[18] / 10,
        "battery_power": value[19],
        "battery_status": value[22],
        "battery_soc_raw": value[26] / 10,
        "battery_soc": (value[26] - 45) * 100 / 905,
        "battery_soc_max": value[27] / 10,
        "battery_temperature_max": value[28] / 10,
        "battery_temperature_min": value[29] / 10,
        "battery_energy_charged": value[30] / 10,
        "battery_energy_discharged": value[31] / 10,
    }
    return Sample(int(read["asked_at_ns"]), int(read["answered_at_ns"]), fields)


def meter_sample(exchanges: list[dict[str, int | str]]) -> Sample:
    """Decode the seven answers of a scan."""
    read = b"".join(bytes.fromhex(str(exchange["registers"])) for exchange in exchanges)
    bought, sold, l1, l2, l3, power, frequency = struct.unpack(">QQIIIiH", read)
    fields = {
        "active_import": bought / 100,
        "active_export": sold / 100,
        "voltage_l1": l1 / 10,
        "voltage_l2": l2 / 10,
        "voltage_l3": l3 / 10,
        "active_power": power / 100,
        "frequency": frequency / 100,
    }
    return Sample(int(exchanges[0]["asked_at_ns"]), int(exchanges[-1]["answered_at_ns"]), fields)


def samples(file: Path, requests: list[str]) -> list[Sample]:
    """Decode what a master wrote down; a scan that it began and did not end is none."""
    exchanges = [json.loads(line) for line in file.read_text().splitlines()]
    width = len(requests)
    decode = pcs_sample if requests is PCS_REQUESTS else meter_sample
    return [decode(exchanges[at : at + width]) for at in range(0, len(exchanges) - width + 1, width)]


@contextmanager
def polling(name: str, path: str, file: Path, requests: list[str]) -> Iterator[int]:
    """Run a master on a port; give its pid."""
    arguments = [name, modbus_master.__file__, name, path, str(POLL_INTERVAL_SECONDS), str(file), *requests]
    with subprocess.Popen(arguments, executable=sys.executable) as process:
        try:
            wait_until("the master has its name", lambda: status_of(process.pid).get("Name") == name)
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def stored(database: Influxd, measurement: str) -> list[Row]:
    return database.query(f"SELECT * FROM /^{measurement}$/ ORDER BY time", "ess")


def averages(database: Influxd, measurement: str) -> list[Row]:
    return database.query(f'SELECT * FROM "avg10"./^{measurement}_avg10$/ ORDER BY time', "ess")


def stored_counts(database: Influxd) -> list[int]:
    return [len(stored(database, measurement)) for measurement in MEASUREMENTS]


def no_average_is_due(database: Influxd) -> bool:
    return all(len(averages(database, each)) == len(stored(database, each)) - 9 for each in MEASUREMENTS)


def tracer(pid: int) -> str:
    return status_of(pid)["TracerPid"]


def record(directory: Path, database: Influxd, paths: tuple[str, str], *, both: bool) -> tuple[int, int]:
    """Let two masters poll, trace them, record; give between which Unix times in ns all was traced."""
    controller = Controller(directory)
    names = controller.name, controller.other_name
    with (
        RecorderProcess(directory, database.url) as service,
        polling(names[0], paths[0], directory / "pcs", PCS_REQUESTS) as pcs,
        polling(names[1], paths[1], directory / "powermeter", METER_REQUESTS) as powermeter,
    ):
        ports = service.pcs_port, service.powermeter_port
        controller.install(
            [Stream(names, ports[0])]
            if both
            else [Stream((name,), port) for name, port in zip(names, ports, strict=True)]
        )
        try:
            assert controller.call("start").returncode == 0
            wait_until("both are traced", lambda: not {"0"} & {tracer(pcs), tracer(powermeter)})
            first_stamped_at_ns = time.time_ns()
            wait_until("enough is stored", lambda: min(stored_counts(database)) >= SAMPLES)
            ended_at_ns = time.time_ns()
        finally:
            controller.close()
        assert {tracer(pcs), tracer(powermeter)} == {"0"}
        wait_until("every average is there", lambda: no_average_is_due(database))
    return first_stamped_at_ns, ended_at_ns


def compare_with_truth(
    points: list[Row], truth: list[Sample], first_stamped_at_ns: int, ended_at_ns: int
) -> None:
    """Each sample of the time is one point, in order, with its fields and its time, and there is no other."""
    traced = [
        one for one in truth if first_stamped_at_ns < one.asked_at_ns and one.answered_at_ns < ended_at_ns
    ]
    assert len(traced) > SAMPLES // 2
    first_ns, last_ns = traced[0].asked_at_ns - STAMP_STEP_NS, traced[-1].answered_at_ns
    within = [point for point in points if first_ns < point["time"] < last_ns]
    assert len(within) == len(traced)
    for point, sample in zip(within, traced, strict=True):
        assert sample.asked_at_ns - STAMP_STEP_NS < point["time"] < sample.answered_at_ns
        assert {name: point[name] for name in sample.fields} == pytest.approx(sample.fields, rel=1e-12)
        assert point.keys() - sample.fields.keys() == {"time", "name", "site", "device"}


def compare_averages(points: list[Row], averaged: list[Row], fields: list[str]) -> None:
    """Each average is the mean of the last ten points, from the tenth on, within 0.1 s of its point."""
    assert len(averaged) == len(points) - 9
    for at, average in enumerate(averaged):
        window = points[at : at + 10]
        assert 0 <= window[-1]["time"] - average["time"] < 100_000_000
        for name in fields:
            if window[0][name] is None:
                # strace was attached in the middle of a scan.
                assert (at, average[name]) == (0, None)
                continue
            expected = math.fsum(point[name] for point in window) / 10
            assert average[name] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("both", [False, True], ids=["two streams", "one stream for both"])
async def test_every_exchange_after_the_attach_is_a_point(tmp_path: Path, both: bool) -> None:
    """Every traced exchange is stored once, with the right values; every average is that of ten samples."""

    def advancing(plant: Plant) -> PlantState:
        plant.advance(1)
        return plant.state

    inverter, meter = Plant(1, MIDDAY), Plant(2, MIDDAY)
    with (
        Influxd(tmp_path / "influxd") as database,
        serve_plant_on_pty(lambda: advancing(inverter), time.time_ns) as pcs_port,
        serve_plant_on_pty(lambda: advancing(meter), time.time_ns) as meter_port,
    ):
        paths = pcs_port.path, meter_port.path
        times = await asyncio.to_thread(record, tmp_path, database, paths, both=both)
        for measurement, requests in (("pcs", PCS_REQUESTS), ("powermeter", METER_REQUESTS)):
            points = stored(database, measurement)
            assert all(earlier["time"] < later["time"] for earlier, later in pairwise(points))
            truth = samples(tmp_path / measurement, requests)
            compare_with_truth(points, truth, *times)
            compare_averages(points, averages(database, measurement), list(truth[0].fields))

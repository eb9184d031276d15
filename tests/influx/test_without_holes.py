"""An outage through the real service leaves no trace in what the database computes."""

import asyncio
import time
from datetime import UTC, datetime
from math import isclose
from pathlib import Path

import pytest

from recorder.simulator.drive import Pace, Progress, Receiver, simulate
from recorder.simulator.faults import FaultRates
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream, StreamSecond
from tests.faults.recorder_process import RecorderProcess
from tests.support.influxd import LONG_SECONDS, Influxd, Row, wait_until
from tests.support.service import Service, ess_recorder

RAW = ("autogen.pcs", "autogen.powermeter", "autogen.flow")
MINUTES = ("rollups.pcs_1m", "rollups.powermeter_1m", "rollups.flow_1m")
SAMPLES = ("avg10.pcs_avg10", "avg10.powermeter_avg10", *MINUTES)
ENERGIES = ("rollups./energy.*/",)


def rows(influxd: Influxd, sources: tuple[str, ...]) -> list[Row]:
    return [row for source in sources for row in influxd.query(f"SELECT * FROM {source} GROUP BY *", "ess")]


def differing(one: Influxd, other: Influxd, sources: tuple[str, ...]) -> list[Row]:
    """The rows that only one of the two has, or has with other values."""
    left, right = rows(one, sources), rows(other, sources)
    if len(left) != len(right):
        return [row for row in left if row not in right] + [row for row in right if row not in left]
    return [row for row, twin in zip(left, right, strict=True) if not alike(row, twin)]


def alike(one: Row, other: Row) -> bool:
    """A moving average is a running sum in the server, whose last bits depend on where it began.

    Near 0, such as the power of a meter that neither buys nor sells, they are many of the few bits there are.
    """
    return one.keys() == other.keys() and all(
        isclose(value, other[name], rel_tol=1e-11, abs_tol=1e-9)
        if isinstance(value, int | float) and isinstance(other[name], int | float) and name != "time"
        else value == other[name]
        for name, value in one.items()
    )


async def send(service: Service, start_s: int, seconds: int) -> None:
    def sent(_site: int, _second: StreamSecond, complete: bool) -> None:
        assert complete

    stream = SiteStream(Plant(5, start_s), DIALECTS["ttt"], FaultRates(), 5)
    await simulate(Receiver("127.0.0.1", (service.pcs_port,)), [stream], Pace(1, seconds), Progress(), sent)


def writes(service: Service) -> bool:
    return bool(service.health()[1]["influxdb"]["state"] == "writing")


def repaired(service: Service) -> bool:
    figures = service.health()[1]["influxdb"]
    return bool(figures["backfills"]) and figures["late_seconds"] == 0 and figures["queue_points"] < 20


async def test_outage_leaves_no_trace_in_averages_and_energies(tmp_path: Path) -> None:
    """The same stream into two databases, of which one is away for 75 s: every row of both is the same."""
    steady, outage = Influxd(tmp_path / "steady"), Influxd(tmp_path / "outage")
    with (
        steady,
        outage,
        RecorderProcess(tmp_path / "a", steady.url) as one,
        RecorderProcess(tmp_path / "b", outage.url) as other,
    ):
        for service in (one, other):
            await asyncio.to_thread(wait_until, lambda: writes(service))  # noqa: B023  # used at once
        start_s = int(time.time())
        streams = asyncio.gather(send(one, start_s, 120), send(other, start_s, 120))
        await asyncio.to_thread(wait_until, lambda: len(rows(outage, RAW[:1])) >= 15)
        await asyncio.to_thread(outage.stop)
        resumed_at_s = time.time() + 75
        await asyncio.to_thread(wait_until, lambda: time.time() > resumed_at_s)
        await asyncio.to_thread(wait_until, lambda: other.health()[1]["influxdb"]["queue_points"] > 150)
        await asyncio.to_thread(outage.start)
        await streams
        await asyncio.to_thread(wait_until, lambda: repaired(one) and repaired(other), LONG_SECONDS)
        last_minute_s = (start_s + 120) // 60 * 60

        def minutes_are_there() -> bool:
            found = [rows(each, MINUTES[2:]) for each in (steady, outage)]
            return all(any(row["time"] == last_minute_s * 10**9 for row in each) for each in found)

        await asyncio.to_thread(wait_until, minutes_are_there, LONG_SECONDS)
        # A minute is computed at its end, and once more a minute later with what came last.
        await asyncio.to_thread(wait_until, lambda: not differing(steady, outage, MINUTES), LONG_SECONDS)
        assert differing(steady, outage, SAMPLES) == []
        # The server looks at a quarter of an hour only from its fifth minute on: the same queries, now.
        since = datetime.fromtimestamp(start_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for service in (one, other):
            done = await asyncio.to_thread(
                ess_recorder, "queries", "backfill", "--from", since, env=service.env
            )
            assert done.returncode == 0, done.stderr
        assert differing(steady, outage, ENERGIES) == []
        assert rows(steady, RAW) == rows(outage, RAW)
        samples = [row["pv_power"] for row in rows(outage, RAW[:1])]
        averages = [row["pv_power"] for row in rows(outage, SAMPLES[:1])]
        assert len(samples) == 120
        assert averages == pytest.approx([sum(samples[at - 9 : at + 1]) / 10 for at in range(9, 120)])
        assert {row["name"] for row in rows(outage, ENERGIES)} == {"energy_15m", "energy_1h", "energy_1d"}

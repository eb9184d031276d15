"""Two hundred look on while a hundred homes record: nobody waits for anybody."""

import asyncio
import json
import time
from collections import Counter
from functools import partial
from pathlib import Path

import yaml

from recorder.simulator.faults import FaultRates
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream
from tests.faults.recorder_process import PAST_WEEK_SECONDS
from tests.support.influxd import Influxd, free_port, until, wait_until
from tests.support.service import ROOT, Service

HOMES, CLIENTS, SECONDS = 100, 200, 20
# By then each bus is known to be in sync.
START_SECONDS = 8
Seen = tuple[str, str, float]
MEASUREMENTS = ("pcs", "powermeter")


def settings_of(ports: list[int]) -> str:
    """The shipped settings, with a port for each home."""
    text = (ROOT / "config/recorder.yaml").read_text()
    before, _, rest = text.partition("\nlisteners:")
    after = rest[rest.index("\n# The live page") :]
    listeners = [
        {"name": f"pcs{number}", "bind": "127.0.0.1", "port": port, "site": f"home{number}"}
        for number, port in enumerate(ports)
    ]
    # A busy machine may be late by more than the clocks may be apart.
    after = after.replace("tolerance_seconds: 2 ", f"tolerance_seconds: {PAST_WEEK_SECONDS} ")
    return before + "\n" + yaml.safe_dump({"listeners": listeners}) + after


async def look_on(port: int, site: str, seen: Counter[Seen]) -> None:
    """Read the event stream to its end, and count each point."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    query = f"?site={site}" if site else ""
    writer.write(f"GET /api/v1/events{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    name = b""
    try:
        while line := await reader.readline():
            if line.startswith(b"event: "):
                name = line.strip()
            elif line.startswith(b"data: ") and name == b"event: point":
                point = json.loads(line[6:])
                seen[point["site"], point["measurement"], point["time"]] += 1
    except ConnectionError:
        pass
    finally:
        writer.close()


def free_ports(count: int, taken: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < count:
        ports |= {free_port()} - {taken}
    return sorted(ports)


async def test_clients_cost_no_sample(tmp_path: Path) -> None:
    """Each sample of 100 homes is in InfluxDB, while 200 clients are told of every point they asked for."""
    influxd = Influxd(tmp_path / "influxd")
    service = Service(tmp_path, influxd.url, ESS_CONFIG=str(tmp_path / "recorder.yaml"))
    ports = free_ports(HOMES, service.http_port)
    (tmp_path / "recorder.yaml").write_text(settings_of(ports))
    homes = [f"home{number}" for number in range(HOMES)]
    # Two look at each home, but ten look at all of them.
    asked = ["" if number < 10 else homes[number % HOMES] for number in range(CLIENTS)]
    seen: list[Counter[Seen]] = [Counter() for _ in asked]

    def have_all(seconds: int) -> bool:
        """Whether each client was told of the samples of so many seconds; the first ones have no flow."""
        return seconds <= START_SECONDS or all(
            len(points) >= (1 if site else HOMES) * (3 * seconds - START_SECONDS)
            for site, points in zip(asked, seen, strict=True)
        )

    with influxd, service:

        def streams_open() -> bool:
            return bool(service.report()["clients"]["events"] == CLIENTS)

        def stored(measurement: str) -> dict[str, int]:
            rows = influxd.query(f'SELECT count("active_power") FROM "{measurement}" GROUP BY site', "ess")
            return {row["site"]: row["count"] for row in rows}

        clients = [
            asyncio.create_task(look_on(service.http_port, site, points))
            for site, points in zip(asked, seen, strict=True)
        ]
        await asyncio.to_thread(wait_until, streams_open)
        start_s = int(time.time()) - SECONDS
        streams = [
            SiteStream(Plant(number, start_s), DIALECTS["ttt"], FaultRates(), number)
            for number in range(HOMES)
        ]
        writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for port in ports]
        for second in range(1, SECONDS + 1):
            for stream, writer in zip(streams, writers, strict=True):
                writer.write(next(stream).texts[0])
            # Clients that share a busy processor with all homes are not to be taken for slow ones.
            await until(partial(have_all, second))
        for writer in writers:
            writer.close()
        everything = dict.fromkeys(MEASUREMENTS, dict.fromkeys(homes, SECONDS))

        def all_stored() -> bool:
            return {measurement: stored(measurement) for measurement in MEASUREMENTS} == everything

        await asyncio.to_thread(wait_until, all_stored)
        assert service.report()["clients"] == {"events": CLIENTS, "dropped": 0}
    await asyncio.gather(*clients)
    for site, points in zip(asked, seen, strict=True):
        told = Counter((home, measurement) for home, measurement, _ in points)
        wanted = homes if site == "" else [site]
        for measurement in MEASUREMENTS:
            assert {home: told[home, measurement] for home in wanted} == dict.fromkeys(wanted, SECONDS)
        assert set(points.values()) == {1}

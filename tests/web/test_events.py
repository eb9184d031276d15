"""The event stream: every point soon, and nobody who reads slowly holds anybody up."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from recorder.points.point import Point
from recorder.simulator.faults import FaultRates
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream
from recorder.web.events import EventHub
from recorder.web.live import Live
from tests.support.influxd import TIMEOUT_SECONDS, free_port, until, wait_until
from tests.support.service import Service
from tests.web.rig import recent, recording

# By then a bus is known to be in sync, without stamps too.
START_SECONDS = 10


@asynccontextmanager
async def stream(port: int, query: str = "") -> AsyncIterator[asyncio.StreamReader]:
    """Open an event stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(f"GET /api/v1/events{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    try:
        yield reader
    finally:
        writer.close()


class Reader:
    """Events of one stream, in order."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def event(self) -> tuple[str, dict[str, Any]]:
        """Give name and data of the next event."""
        name = ""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while line := await self._reader.readline():
                if line.startswith(b"event: "):
                    name = line[7:].strip().decode()
                elif line.startswith(b"data: "):
                    return name, json.loads(line[6:])
        raise ConnectionResetError


async def test_newest_points_come_first_then_health(tmp_path: Path) -> None:
    """A client gets the newest point of each device at once, and the state of health."""
    with recording(tmp_path) as (service, truth):
        async with stream(service.http_port) as opened:
            reader = Reader(opened)
            events = [await reader.event() for _ in range(4)]
    assert [name for name, _ in events] == ["point", "point", "point", "health"]
    measurements = {data["measurement"]: data for _, data in events[:3]}
    assert measurements.keys() == {"flow", "pcs", "powermeter"}
    newest = next(sample for sample in reversed(truth) if sample.device == "pcs")
    assert measurements["pcs"]["fields"] == pytest.approx(newest.fields)
    assert events[3][1]["healthy"] is True


async def test_points_of_a_second_come_before_the_next_one(tmp_path: Path) -> None:
    """While a plant streams, each second's points are told at once: nothing has to come after them."""
    with Service(tmp_path, "") as service:
        async with stream(service.http_port, "?site=home") as opened:
            reader = Reader(opened)
            assert (await reader.event())[0] == "health"
            site = SiteStream(Plant(5, int(time.time())), DIALECTS["capture"], FaultRates(), 5)
            _, writer = await asyncio.open_connection("127.0.0.1", service.pcs_port)
            # A meter whose bus is not known to be in sync yet is withheld.
            writer.write(b"".join(second.texts[0] for second in islice(site, START_SECONDS)))
            async with asyncio.timeout(TIMEOUT_SECONDS):
                told: Counter[str] = Counter()
                while min(told["pcs"], told["powermeter"]) < START_SECONDS:
                    name, data = await reader.event()
                    told[data["measurement"] if name == "point" else name] += 1
                for second in islice(site, 6):
                    writer.write(second.texts[0])
                    missing = {"pcs", "powermeter", "flow"}
                    while missing:
                        name, data = await reader.event()
                        missing -= {data["measurement"]} if name == "point" else set()
            writer.close()


async def test_stream_of_a_site_has_no_other_sites_points(tmp_path: Path) -> None:
    """A client that asks for a site that never sends is told of health and of no point."""
    with recording(tmp_path) as (service, _):
        async with stream(service.http_port, "?site=garage") as opened:
            reader = Reader(opened)
            assert (await reader.event())[0] == "health"
            await asyncio.to_thread(service.send, recent(3)[0])
            # The next sign of life, 5 s later: no point came between.
            assert (await reader.event())[0] == "health"


async def test_client_that_never_reads_is_disconnected(tmp_path: Path) -> None:
    """One who does not read is dropped and counted, while another gets all that is recorded meanwhile."""
    with Service(tmp_path, "") as service:
        async with stream(service.http_port) as opened:
            # A reader that nobody reads from takes no more than its limit.
            _, slow = await asyncio.open_connection("127.0.0.1", service.http_port, limit=1024)
            slow.write(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.to_thread(
                wait_until, lambda: service.report()["clients"] == {"events": 2, "dropped": 0}
            )
            reader = Reader(opened)
            counted: Counter[str] = Counter()

            async def read_on() -> None:
                while True:
                    name, data = await reader.event()
                    counted[data["measurement"] if name == "point" else name] += 1

            reading = asyncio.create_task(read_on())
            site = SiteStream(Plant(5, int(time.time()) - 30_000), DIALECTS["capture"], FaultRates(), 5)
            _, writer = await asyncio.open_connection("127.0.0.1", service.pcs_port)
            seconds = 0
            while service.report()["clients"]["dropped"] == 0:
                writer.write(b"".join(second.texts[0] for second in islice(site, 100)))
                seconds += 100
                wanted = {"pcs": seconds, "powermeter": seconds}
                await until(lambda: wanted.items() <= counted.items())  # noqa: B023  # used at once
            writer.close()
            assert service.report()["clients"] == {"events": 1, "dropped": 1}
            reading.cancel()
            slow.close()


async def test_one_stream_too_many_is_refused(tmp_path: Path) -> None:
    """The 257th stream is answered with 503, and the others go on."""
    with Service(tmp_path, "") as service:
        opened = [await asyncio.open_connection("127.0.0.1", service.http_port) for _ in range(257)]
        for _, writer in opened[:256]:
            writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        for reader, _ in opened[:256]:
            assert b"200" in await reader.readline()
        reader, writer = opened[256]
        writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"503" in await reader.readline()
        assert service.report()["clients"]["events"] == 256
        for _, writer in opened:
            writer.close()


async def test_streams_end_with_the_recorder(tmp_path: Path) -> None:
    """A recorder that is stopped ends its streams, and is not held up by them."""
    with Service(tmp_path, "") as service:
        async with stream(service.http_port) as opened:
            assert b"200" in await opened.readline()
            assert await asyncio.to_thread(service.stop) == 0
            await asyncio.wait_for(opened.read(), TIMEOUT_SECONDS)


async def test_what_was_gathered_is_told_before_the_end() -> None:
    """A point that comes as the recorder stops is told to those who look on."""
    hub = EventHub(Live("home"), lambda: {"healthy": True})

    async def events(request: web.Request) -> web.StreamResponse:
        return await hub.stream(request, None)

    application = web.Application()
    application.router.add_get("/api/v1/events", events)
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    async with stream(port) as opened:
        reader = Reader(opened)
        assert (await reader.event())[0] == "health"
        point = Point("pcs", (("device", "pcs"), ("site", "home")), {"active_power": 7.0}, time.time_ns())
        hub.publish([point])
        hub.close()
        name, data = await reader.event()
        assert (name, data["fields"]) == ("point", {"active_power": 7.0})
    await runner.cleanup()

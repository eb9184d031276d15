"""Points into a real influxd: through queue and writer, beside raw POST, beside the client's own batching.

Takes options, gives points a second of the same points into the same server, medians of alternating runs.
"""

import asyncio
import http.client
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import WriteOptions

from bench.homes import make_seconds
from bench.recording import DATABASE, Database, database
from bench.report import Options, Result, Row
from recorder.commands.configuration import Configuration, load_configuration
from recorder.influx.sink import InfluxSink
from recorder.pipeline import Pipeline
from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.points.site import Site
from recorder.profiles.catalogue import Catalogue
from recorder.spool.durable import DurableQueue, Limits
from recorder.spool.queue import PointQueue

BATCH_POINTS: Final = 5000
_GROUP_POINTS: Final = 30
_WAITING_POINTS: Final = 50_000
# Recent enough for the retention, too old for the continuous queries.
_AGO_SECONDS: Final = 5 * 86_400


def points_of(count: int, configuration: Configuration) -> list[Point]:
    """Decode so many points of one home, in the mix that a home has."""
    profiles = configuration.profiles
    pipeline = Pipeline(Catalogue(profiles), Site("home", profiles))
    seconds = make_seconds(1)
    points: list[Point] = []
    now_s = int(time.time()) - _AGO_SECONDS
    while len(points) < count:
        for second in seconds:
            now_s += 1
            points += pipeline.feed(b"".join(second.at(now_s)), None)
    return points[:count]


def write_raw(server: Database, batches: Sequence[bytes], name: str) -> float:
    """Send prepared batches over one connection, one after the other; gives the seconds it took."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    began = time.perf_counter()
    for batch in batches:
        connection.request("POST", f"/write?db={name}&precision=ns", batch)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 204
    seconds = time.perf_counter() - began
    connection.close()
    return seconds


def run(options: Options) -> Result:
    """Write the same points in each way, in turn."""
    count, runs = (60_000, 1) if options.quick else (300_000, 5)
    with database() as server, tempfile.TemporaryDirectory(prefix="ess-bench-") as directory:
        configuration = load_configuration(
            None,
            {"ESS_INFLUXDB_URL": server.url, "ESS_DATA_DIR": directory, "ESS_INFLUXDB_DATABASE": DATABASE},
        )
        points = points_of(count, configuration)
        lines = [to_line(point) for point in points]
        batches = [b"\n".join(lines[at : at + BATCH_POINTS]) for at in range(0, count, BATCH_POINTS)]
        ways: dict[str, Callable[[], float]] = {
            "raw": lambda: write_raw(server, batches, "raw"),
            "ours": lambda: asyncio.run(_through_sink(points, configuration, Path(directory))),
            "client": lambda: _through_client(server, lines, "client"),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(runs):
            for way, measure in ways.items():
                options.show(f"run {number + 1} of {runs}: {way}")
                # The same state for all: an empty database.
                name = DATABASE if way == "ours" else way
                server.query(f'DROP DATABASE "{name}"')
                if way != "ours":  # the recorder creates its own, as it wants it
                    server.query(f'CREATE DATABASE "{name}"')
                rates[way].append(count / measure())
    middle = {way: sorted(found)[len(found) // 2] for way, found in rates.items()}
    ours, raw, client = middle["ours"], middle["raw"], middle["client"]
    return Result(
        "Writing into InfluxDB",
        (
            Row("line protocol, durable queue, writer", ours, "points/s", ours / raw, "raw POST", None, runs),
            Row("raw POST of the same prepared lines", raw, "points/s", runs=runs),
            Row("influxdb-client's batching mode", client, "points/s", client / raw, "raw POST", None, runs),
        ),
        (
            (
                f"{count:,} points of one home (about {sum(map(len, lines)) // count} bytes a line), "
                f"batches of "
                f"{BATCH_POINTS:,}, one influxd, which shares the cores with the bench. The first "
                f"row begins with "
                "points and builds their lines; the others are given lines. The client knows only "
                "`/api/v2/write`, "
                "which influxd 1.6 lacks: its requests are sent to `/write` instead. Continuous queries are "
                "installed, and find nothing: the points are five days old."
            ),
        ),
    )


async def _through_sink(points: Sequence[Point], configuration: Configuration, directory: Path) -> float:
    """Give points to the sink as the service does, until the last is written; the seconds it took."""
    queue = DurableQueue(directory / "queue", Limits())
    queue.open()
    queue.start()
    sink = InfluxSink(configuration.settings, configuration.profiles, queue)
    sink.start()
    try:
        while sink.state != "writing":  # noqa: ASYNC110  # a state, not an event
            await asyncio.sleep(0.01)
        return await _appended(points, sink, queue)
    finally:
        await sink.stop(10)
        await asyncio.to_thread(queue.close)


async def _appended(points: Sequence[Point], sink: InfluxSink, queue: PointQueue) -> float:
    began = time.perf_counter()
    for at in range(0, len(points), _GROUP_POINTS):
        sink.append(points[at : at + _GROUP_POINTS])
        if at % (100 * _GROUP_POINTS) == 0:
            while queue.depth().points > _WAITING_POINTS:  # noqa: ASYNC110  # a depth, not an event
                await asyncio.sleep(0.005)
            await asyncio.sleep(0)
    while sink.figures()["written"] < len(points):  # noqa: ASYNC110  # a count, not an event
        await asyncio.sleep(0.002)
    return time.perf_counter() - began


def _through_client(server: Database, lines: Sequence[bytes], name: str) -> float:
    client = InfluxDBClient(server.url, token="", org="-")
    api: Any = client.api_client
    call = api.call_api

    def to_v1(_path: str, method: str, path_params: Any, _query_params: Any, *rest: Any, **named: Any) -> Any:
        return call("/write", method, path_params, [("db", name), ("precision", "ns")], *rest, **named)

    api.call_api = to_v1
    began = time.perf_counter()
    with client.write_api(WriteOptions(batch_size=BATCH_POINTS, flush_interval=1000)) as write_api:
        for line in lines:
            write_api.write(name, "-", line)
    seconds = time.perf_counter() - began
    client.close()  # type: ignore[no-untyped-call]
    written = server.query('SELECT count("active_power") FROM "pcs"', name)
    if not written or abs(written[0]["count"] * 3 - len(lines)) > 3:
        raise AssertionError("influxdb-client's batching mode lost points")
    return seconds

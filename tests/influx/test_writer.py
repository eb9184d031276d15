"""The writer between a real queue and a real server: nothing lost, nothing doubled."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.influx.backoff import Backoff
from recorder.influx.server import Connection, InfluxServer, WriteAnswer
from recorder.influx.writer import BatchingWriter, WriterSettings, WriterState
from recorder.spool.memory import MemoryQueue
from tests.influx.misfit import misfit
from tests.influx.plant import set_up
from tests.support.influxd import Influxd, VictoriaMetrics, free_port

QUICK = WriterSettings(
    batch_points=100,
    flush_after_seconds=0.05,
    retry_first_seconds=0.02,
    retry_longest_seconds=0.1,
    pause_seconds=0.1,
)


class CountingServer(InfluxServer):
    """A real server that also notes the number of lines of each write."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.writes: list[int] = []

    def write(self, lines: bytes) -> WriteAnswer:
        self.writes.append(lines.count(b"\n"))
        return super().write(lines)


class Rig:
    """A queue, a writer and the server that it writes to."""

    def __init__(
        self,
        url: str,
        settings: WriterSettings = QUICK,
        prepare: Callable[[], object] | None = None,
        **login: str,
    ) -> None:
        self.queue = MemoryQueue(10_000_000, time.monotonic)
        self.server = CountingServer(Connection(url, timeout_seconds=2.0, **login))  # type: ignore[arg-type]
        self.writer = BatchingWriter(self.queue, self.server, settings, Random(1), prepare)

    def append(self, first: int, count: int) -> None:
        """Numbered points, appended in tens, as decoding would."""
        for start in range(first, first + count, 10):
            numbers = range(start, min(start + 10, first + count))
            self.queue.append([b"m f=%d.0 %d" % (number, number) for number in numbers])
            self.writer.wake()

    async def until(self, condition: Callable[[], bool], timeout_seconds: float = 20.0) -> None:
        """Return as soon as `condition` holds."""
        async with asyncio.timeout(timeout_seconds):
            while not condition():
                await asyncio.sleep(0.01)

    async def until_empty(self) -> None:
        """Return as soon as every line has its fate."""
        await self.until(lambda: self.queue.depth().points == 0)


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    """A rig whose writer runs, and is stopped at the end."""
    rig.writer.start()
    try:
        yield rig
    finally:
        await rig.writer.stop(deadline_seconds=0.0)
        rig.server.close()


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """A server with an empty database `ess`."""
    with Influxd(tmp_path) as server:
        server.query("CREATE DATABASE ess")
        yield server


def stored(influxd: Influxd) -> list[float]:
    """The numbers of all points in the database."""
    return [row["f"] for row in influxd.query("SELECT f FROM m", "ess")]


async def test_full_batch_goes_at_once(influxd: Influxd) -> None:
    """A batch is sent when it is full, long before the flush interval."""
    settings = WriterSettings(batch_points=50, flush_after_seconds=3600.0)
    async with running(Rig(influxd.url, settings)) as rig:
        await rig.until(lambda: rig.writer.state is WriterState.WRITING)
        rig.append(1, 120)
        await rig.until(lambda: rig.writer.counters.written == 100)
        assert rig.server.writes == [50, 50]
        assert rig.queue.depth().points == 20


async def test_single_point_goes_within_the_flush_interval(influxd: Influxd) -> None:
    """A home at 1 Hz never fills a batch, and still its points are in the database within a second or so."""
    async with running(Rig(influxd.url, WriterSettings(flush_after_seconds=0.3))) as rig:
        await rig.until(lambda: rig.writer.state is WriterState.WRITING)
        begin = time.monotonic()
        rig.append(1, 1)
        await rig.until_empty()
        assert time.monotonic() - begin < 1.0
    assert stored(influxd) == [1.0]


async def test_outage_loses_and_doubles_nothing(influxd: Influxd) -> None:
    """Points from before, during and after an outage are all there, once, and the state tells of it."""
    async with running(Rig(influxd.url)) as rig:
        rig.append(1, 250)
        await rig.until_empty()
        influxd.stop()
        rig.append(251, 250)
        await rig.until(lambda: rig.writer.state is WriterState.RETRYING)
        assert influxd.url in rig.writer.last_error
        influxd.start()
        rig.append(501, 250)
        await rig.until_empty()
        assert (rig.writer.state, rig.writer.last_error) == (WriterState.WRITING, "")
    assert stored(influxd) == [float(number) for number in range(1, 751)]
    assert rig.writer.counters.written == 750


async def test_killed_server_has_all_that_it_acknowledged(influxd: Influxd) -> None:
    """Killing the server between and during writes loses nothing."""
    async with running(Rig(influxd.url)) as rig:
        for kill in range(3):
            rig.append(1 + 500 * kill, 500)
            await rig.until(lambda: rig.writer.counters.written > 100)
            influxd.kill()
            influxd.start()
        await rig.until_empty()
    assert stored(influxd) == [float(number) for number in range(1, 1501)]


async def test_unreachable_server_at_the_start_is_no_obstacle(tmp_path: Path) -> None:
    """The writer starts without a database, says so, and writes as soon as there is one."""
    influxd = Influxd(tmp_path)
    async with running(Rig(influxd.url, prepare=lambda: set_up(influxd).apply())) as rig:
        rig.append(1, 30)
        await rig.until(lambda: rig.writer.state is WriterState.RETRYING)
        with influxd:
            await rig.until_empty()
            assert stored(influxd) == [float(number) for number in range(1, 31)]


async def test_type_conflict_rejects_only_its_line(influxd: Influxd) -> None:
    """One bad line in a batch is found by halves, counted, and all others are written."""
    influxd.write(b"m f=0.0 0", "ess")
    async with running(Rig(influxd.url)) as rig:
        lines = [b"m f=%d.0 %d" % (number, number) for number in range(1, 100)]
        lines.insert(37, b"m f=1i 1000")
        rig.queue.append(lines)
        await rig.until_empty()
        assert (rig.writer.counters.written, rig.writer.counters.rejected) == (99, 1)
        assert rig.queue.depth().rejected == 1
        assert len(rig.server.writes) < 20
    assert stored(influxd) == [float(number) for number in range(100)]


async def test_parse_error_and_conflict_in_one_batch_are_both_found(influxd: Influxd) -> None:
    """Two different faults in a batch reject two lines."""
    influxd.write(b"m f=0.0 0", "ess")
    async with running(Rig(influxd.url)) as rig:
        rig.queue.append([b"m f=1.0 1", b"this is no line", b"m f=2.0 2", b"m f=3i 3", b"m f=4.0 4"])
        await rig.until_empty()
        assert (rig.writer.counters.written, rig.writer.counters.rejected) == (3, 2)
    assert stored(influxd) == [0.0, 1.0, 2.0, 4.0]


async def test_points_beyond_retention_are_counted_in_one_request(influxd: Influxd) -> None:
    """A whole batch that is too old is rejected without halving it."""
    influxd.query("ALTER RETENTION POLICY autogen ON ess DURATION 1h SHARD DURATION 1h")
    async with running(Rig(influxd.url)) as rig:
        rig.append(1, 80)
        await rig.until_empty()
        assert rig.writer.counters.rejected == 80
        assert len(rig.server.writes) <= 8


async def test_too_large_body_is_halved(tmp_path: Path) -> None:
    """A server that takes 1 KB at once gets everything in small pieces."""
    with Influxd(tmp_path, sections={"http": {"max-body-size": "1000"}}) as influxd:
        influxd.query("CREATE DATABASE ess")
        async with running(Rig(influxd.url)) as rig:
            rig.append(1, 100)
            await rig.until_empty()
            assert rig.writer.counters.rejected == 0
        assert stored(influxd) == [float(number) for number in range(1, 101)]


async def test_wrong_password_pauses_until_it_is_right(tmp_path: Path) -> None:
    """With a wrong password everything is kept, the remedy is named, and the right one resumes."""
    with Influxd(tmp_path, auth=True) as influxd:
        influxd.create_admin("admin", "root")
        influxd.query("CREATE DATABASE ess")
        influxd.query("CREATE USER recorder WITH PASSWORD 'other' WITH ALL PRIVILEGES")
        async with running(Rig(influxd.url, username="recorder", password="secret")) as rig:
            rig.append(1, 100)
            await rig.until(lambda: rig.writer.state is WriterState.PAUSED)
            assert "password" in rig.writer.remedy
            assert rig.queue.depth().points == 100
            influxd.query("SET PASSWORD FOR recorder = 'secret'")
            await rig.until_empty()
            assert (rig.writer.state, rig.writer.remedy) == (WriterState.WRITING, "")
        assert len(stored(influxd)) == 100


async def test_dropped_database_is_created_where_that_is_allowed(influxd: Influxd) -> None:
    """DROP DATABASE while writing costs no point that was still in the queue."""
    async with running(Rig(influxd.url, prepare=lambda: set_up(influxd).apply())) as rig:
        rig.append(1, 50)
        await rig.until_empty()
        influxd.query("DROP DATABASE ess")
        rig.append(51, 50)
        await rig.until_empty()
    assert stored(influxd) == [float(number) for number in range(51, 101)]


async def test_missing_database_pauses_where_nothing_may_be_created(influxd: Influxd) -> None:
    """Without leave to create the database the writer waits for somebody to do it."""
    influxd.query("DROP DATABASE ess")
    async with running(Rig(influxd.url)) as rig:
        rig.append(1, 10)
        await rig.until(lambda: rig.writer.state is WriterState.PAUSED)
        assert "create the database" in rig.writer.remedy
        influxd.query("CREATE DATABASE ess")
        await rig.until_empty()
    assert len(stored(influxd)) == 10


@pytest.mark.parametrize("status", [200, 302, 404])
async def test_something_else_on_the_port_acknowledges_nothing(status: int) -> None:
    """A wrong URL pauses the writer, and every line stays."""
    with misfit(status, b"hello", {"Location": "/"}) as url:
        async with running(Rig(url)) as rig:
            rig.append(1, 10)
            await rig.until(lambda: rig.writer.state is WriterState.PAUSED)
            assert "URL" in rig.writer.remedy
            assert rig.queue.depth().points == 10
            assert rig.writer.counters.written == 0


async def test_event_loop_goes_on_while_the_server_hangs(influxd: Influxd) -> None:
    """A suspended server delays no other task, and afterwards nothing is missing."""
    async with running(Rig(influxd.url)) as rig:
        await rig.until(lambda: rig.writer.state is WriterState.WRITING)
        influxd.suspend()
        rig.append(1, 10)
        longest, before = 0.0, time.monotonic()
        end = before + 0.5
        while before < end:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            longest, before = max(longest, now - before), now
        assert longest < 0.25
        assert rig.queue.depth().points == 10
        influxd.resume()
        await rig.until_empty()
    assert len(stored(influxd)) == 10


async def test_stop_sends_what_is_waiting(influxd: Influxd) -> None:
    """Stopping writes the rest of the queue, although no batch was due."""
    rig = Rig(influxd.url, WriterSettings(flush_after_seconds=3600.0))
    rig.writer.start()
    await rig.until(lambda: rig.writer.state is WriterState.WRITING)
    rig.append(1, 30)
    await rig.writer.stop(deadline_seconds=10.0)
    assert rig.queue.depth().points == 0
    assert rig.writer.state is WriterState.STOPPED
    assert len(stored(influxd)) == 30


async def test_stop_ends_within_its_deadline_and_keeps_the_rest() -> None:
    """Stopping while the database is down takes no longer than allowed, and loses nothing."""
    rig = Rig(f"http://127.0.0.1:{free_port()}", WriterSettings(retry_first_seconds=30.0))
    rig.append(1, 30)
    rig.writer.start()
    await rig.until(lambda: rig.writer.state is WriterState.RETRYING)
    begin = time.monotonic()
    await rig.writer.stop(deadline_seconds=0.3)
    assert time.monotonic() - begin < 2.0
    batch = rig.queue.take(100, 10_000)
    assert batch
    assert len(batch.lines) == 30


async def test_writer_uses_the_v2_path_where_there_is_one(tmp_path: Path) -> None:
    """The same writer fills VictoriaMetrics through influxdb-client."""
    now_ms = time.time_ns() // 1_000_000
    with VictoriaMetrics(tmp_path) as victoria:
        async with running(Rig(victoria.url)) as rig:
            rig.queue.append(
                [b"v f=%d.0 %d" % (number, (now_ms + number) * 1_000_000) for number in range(50)]
            )
            await rig.until_empty()
            values: list[float] = []

            def arrived() -> bool:
                values[:] = [value for series in victoria.samples("v_f") for value in series["values"]]
                return len(values) == 50

            await rig.until(arrived)
    assert values == [float(number) for number in range(50)]


@given(st.integers())
def test_waits_double_to_the_longest_and_begin_again_after_a_success(seed: int) -> None:
    """Waits are 1, 2, 4 ... 60 s, each shortened by up to a half, whatever the seed."""
    backoff = Backoff(Random(seed))
    for _ in range(2):
        for bound in (1, 2, 4, 8, 16, 32, 60, 60, 60):
            assert bound / 2 <= backoff.wait_seconds() <= bound
        backoff.reset()

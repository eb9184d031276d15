"""The writer between a real queue and a real server: nothing lost, nothing doubled."""

import asyncio
import errno
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.influx.backoff import Backoff
from recorder.influx.writer import Hooks, WriterSettings, WriterState
from recorder.spool.memory import MemoryQueue
from recorder.spool.queue import Batch
from tests.influx.plant import set_up
from tests.influx.writer_rig import QUICK, Rig, running, stored
from tests.support.influxd import TIMEOUT_SECONDS, Influxd, VictoriaMetrics, free_port, until


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """A server with an empty database `ess`."""
    with Influxd(tmp_path) as server:
        server.query("CREATE DATABASE ess")
        yield server


async def test_full_batch_goes_at_once(influxd: Influxd) -> None:
    """A batch is sent when it is full, long before the flush interval."""
    settings = WriterSettings(batch_points=50, flush_after_seconds=3600.0)
    async with running(Rig(influxd.url, settings)) as rig:
        await until(lambda: rig.writer.state is WriterState.WRITING)
        rig.append(1, 120)
        await until(lambda: rig.writer.counters.written == 100)
        assert rig.server.writes == [50, 50]
        assert rig.queue.depth().points == 20


async def test_single_point_goes_after_the_flush_interval(influxd: Influxd) -> None:
    """A home at 1 Hz never fills a batch, and still its points go to the database."""
    async with running(Rig(influxd.url, WriterSettings(flush_after_seconds=0.3))) as rig:
        await until(lambda: rig.writer.state is WriterState.WRITING)
        rig.append(1, 1)
        await rig.until_empty()
    assert stored(influxd) == [1.0]


async def test_outage_loses_and_doubles_nothing(influxd: Influxd) -> None:
    """Points from before, during and after an outage are all there, once, and the state tells of it."""
    async with running(Rig(influxd.url)) as rig:
        rig.append(1, 250)
        await rig.until_empty()
        influxd.stop()
        rig.append(251, 250)
        await until(lambda: rig.writer.state is WriterState.RETRYING)
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
            await until(lambda: rig.writer.counters.written > 100)
            influxd.kill()
            influxd.start()
        await rig.until_empty()
    assert stored(influxd) == [float(number) for number in range(1, 1501)]


async def test_unreachable_server_at_the_start_is_no_obstacle(tmp_path: Path) -> None:
    """The writer starts without a database, says so, and writes as soon as there is one."""
    influxd = Influxd(tmp_path)
    async with running(Rig(influxd.url, hooks=Hooks(lambda: set_up(influxd).apply()))) as rig:
        rig.append(1, 30)
        await until(lambda: rig.writer.state is WriterState.RETRYING)
        with influxd:
            await rig.until_empty()
            assert stored(influxd) == [float(number) for number in range(1, 31)]


class TroubledQueue(MemoryQueue):
    """A queue whose disk fails at the first reads."""

    failures = 3

    def take(self, max_points: int, max_bytes: int) -> Batch | None:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EIO, "input/output error")
        return super().take(max_points, max_bytes)


async def test_disk_trouble_of_the_queue_does_not_end_the_writer(influxd: Influxd) -> None:
    """Where the queue can not be read the writer says so, tries again, and then everything is written."""
    rig = Rig(influxd.url, WriterSettings(flush_after_seconds=0.05, retry_first_seconds=0.2))
    queue = TroubledQueue(10_000_000, time.monotonic)
    rig.queue = rig.writer._queue = queue
    async with running(rig):
        rig.append(1, 30)
        await until(lambda: "OSError" in rig.writer.last_error)
        await rig.until_empty()
        assert (rig.writer.state, rig.writer.last_error) == (WriterState.WRITING, "")
    assert len(stored(influxd)) == 30


async def test_lines_are_told_of_before_the_queue_forgets_them(influxd: Influxd) -> None:
    """Who notes what was written sees it while it is still in the queue, so that a kill makes no hole."""
    waiting: list[int] = []
    rig = Rig(influxd.url, QUICK, Hooks(on_written=lambda _: waiting.append(rig.queue.depth().points)))
    async with running(rig):
        rig.append(1, 10)
        await rig.until_empty()
    assert waiting == [10]


async def test_event_loop_goes_on_while_the_server_hangs(influxd: Influxd) -> None:
    """A suspended server delays no other task, and afterwards nothing is missing."""
    async with running(Rig(influxd.url)) as rig:
        await until(lambda: rig.writer.state is WriterState.WRITING)
        influxd.suspend()
        rig.append(1, 10)
        await until(lambda: rig.server.writes)
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert (rig.server.ended, rig.queue.depth().points) == (0, 10)
        influxd.resume()
        await rig.until_empty()
    assert len(stored(influxd)) == 10


async def test_stop_sends_what_is_waiting(influxd: Influxd) -> None:
    """Stopping writes the rest of the queue, although no batch was due."""
    rig = Rig(influxd.url, WriterSettings(flush_after_seconds=3600.0))
    rig.writer.start()
    await until(lambda: rig.writer.state is WriterState.WRITING)
    rig.append(1, 30)
    await rig.writer.stop(deadline_seconds=TIMEOUT_SECONDS)
    assert rig.queue.depth().points == 0
    assert rig.writer.state is WriterState.STOPPED
    assert len(stored(influxd)) == 30


async def test_stop_ends_within_its_deadline_and_keeps_the_rest() -> None:
    """Stopping while the database is down does not wait for the next attempt, and loses nothing."""
    rig = Rig(
        f"http://127.0.0.1:{free_port()}",
        WriterSettings(retry_first_seconds=3600.0, retry_longest_seconds=3600.0),
    )
    rig.append(1, 30)
    rig.writer.start()
    await until(lambda: rig.writer.state is WriterState.RETRYING)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await rig.writer.stop(deadline_seconds=0.3)
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

            await until(arrived)
    assert values == [float(number) for number in range(50)]


@given(st.integers())
def test_waits_double_to_the_longest_and_begin_again_after_a_success(seed: int) -> None:
    """Waits are 1, 2, 4 ... 60 s, each shortened by up to a half, whatever the seed."""
    backoff = Backoff(Random(seed))
    for _ in range(2):
        for bound in (1, 2, 4, 8, 16, 32, 60, 60, 60):
            assert bound / 2 <= backoff.wait_seconds() <= bound
        backoff.reset()

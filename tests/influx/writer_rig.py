"""A writer between a queue in memory and a real server, for tests."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from recorder.influx.server import Connection, InfluxServer, WriteAnswer
from recorder.influx.writer import BatchingWriter, Hooks, WriterSettings
from recorder.spool.memory import MemoryQueue
from tests.support.influxd import TIMEOUT_SECONDS, Influxd, until

QUICK = WriterSettings(
    batch_points=100,
    flush_after_seconds=0.05,
    retry_first_seconds=0.02,
    retry_longest_seconds=0.1,
    pause_seconds=0.1,
)


NO_HOOKS = Hooks()


class CountingServer(InfluxServer):
    """A real server that also notes the number of lines of each write, and how many have ended."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.writes: list[int] = []
        self.ended = 0

    def write(self, lines: bytes) -> WriteAnswer:
        self.writes.append(lines.count(b"\n"))
        try:
            return super().write(lines)
        finally:
            self.ended += 1


class Rig:
    """A queue, a writer and the server that it writes to."""

    def __init__(
        self,
        url: str,
        settings: WriterSettings = QUICK,
        hooks: Hooks = NO_HOOKS,
        **login: str,
    ) -> None:
        self.queue = MemoryQueue(10_000_000, time.monotonic)
        self.server = CountingServer(Connection(url, timeout_seconds=TIMEOUT_SECONDS, **login))  # type: ignore[arg-type]
        self.writer = BatchingWriter(self.queue, self.server, settings, Random(1), hooks)

    def append(self, first: int, count: int) -> None:
        """Numbered points, appended in tens, as decoding would."""
        for start in range(first, first + count, 10):
            numbers = range(start, min(start + 10, first + count))
            self.queue.append([b"m f=%d.0 %d" % (number, number) for number in numbers])
            self.writer.wake()

    async def until_empty(self) -> None:
        """Return as soon as every line has its fate."""
        await until(lambda: self.queue.depth().points == 0)


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    """A rig whose writer runs, and is stopped at the end."""
    rig.writer.start()
    try:
        yield rig
    finally:
        await rig.writer.stop(deadline_seconds=0.0)
        rig.server.close()


def stored(influxd: Influxd) -> list[float]:
    """The numbers of all points in the database."""
    return [row["f"] for row in influxd.query("SELECT f FROM m", "ess")]

"""InfluxDB as the service sees it: points in, and a state to show.

Takes points at any time, gives them to the queue, and runs what empties it: the writer, the set-up
at each connection, and the scheduled audit. Never makes its caller wait.
"""

from collections.abc import Sequence
from datetime import timedelta
from random import Random

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from recorder.influx.influxql import parse_duration
from recorder.influx.retention import FOR_EVER, Retention
from recorder.influx.schedule import schedule_audit
from recorder.influx.server import Connection, InfluxServer
from recorder.influx.setup import SetUp, SetUpSettings
from recorder.influx.writer import BatchingWriter, WriterSettings
from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.profiles.model import Profile
from recorder.settings import Settings
from recorder.spool.queue import PointQueue

_log = structlog.get_logger(__name__)


def open_server(settings: Settings) -> InfluxServer:
    """Give the server that the settings name; nothing is sent yet."""
    influxdb = settings.influxdb
    return InfluxServer(
        Connection(
            url=influxdb.url,
            database=influxdb.database,
            username=influxdb.username or "",
            password=influxdb.password.get_secret_value() if influxdb.password else "",
            token=influxdb.token.get_secret_value() if influxdb.token else "",
            timeout_seconds=influxdb.timeout_seconds,
            compress=settings.writer.gzip,
        )
    )


def set_up_of(server: InfluxServer, settings: Settings, profiles: Sequence[Profile]) -> SetUp:
    """Give the set-up of that server's database, as the settings want it."""
    influxdb, kept = settings.influxdb, settings.retention
    reader = influxdb.reader
    return SetUp(
        server,
        SetUpSettings(
            profiles=tuple(profiles),
            timezone=settings.timezone,
            retention=Retention(raw=_kept(kept.raw), avg10=_kept(kept.avg10), rollups=_kept(kept.rollups)),
            create_database=influxdb.create_database,
            claim_new_server=influxdb.claim_new_server,
            reader_username=reader.username or "",
            reader_password=reader.password.get_secret_value() if reader.password else "",
        ),
    )


class InfluxSink:
    """Writes points for as long as the service runs.

    Args:
        settings: what the owner set.
        profiles: the devices whose continuous queries are kept.
        queue: where points wait.
    """

    def __init__(self, settings: Settings, profiles: Sequence[Profile], queue: PointQueue) -> None:
        self._queue = queue
        self._server = open_server(settings)
        self._set_up = set_up_of(self._server, settings, profiles)
        self._manage = settings.queries.manage
        self._writer = BatchingWriter(
            queue,
            self._server,
            WriterSettings(
                batch_points=settings.writer.batch_points,
                flush_after_seconds=settings.writer.flush_after_seconds,
                retry_first_seconds=settings.writer.retry_min_seconds,
                retry_longest_seconds=settings.writer.retry_max_seconds,
            ),
            Random(),  # noqa: S311  # jitter, not a secret
            prepare=self._prepare if self._manage else None,
        )
        self._scheduler = AsyncIOScheduler(timezone="UTC")
        schedule_audit(self._scheduler, self._set_up, settings.queries.audit_every_seconds)

    def start(self) -> None:
        """Begin to write and to audit; needs a running event loop."""
        self._writer.start()
        if self._manage:
            self._scheduler.start()

    def append(self, points: Sequence[Point]) -> None:
        """Put points into the queue.

        Raises:
            OSError: the queue could not store them.
        """
        self._queue.append([to_line(point) for point in points])
        self._writer.wake()

    async def stop(self, deadline_seconds: float) -> None:
        """Write what waits, for at most `deadline_seconds`."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        await self._writer.stop(deadline_seconds)
        self._server.close()

    @property
    def state(self) -> str:
        """What the writer is doing, in a word."""
        return self._writer.state.value

    @property
    def problem(self) -> str:
        """What keeps points from being written and what to do about it; empty while all is well."""
        if not self._writer.last_error:
            return ""
        remedy = f"; {self._writer.remedy}" if self._writer.remedy else ""
        return f"InfluxDB: {self._writer.last_error}{remedy}"

    @property
    def set_up_problems(self) -> tuple[str, ...]:
        """What is not as it should be in the database; points are written all the same."""
        return self._set_up.problems

    def figures(self) -> dict[str, float]:
        """How full the queue is, and what became of points since the start."""
        depth, counters = self._queue.depth(), self._writer.counters
        return {
            "queue_points": depth.points,
            "queue_bytes": depth.nbytes,
            "queue_age": depth.oldest_age_seconds,
            "dropped": depth.dropped,
            "rejected": depth.rejected,
            "written": counters.written,
            "retries": counters.retries,
        }

    def _prepare(self) -> None:
        self._set_up.apply()


def _kept(duration: str) -> timedelta:
    return FOR_EVER if duration == "inf" else parse_duration(duration)

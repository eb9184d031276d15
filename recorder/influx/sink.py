"""InfluxDB as the service sees it: points in, and a state to show.

Takes points at any time, gives them to the queue, and runs what empties it: the writer, the set-up
at each connection, and the scheduled audit. Never makes its caller wait.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from recorder.influx.day_borders import FILE_NAME as BORDERS_FILE
from recorder.influx.day_borders import DayBorders
from recorder.influx.dead_letters import DIRECTORY, DeadLetters
from recorder.influx.handover import HandOver
from recorder.influx.influxql import parse_duration
from recorder.influx.late_range import FILE_NAME, LateRange
from recorder.influx.no_server import NoServer, figures_of
from recorder.influx.repair import LATE_AFTER_SECONDS, Repair
from recorder.influx.retention import FOR_EVER, Retention
from recorder.influx.savings import DailySavings
from recorder.influx.schedule import (
    begin_anew,
    new_scheduler,
    schedule_audit,
    schedule_look,
    schedule_repair,
    schedule_savings,
)
from recorder.influx.server import Connection, InfluxServer
from recorder.influx.setup import SetUp, SetUpSettings
from recorder.influx.thinned import Thinned
from recorder.influx.writer import BatchingWriter, Hooks, WriterSettings, WriterState
from recorder.points.line_protocol import to_line
from recorder.points.point import Point
from recorder.profiles.model import Profile
from recorder.settings import Settings
from recorder.spool.queue import PointQueue
from recorder.store.store import Store
from recorder.tariffs.model import Tariffs

DEFAULT_URL: Final = "http://127.0.0.1:8086"
"""Where commands look for an InfluxDB when none is configured."""

_REPAIR_EVERY_SECONDS: Final = 10.0
_REFUSED: Final = (
    f"InfluxDB refused points: data_dir/{DIRECTORY} says which and why; once that is mended, run: "
    "ess-recorder replay --dead-letters"
)


def open_server(settings: Settings) -> InfluxServer:
    """Give the server that the settings name, else that of this machine; nothing is sent yet."""
    influxdb = settings.influxdb
    return InfluxServer(
        Connection(
            url=influxdb.url or DEFAULT_URL,
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


def day_borders_of(settings: Settings, set_up: SetUp, server: InfluxServer) -> DayBorders:
    """Give what keeps the days of that database to the time zone of the settings."""
    return DayBorders(settings.data_dir / BORDERS_FILE, set_up, server, settings.timezone)


def open_sink(
    settings: Settings,
    profiles: Sequence[Profile],
    queue: PointQueue,
    store: Store,
    tariffs: Tariffs | None = None,
) -> "InfluxSink | NoServer":
    """Give what empties the queue: an InfluxDB, or nothing where none is configured.

    What the store recorded without an InfluxDB is handed over. With `tariffs` the savings of yesterday and
    today are computed each hour.
    """
    if not settings.influxdb.url:
        return NoServer(queue, store)
    sink = InfluxSink(settings, profiles, queue, store=store)
    if tariffs is not None:
        sink.compute_savings(tariffs, settings.timezone)
    return sink


def dead_letters_of(settings: Settings) -> DeadLetters:
    """Give the dead letters of the data directory; nothing is written yet."""
    return DeadLetters(settings.data_dir / DIRECTORY, lambda: datetime.now(UTC))


class InfluxSink:
    """Writes points for as long as the service runs.

    Args:
        settings: what the owner set.
        profiles: the devices whose continuous queries are kept.
        queue: where points wait.
        repair: whether what the continuous queries missed is computed again by itself, which takes the
            range of late points in the data directory for its own.
        store: what it recorded without an InfluxDB is handed over; needs `repair`.
    """

    configured: Final = True

    def __init__(
        self,
        settings: Settings,
        profiles: Sequence[Profile],
        queue: PointQueue,
        *,
        repair: bool = True,
        store: Store | None = None,
    ) -> None:
        self._queue = queue
        self._server = open_server(settings)
        self._set_up = set_up_of(self._server, settings, profiles)
        self._manage = settings.queries.manage
        self.dead_letters = dead_letters_of(settings)
        self.repair: Repair | None = None
        self.hand_over: HandOver | None = None
        self.day_borders: DayBorders | None = None
        if repair and self._manage:
            self.day_borders = day_borders_of(settings, self._set_up, self._server)
            late = LateRange(settings.data_dir / FILE_NAME)
            self.repair = Repair(late, self._set_up, time.time_ns)
            if store is not None:
                thinned = Thinned(profiles, settings.timezone)
                self.hand_over = HandOver(store, self._server, self._set_up, thinned, time.time_ns)
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
            Hooks(
                prepare=self._set_up.apply if self._manage else None,
                on_written=self.repair.note_written if self.repair else None,
                on_rejected=self.dead_letters.add,
            ),
        )
        self._scheduler = new_scheduler()
        schedule_look(self._scheduler, self.dead_letters)
        if self._manage:
            schedule_audit(self._scheduler, self._set_up, settings.queries.audit_every_seconds)
        if self.repair is not None:
            schedule_repair(self._scheduler, self._catch_up, self._has_drained, _REPAIR_EVERY_SECONDS)

    def compute_savings(self, tariffs: Tariffs, timezone: str) -> None:
        """Plan the savings of yesterday and today, by local time, for each hour from the start on.

        Where the continuous queries are not managed there are no energies to compute them from.
        """
        if self._manage:
            daily = DailySavings(self._server, tariffs, timezone)
            schedule_savings(self._scheduler, daily)
            if self.day_borders is not None:
                self.day_borders.savings = daily

    def start(self) -> None:
        """Begin to write and to audit; needs a running event loop."""
        self._writer.start()
        self._scheduler.start()

    def append(self, points: Sequence[Point]) -> None:
        """Put points into the queue."""
        if self.repair is not None:
            self.repair.note_appended(points)
        self.append_lines([to_line(point) for point in points])

    def append_lines(self, lines: Sequence[bytes]) -> None:
        """Put lines of points into the queue, whose times no repair is to know of."""
        self._queue.append(lines)
        self._writer.wake()

    def flush(self) -> None:
        """Write what waits now, without waiting for more to fill a batch."""
        self._writer.flush()

    def clock_was_set(self) -> None:
        """Learn that the wall clock jumped: what is planned by it is planned anew."""
        if self.repair is not None:
            self.repair.clock_was_set()
        if self._scheduler.running:
            begin_anew(self._scheduler)

    async def stop(self, deadline_seconds: float) -> None:
        """Write what waits, for at most `deadline_seconds`."""
        for task in (self.hand_over, self.repair):
            if task is not None:
                task.stop()
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
    def side_problems(self) -> tuple[str, ...]:
        """What is wrong beside the writing of points, each with what to do about it."""
        tasks = (self.dead_letters, self.hand_over, self.repair, self.day_borders)
        problems = [task.problem for task in tasks if task is not None and task.problem]
        if self.dead_letters.waiting:
            problems.append(_REFUSED)
        return tuple(problems)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is done to the database now that makes some figures incomplete."""
        return (self.day_borders.note,) if self.day_borders and self.day_borders.note else ()

    @property
    def late_range(self) -> dict[str, object]:
        """The time whose averages are to be computed again, and how far that is; for the health answer."""
        if self.repair is None:
            return {}
        state = self.repair.state
        spans = {"pending": state.pending, "repairing": state.repairing}
        texts = {name: [_text(span.first_ns), _text(span.last_ns)] for name, span in spans.items() if span}
        return {**texts, "done": state.done, "steps": state.steps}

    @property
    def set_up_problems(self) -> tuple[str, ...]:
        """What is not as it should be in the database; points are written all the same."""
        return self._set_up.problems

    def figures(self) -> dict[str, float]:
        """How full the queue is, and what became of points since the start."""
        counters = self._writer.counters
        return figures_of(
            self._queue.depth(),
            written=counters.written,
            retries=counters.retries,
            dead_letters=self.dead_letters.added,
            late_seconds=self.repair.late_seconds if self.repair else 0.0,
            backfills=self.repair.completed if self.repair else 0,
        )

    def _catch_up(self) -> None:
        """Compute again what the queries missed, then hand over what the store alone has. Blocks."""
        if self.repair is None:
            return
        if self.day_borders is not None and self._set_up.has_continuous_queries:
            self.day_borders.run(datetime.now(UTC))
        self.repair.run()
        is_settled = self.repair.late_seconds == 0 and self._set_up.has_continuous_queries
        if self.hand_over is not None and is_settled:
            self.hand_over.run()

    def _has_drained(self) -> bool:
        """Whether nothing waits that a repair would miss."""
        waits_long = self._queue.depth().oldest_age_seconds >= LATE_AFTER_SECONDS
        return self._writer.state is WriterState.WRITING and not waits_long


def _text(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat(timespec="seconds")


def _kept(duration: str) -> timedelta:
    return FOR_EVER if duration == "inf" else parse_duration(duration)

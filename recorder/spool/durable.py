"""The durable queue: points wait in memory, and on a disk where InfluxDB does not take them soon.

Takes and gives what `PointQueue` promises, and survives kill -9, a loss of power, damaged files and a
disk that fails. Never lets `append` wait for a disk, and never loses a point without counting it.

    append ─► recent (memory) ────────────────────────────────► take ─► out ─► accept, reject, keep
                  └─ commit, at the age of one interval ─► segments ─► backlog ─┘

A commit stores every point that is still here after `commit_interval_seconds`, those out in a batch
too. Where InfluxDB answers within that time nothing is written to the disk. `take` gives what is
recent first, up to half of a batch where there is a backlog, and fills up with the oldest.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from recorder.spool.cursor import CursorFile
from recorder.spool.ledger import Ledger, Segment
from recorder.spool.queue import Batch, Depth
from recorder.spool.ranges import Ranges
from recorder.spool.records import HEADER_BYTES, Record, encode_record, scan
from recorder.spool.segments import Encoded, QueueLocked, SegmentDirectory, remedy_for
from recorder.spool.stages import Stages

_SEGMENT_BYTES: Final = 1 << 20
_RECORD_BYTES: Final = 64 << 10
# A commit begins before its interval is over: what a kill takes is less than one, the disk's time included.
_BEFORE_THE_END: Final = 0.9

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the queue may hold, and how soon it stores what waits.

    `max_bytes` and `max_age_seconds` bound the disk, `max_memory_bytes` bounds what is not stored; of
    that at most half of `max_bytes` is used.
    """

    max_bytes: int = 2 << 30
    max_age_seconds: float = 90 * 86400.0
    max_memory_bytes: int = 32 << 20
    commit_interval_seconds: float = 10.0


class DurableQueue:
    """A `PointQueue` in memory and on a disk; all methods may be called from any thread.

    Args:
        directory: the queue's own; nothing is touched before `open`.
        limits: what it may hold.
        consumer: whose cursor is kept.
        clock: gives monotonic seconds.
        wall_clock: gives Unix seconds.
    """

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        consumer: str = "influxdb",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = directory
        self._limits = limits
        self._consumer = consumer
        self._clock = clock
        self._wall_clock = wall_clock
        self._segment_bytes = min(_SEGMENT_BYTES, limits.max_bytes // 8)

        self._lock = threading.Lock()  # the stages; never held during input or output
        self._stages = Stages(min(limits.max_memory_bytes, limits.max_bytes // 2), clock, wall_clock)

        self._disk_lock = threading.Lock()  # one commit at a time
        self._take_lock = threading.Lock()  # one reader at a time
        self._directory: SegmentDirectory | None = None
        self._cursor: CursorFile | None = None
        self._done: list[Segment] = []
        self._problem = ""
        self._wake = threading.Event()
        self._closing = False
        self._committer: threading.Thread | None = None

    @property
    def problem(self) -> str:
        """Why points are in memory only, and what to do about it; empty while all is well."""
        return self._problem

    def open(self) -> None:
        """Take up what an earlier run left. A disk that cannot be used is a `problem`, no error.

        Raises:
            QueueLocked: another process uses this queue.
        """
        with self._disk_lock:
            try:
                self._open()
            except OSError as error:
                self._tell(error)

    def start(self) -> None:
        """Commit in a thread from now on, until `close`."""
        self._committer = threading.Thread(target=self._keep_committing, name="queue-commit", daemon=True)
        self._committer.start()

    def close(self) -> None:
        """Store what waits, and let go of the directory."""
        self._closing = True
        self._wake.set()
        if self._committer is not None:
            self._committer.join()
        self.commit()
        with self._disk_lock:
            if self._cursor is not None:
                self._cursor.close()
            if self._directory is not None:
                self._directory.close()
            self._cursor = self._directory = None

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines at the end, as one group; the oldest groups in memory make room."""
        if not lines:
            return
        with self._lock:
            self._stages.append(lines)
            half_full = self._stages.half_full
        if half_full and not self._problem:
            self._wake.set()

    def take(self, max_points: int, max_bytes: int) -> Batch | None:
        """The recent lines, and the oldest of the disk; at least one line, None when nothing waits.

        Raises:
            OSError: only lines on the disk wait, and they cannot be read now.
        """
        with self._take_lock:
            unreadable = self._load(max_points)
            with self._lock:
                batch = self._stages.take(max_points, max_bytes)
        if batch is None and unreadable is not None:
            raise unreadable
        return batch

    def accept(self, batch: Batch) -> None:
        """Forget a batch that is in the database."""
        self.reject(batch, {})

    def reject(self, batch: Batch, reasons: Mapping[int, str]) -> None:
        """Forget a batch of which some lines were refused, and count those."""
        with self._lock:
            self._stages.finish(batch, reasons)

    def keep(self, batch: Batch) -> None:
        """Put a batch back to where it was."""
        with self._lock:
            self._stages.keep(batch)

    def depth(self) -> Depth:
        """How full the queue is now, memory and disk together."""
        with self._lock:
            return self._stages.depth()

    def commit(self) -> bool:
        """Store everything that is only in memory, whatever its age; False where the disk fails."""
        return self._work(store=True)

    def _keep_committing(self) -> None:
        while not self._closing:
            self._wake.wait(self._seconds_to_commit())
            self._wake.clear()
            with self._lock:
                half_full = self._stages.half_full
            try:
                self._work(store=half_full or self._seconds_to_commit() == 0)
            except Exception as error:  # noqa: BLE001  # whatever it is, committing goes on
                _log.error("unexpected error while storing the queue", exc_info=error)
                self._problem = f"queue: unexpected {type(error).__name__}; please report it with the log"

    def _seconds_to_commit(self) -> float:
        """Give the time until the oldest point that is only in memory has waited for nearly an interval."""
        interval = self._limits.commit_interval_seconds * _BEFORE_THE_END
        if self._problem:
            return interval
        with self._lock:
            oldest_at = self._stages.oldest_held_at
        return interval if oldest_at is None else max(0.0, oldest_at + interval - self._clock())

    def _work(self, *, store: bool) -> bool:
        with self._disk_lock:
            try:
                directory = self._directory or self._open()
                if store or self._problem:
                    self._store(directory)
                self._make_room(directory, 0)
                directory.probe()
            except (OSError, QueueLocked) as error:
                self._tell(error)
                return False
            self._tell(None)
            return True

    def _tell(self, error: OSError | QueueLocked | None) -> None:
        """Say once what is wrong with the disk, and once that it works again."""
        if error is None:
            if self._problem:
                _log.info("the queue's disk works again")
            self._problem = ""
            return
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        problem = (
            f"queue: {self._path} cannot be used: {reason}; {remedy_for(error)}; "
            "until then points wait in memory only"
        )
        if problem != self._problem:
            _log.error("points are not stored on the disk", reason=reason, remedy=remedy_for(error))
        self._problem = problem

    def _open(self) -> SegmentDirectory:
        directory = SegmentDirectory(self._path, self._segment_bytes)
        try:
            found = directory.segments()
            stored_to = directory.last_number(found)
            self._cursor = CursorFile(directory.cursor_path(self._consumer))
        except OSError:
            directory.close()
            raise
        place = self._cursor.read()
        if place is not None:
            stored_to = max(stored_to, place.stored_to)
        now, age = self._clock(), self._stages.age
        ends = [one.first for one in found[1:]] + [stored_to]
        segments = [
            Segment(one.path, one.first, end, one.size, now - age(one.created_at), now - age(one.written_at))
            for one, end in zip(found, ends, strict=False)
        ]
        first = segments[0].first if segments else stored_to
        with self._lock:
            ledger = Ledger(segments, place.settled if place else [(0, first)], stored_to)
            self._stages.ledger = ledger
            lost = self._stages.lose(ledger.settled.missing(0, first), now, now)
        _report_loss(lost)
        if ledger.points:
            _log.info("points of an earlier run wait", points=ledger.points)
        self._directory = directory
        return directory

    def _store(self, directory: SegmentDirectory) -> None:
        """Write what is only in memory, and let go of what waits there."""
        with self._lock:
            start = self._stages.ledger.stored_to
            pieces = self._stages.begin_store()
        if not pieces:
            return
        try:
            records = list(self._encode(start, pieces))
            self._make_room(directory, sum(len(record.data) for record in records) + HEADER_BYTES)
            grown = directory.write(records, self._wall_clock())
        except BaseException:
            with self._lock:
                self._stages.undo_store()
            raise
        with self._lock:
            self._stages.end_store(grown)

    def _encode(self, number: int, pieces: Sequence[tuple[float, Sequence[bytes]]]) -> Iterator[Encoded]:
        """Give records of some 64 KiB; a damaged place costs one of them."""
        lines: list[bytes] = []
        nbytes, since = 0, pieces[0][0]
        for appended_at, piece in pieces:
            for line in piece:
                if nbytes >= _RECORD_BYTES:
                    yield self._encoded(number, since, lines)
                    number, lines, nbytes, since = number + len(lines), [], 0, appended_at
                lines.append(line)
                nbytes += len(line) + 1
        yield self._encoded(number, since, lines)

    def _encoded(self, number: int, appended_at: float, lines: list[bytes]) -> Encoded:
        record = Record(number, self._stages.wall(appended_at), lines)
        return Encoded(number, record.end, encode_record(record))

    def _make_room(self, directory: SegmentDirectory, needed_bytes: int) -> None:
        """Drop the oldest segments beyond the limits, and delete those in which nothing waits."""
        oldest_allowed = self._clock() - self._limits.max_age_seconds
        with self._lock:
            ledger = self._stages.ledger
            self._done += ledger.remove_done()
            room = self._limits.max_bytes - needed_bytes - ledger.file_bytes
            for segment in tuple(ledger.segments):
                if segment.written_at < oldest_allowed:
                    self._stages.evict(segment, "older than queue.max_age")
                elif room < 0:
                    self._stages.evict(segment, "queue.max_bytes was reached")
                else:
                    break
                room += segment.size
            self._done += ledger.remove_done()
            settled, stored_to = Ranges(ledger.settled), ledger.stored_to
        directory.limit_set_aside(max(0, room))
        if self._cursor is not None:
            self._cursor.write(settled, stored_to)
        # Only now, so that no point of a deleted segment is taken for lost after a restart.
        while self._done:
            directory.delete(self._done[-1].path)
            self._done.pop()

    def _load(self, max_points: int) -> OSError | None:
        """Read segments until the backlog has that many lines; gives why it has not."""
        while True:
            with self._lock:
                segment, directory = self._stages.ledger.unread(), self._directory
                if segment is None or directory is None or self._stages.backlog_points >= max_points:
                    return None
                start, size, end = segment.read_to, segment.size, segment.end
            try:
                records = list(scan(directory.read(segment.path, start, size)))
            except FileNotFoundError:
                records = []
            except OSError as error:
                return error
            with self._lock:
                lost = 0
                if segment in self._stages.ledger.segments:
                    lost = self._stages.take_in(segment, records, size, end)
            _report_loss(lost)


def _report_loss(points: int) -> None:
    if points:
        _log.error("the queue is damaged, points are lost; check the disk or SD card", points=points)

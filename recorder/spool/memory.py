"""A queue in memory: bounded, fast, and gone when the process ends.

Takes and gives what `PointQueue` promises. Never writes to a disk, so a restart loses what had not
been written to the database.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from heapq import merge
from threading import Lock

from recorder.spool.groups import Group, size_of, take_lines
from recorder.spool.queue import Batch, Depth


class MemoryQueue:
    """A `PointQueue` that holds at most `max_bytes` of lines, and drops the oldest groups beyond that.

    A group that alone is larger than the bound is dropped and counted as well. `clock` gives
    monotonic seconds.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = Lock()
        self._waiting: deque[Group] = deque()
        self._out: dict[int, list[Group]] = {}
        self._appended = 0
        self._taken = 0
        self._points = 0
        self._nbytes = 0
        self._dropped = 0
        self._rejected = 0

    def append(self, lines: Sequence[bytes]) -> None:
        """Add lines at the end, as one group; the oldest groups make room."""
        if not lines:
            return
        with self._lock:
            self._waiting.append(Group(self._appended, self._clock(), list(lines)))
            self._appended += len(lines)
            self._points += len(lines)
            self._nbytes += size_of(lines)
            while self._nbytes > self._max_bytes and self._waiting:
                oldest = self._waiting.popleft()
                self._forget(oldest.lines)
                self._dropped += len(oldest.lines)

    def take(self, max_points: int, max_bytes: int) -> Batch | None:
        """The oldest lines that are not out, within both limits but at least one line."""
        with self._lock:
            groups = take_lines(self._waiting, max_points, max_bytes, at_least_one=True)
            if not groups:
                return None
            self._taken += 1
            self._out[self._taken] = groups
            lines = tuple(line for group in groups for line in group.lines)
            return Batch(self._taken, lines, size_of(lines))

    def accept(self, batch: Batch) -> None:
        """Forget a batch that is in the database."""
        with self._lock:
            del self._out[batch.sequence]
            self._forget(batch.lines)

    def reject(self, batch: Batch, reasons: Mapping[int, str]) -> None:
        """Forget a batch of which some lines were refused, and count those."""
        with self._lock:
            del self._out[batch.sequence]
            self._forget(batch.lines)
            self._rejected += len(reasons)

    def keep(self, batch: Batch) -> None:
        """Put a batch back to where it was."""
        with self._lock:
            groups = self._out.pop(batch.sequence)
            self._waiting = deque(merge(groups, self._waiting, key=lambda group: group.position))

    def depth(self) -> Depth:
        """How full the queue is now."""
        with self._lock:
            oldest = [groups[0].appended_at for groups in self._out.values()]
            if self._waiting:
                oldest.append(self._waiting[0].appended_at)
            age = self._clock() - min(oldest) if oldest else 0.0
            return Depth(self._points, self._nbytes, age, self._dropped, self._rejected)

    def _forget(self, lines: Sequence[bytes]) -> None:
        self._points -= len(lines)
        self._nbytes -= size_of(lines)

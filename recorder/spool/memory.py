"""A queue in memory: bounded, fast, and gone when the process ends.

Takes and gives what `PointQueue` promises. Never writes to a disk, so a restart loses what had not
been written to the database.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge

from recorder.spool.queue import Batch, Depth


@dataclass(slots=True)
class _Group:
    """Lines appended together, or a piece of them; `position` is the number of its first line."""

    position: int
    appended_at: float
    lines: list[bytes]


class MemoryQueue:
    """A `PointQueue` that holds at most `max_bytes` of lines, and drops the oldest groups beyond that.

    A group that alone is larger than the bound is dropped and counted as well. `clock` gives
    monotonic seconds.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._waiting: deque[_Group] = deque()
        self._out: dict[int, list[_Group]] = {}
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
        self._waiting.append(_Group(self._appended, self._clock(), list(lines)))
        self._appended += len(lines)
        self._points += len(lines)
        self._nbytes += _size(lines)
        while self._nbytes > self._max_bytes and self._waiting:
            oldest = self._waiting.popleft()
            self._forget(oldest.lines)
            self._dropped += len(oldest.lines)

    def take(self, max_points: int, max_bytes: int) -> Batch | None:
        """The oldest lines that are not out, within both limits but at least one line."""
        taken: list[_Group] = []
        lines: list[bytes] = []
        nbytes = 0
        while self._waiting:
            group = self._waiting[0]
            count = 0
            for line in group.lines:
                full = len(lines) + count >= max_points or nbytes + len(line) + 1 > max_bytes
                if full and (lines or count):
                    break
                nbytes += len(line) + 1
                count += 1
            if not count:
                break
            taken.append(_Group(group.position, group.appended_at, group.lines[:count]))
            lines += group.lines[:count]
            if count < len(group.lines):
                del group.lines[:count]
                group.position += count
                break
            self._waiting.popleft()
        if not lines:
            return None
        self._taken += 1
        self._out[self._taken] = taken
        return Batch(self._taken, tuple(lines), nbytes)

    def accept(self, batch: Batch) -> None:
        """Forget a batch that is in the database."""
        del self._out[batch.sequence]
        self._forget(batch.lines)

    def reject(self, batch: Batch, reasons: Mapping[int, str]) -> None:
        """Forget a batch of which some lines were refused, and count those."""
        self.accept(batch)
        self._rejected += len(reasons)

    def keep(self, batch: Batch) -> None:
        """Put a batch back to where it was."""
        groups = self._out.pop(batch.sequence)
        self._waiting = deque(merge(groups, self._waiting, key=lambda group: group.position))

    def depth(self) -> Depth:
        """How full the queue is now."""
        oldest = [groups[0].appended_at for groups in self._out.values()]
        if self._waiting:
            oldest.append(self._waiting[0].appended_at)
        age = self._clock() - min(oldest) if oldest else 0.0
        return Depth(self._points, self._nbytes, age, self._dropped, self._rejected)

    def _forget(self, lines: Sequence[bytes]) -> None:
        self._points -= len(lines)
        self._nbytes -= _size(lines)


def _size(lines: Sequence[bytes]) -> int:
    return sum(map(len, lines)) + len(lines)

"""What lies on the disk, and which of it is done with: the books of the durable queue.

Takes what was stored, read and settled, gives how much waits and which segments can go. Never does
I/O, and leaves locking to its owner.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recorder.spool.ranges import Ranges
from recorder.spool.records import HEADER_BYTES


@dataclass(slots=True, eq=False)
class Segment:
    """One file with the points from `first` up to, not including, `end`.

    `created_at` and `written_at` are in monotonic seconds. `waiting` counts its points that are not
    settled; `read_to` is the byte, and `read_number` the point, up to which it was read back.
    """

    path: Path
    first: int
    end: int
    size: int
    created_at: float
    written_at: float
    waiting: int = 0
    read_to: int = HEADER_BYTES
    read_number: int = 0


class Ledger:
    """Segments in order, and the numbers of the points that are done with.

    Args:
        segments: what lies on the disk.
        settled: the points that are done with.
        stored_to: the number behind the last point that was ever stored.
    """

    def __init__(
        self, segments: Iterable[Segment] = (), settled: Iterable[tuple[int, int]] = (), stored_to: int = 0
    ) -> None:
        self.settled = Ranges(settled)
        self.stored_to = stored_to
        self.segments: list[Segment] = []
        self.points = 0
        self._sizes = 0
        self._numbers = 0
        for segment in segments:
            segment.read_number = segment.first
            self.segments.append(segment)
            self._enter(segment, segment.first, segment.size)

    @property
    def nbytes(self) -> int:
        """Give about how many bytes wait: the share of the files that is not settled."""
        return self._sizes * self.points // max(1, self._numbers)

    @property
    def file_bytes(self) -> int:
        """Give the size of all segments."""
        return self._sizes

    def unread(self) -> Segment | None:
        """Give the oldest segment that was not wholly read back."""
        return next((segment for segment in self.segments if segment.read_to < segment.size), None)

    def grow(self, path: Path, end: int, size: int, now: float) -> None:
        """Enter what was stored: the last segment grew, or a new one follows it."""
        if not self.segments or self.segments[-1].path != path:
            new = Segment(path, self.stored_to, self.stored_to, 0, now, now, read_number=self.stored_to)
            self.segments.append(new)
        segment = self.segments[-1]
        added = size - segment.size
        segment.end, segment.size, segment.written_at = end, size, now
        self._enter(segment, self.stored_to, added)
        self.stored_to = end

    def settle(self, first: int, end: int) -> int:
        """Mark points as done with, and give how many of those on the disk were not."""
        count = 0
        for start, stop in self.settled.missing(first, end):
            index = max(0, bisect_right(self.segments, start, key=lambda segment: segment.first) - 1)
            for segment in self.segments[index:]:
                if segment.first >= stop:
                    break
                overlap = max(0, min(stop, segment.end) - max(start, segment.first))
                segment.waiting -= overlap
                count += overlap
        self.settled.add(first, end)
        self.points -= count
        return count

    def remove_done(self) -> list[Segment]:
        """Take the segments in which nothing waits out of the books."""
        done = [segment for segment in self.segments if not segment.waiting]
        for segment in done:
            self.segments.remove(segment)
            self._sizes -= segment.size
            self._numbers -= segment.end - segment.first
        return done

    def _enter(self, segment: Segment, first: int, nbytes: int) -> None:
        waiting = sum(stop - start for start, stop in self.settled.missing(first, segment.end))
        segment.waiting += waiting
        self.points += waiting
        self._sizes += nbytes
        self._numbers += segment.end - first

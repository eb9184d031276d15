"""The stages of the durable queue: what is recent, what was read back, what is out, what is stored.

Takes lines, and what the disk has stored or given back; gives batches, and how full the queue is.
Never does I/O, and leaves locking to its owner.

A group has a `number` once a commit has begun to store it; it is stored when the ledger reaches
beyond that number, and held, that is only in memory, until then.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import merge
from pathlib import Path
from typing import Final

from recorder.spool.groups import Group, size_of, take_lines
from recorder.spool.ledger import Ledger, Segment
from recorder.spool.queue import Batch, Depth, Gap
from recorder.spool.ranges import Ranges
from recorder.spool.records import Record

_MOST_GAPS: Final = 100
_ONE_GAP_SECONDS: Final = 60.0
# Before this time (2020) a clock was never set, and tells no age.
_CLOCK_SET: Final = 1_577_836_800.0


class Stages:
    """Where each line is between `append` and its end.

    Args:
        max_held_bytes: what may be only in memory; beyond it the oldest groups that wait go, counted.
        clock: gives monotonic seconds.
        wall_clock: gives Unix seconds.
    """

    def __init__(
        self, max_held_bytes: int, clock: Callable[[], float], wall_clock: Callable[[], float]
    ) -> None:
        self._max_held_bytes = max_held_bytes
        self._clock = clock
        self._wall_clock = wall_clock
        self._recent: deque[Group] = deque()
        self._backlog: deque[Group] = deque()
        self._out: dict[int, list[Group]] = {}
        # When the oldest line of each batch was appended: `depth` is asked for too often to look.
        self._out_since: dict[int, float] = {}
        self._appended = self._taken = 0
        self._held_points = self._held_bytes = 0
        self._dropped = self._rejected = self._damaged = 0
        self._gaps: deque[Gap] = deque(maxlen=_MOST_GAPS)
        self.ledger = Ledger()

    @property
    def half_full(self) -> bool:
        """Whether half of what may be only in memory is there."""
        return self._held_bytes > self._max_held_bytes // 2

    @property
    def oldest_held_at(self) -> float | None:
        """Give when the oldest line that is only in memory was appended, in monotonic seconds."""
        return min((group.appended_at for group in self._held()), default=None)

    @property
    def backlog_points(self) -> int:
        """Give how many lines were read back and wait."""
        return sum(len(group.lines) for group in self._backlog)

    def append(self, lines: Sequence[bytes]) -> None:
        """Add a group; the oldest groups in memory make room."""
        self._recent.append(Group(self._appended, self._clock(), list(lines)))
        self._appended += len(lines)
        self._hold(lines)
        while self._held_bytes > self._max_held_bytes and self._recent:
            oldest = self._recent.popleft()
            self._settle(oldest)
            self._dropped += len(oldest.lines)
            self._note(oldest.appended_at, oldest.appended_at, len(oldest.lines), "memory was full")

    def take(self, max_points: int, max_bytes: int) -> Batch | None:
        """Give recent lines, half of a batch at most where there is a backlog, then the backlog's."""
        if self._backlog:
            groups = take_lines(self._recent, max_points // 2, max_bytes // 2, at_least_one=False)
        else:
            groups = []
        for waiting in (self._backlog, self._recent):
            points = max_points - sum(len(group.lines) for group in groups)
            nbytes = max_bytes - sum(size_of(group.lines) for group in groups)
            groups += take_lines(waiting, points, nbytes, at_least_one=not groups)
        if not groups:
            return None
        self._taken += 1
        self._out[self._taken] = groups
        self._out_since[self._taken] = min(group.appended_at for group in groups)
        lines = tuple(line for group in groups for line in group.lines)
        return Batch(self._taken, lines, size_of(lines))

    def finish(self, batch: Batch, reasons: Mapping[int, str]) -> None:
        """Forget a batch of which these lines were refused; raises `KeyError` where it is not out."""
        for group in self._out.pop(batch.sequence):
            self._settle(group)
        del self._out_since[batch.sequence]
        self._rejected += len(reasons)

    def keep(self, batch: Batch) -> None:
        """Put a batch back to where it was; raises `KeyError` where it is not out."""
        groups = self._out.pop(batch.sequence)
        del self._out_since[batch.sequence]
        stored = [*self._backlog, *(group for group in groups if self._is_stored(group))]
        held = sorted((group for group in groups if not self._is_stored(group)), key=_position)
        self._backlog = deque(sorted(stored, key=lambda group: group.number or 0))
        self._recent = deque(merge(held, self._recent, key=_position))

    def depth(self) -> Depth:
        """Tell how full the queue is, memory and disk together."""
        oldest = [*self._out_since.values()]
        oldest += [waiting[0].appended_at for waiting in (self._recent, self._backlog) if waiting]
        unread = self.ledger.unread()
        if unread is not None:
            oldest.append(unread.created_at)
        return Depth(
            points=self._held_points + self.ledger.points,
            nbytes=self._held_bytes + self.ledger.nbytes,
            oldest_age_seconds=self._clock() - min(oldest) if oldest else 0.0,
            dropped=self._dropped,
            rejected=self._rejected,
            damaged=self._damaged,
            gaps=tuple(self._gaps),
        )

    def begin_store(self) -> list[tuple[float, Sequence[bytes]]]:
        """Number what is only in memory, from the ledger's `stored_to` on; gives times and lines."""
        number = self.ledger.stored_to
        groups = sorted(self._held(), key=_position)
        for group in groups:
            group.number = number
            number += len(group.lines)
        return [(group.appended_at, tuple(group.lines)) for group in groups]

    def undo_store(self) -> None:
        """Take the numbers back: nothing was stored."""
        self.ledger.settled.cut(self.ledger.stored_to)
        for group in self._held():
            group.number = None

    def end_store(self, grown: Sequence[tuple[Path, int, int]]) -> None:
        """Enter what was stored, and let go of those lines of it that wait.

        Args:
            grown: for each segment its path, the number behind its last point, and its size.
        """
        stored = [group for group in self._held() if group.number is not None]
        for path, end, size in grown:
            self.ledger.grow(path, end, size, self._clock())
        for group in stored:
            self._release(group.lines)
        self._recent = deque(group for group in self._recent if not self._is_stored(group))

    def evict(self, segment: Segment, reason: str) -> None:
        """Give up a segment: what of it is out in a batch is only in memory from now on."""

        def within(group: Group) -> bool:
            return (
                group.number is not None
                and group.number < segment.end
                and group.number + len(group.lines) > segment.first
            )

        for group in filter(within, self._out_groups()):
            self._settle(group)
            group.number = None
            self._hold(group.lines)
        dropped = 0
        for group in filter(within, self._backlog):
            assert group.number is not None
            dropped += self.ledger.settle(group.number, group.number + len(group.lines))
        self._backlog = deque(group for group in self._backlog if not within(group))
        dropped += self.ledger.settle(segment.first, segment.end)
        self._dropped += dropped
        self._note(segment.created_at, segment.written_at, dropped, reason)

    def take_in(self, segment: Segment, records: Sequence[Record], size: int, end: int) -> int:
        """Put what was read behind the backlog, but what is settled or in memory already.

        Args:
            segment: where it was read.
            records: what was whole in it.
            size: up to which byte it was read.
            end: the number behind the last point that was stored up to there.

        Returns:
            How many points should have been there and were not; they are counted as damaged.
        """
        known = Ranges(self.ledger.settled)
        for group in (*self._out_groups(), *self._backlog):
            if group.number is not None:
                known.add(group.number, group.number + len(group.lines))
        now = self._clock()
        for record in records:
            first, stop = max(record.first, segment.read_number), min(record.end, end)
            for start, behind in known.missing(first, stop):
                lines = list(record.lines[start - record.first : behind - record.first])
                self._backlog.append(Group(start, now - self.age(record.appended_at), lines, start))
            known.add(first, stop)
        lost = self.lose(known.missing(segment.read_number, end), segment.created_at, segment.written_at)
        segment.read_to, segment.read_number = size, end
        return lost

    def lose(self, ranges: Sequence[tuple[int, int]], first_at: float, last_at: float) -> int:
        """Count points that were stored and are not there any more; times in monotonic seconds."""
        lost = sum(end - first for first, end in ranges)
        for first, end in ranges:
            self.ledger.settle(first, end)
        self._damaged += lost
        self._note(first_at, last_at, lost, "the disk lost them")
        return lost

    def age(self, wall: float) -> float:
        """Give the seconds since a Unix time; 0 where one of both clocks cannot be right."""
        return max(0.0, self._wall_clock() - wall) if wall > _CLOCK_SET else 0.0

    def wall(self, at: float) -> float:
        """Give a monotonic time in Unix seconds."""
        return self._wall_clock() - (self._clock() - at)

    def _out_groups(self) -> Iterator[Group]:
        return (group for groups in self._out.values() for group in groups)

    def _held(self) -> list[Group]:
        """Give the groups that are only in memory."""
        return [*(group for group in self._out_groups() if not self._is_stored(group)), *self._recent]

    def _is_stored(self, group: Group) -> bool:
        return group.number is not None and group.number < self.ledger.stored_to

    def _settle(self, group: Group) -> None:
        if not self._is_stored(group):
            self._release(group.lines)
        if group.number is not None:
            self.ledger.settle(group.number, group.number + len(group.lines))

    def _hold(self, lines: Sequence[bytes]) -> None:
        self._held_points += len(lines)
        self._held_bytes += size_of(lines)

    def _release(self, lines: Sequence[bytes]) -> None:
        self._held_points -= len(lines)
        self._held_bytes -= size_of(lines)

    def _note(self, first_at: float, last_at: float, points: int, reason: str) -> None:
        """Record a gap, as one with the gap before where it goes on."""
        if not points:
            return
        gap = Gap(self.wall(first_at), self.wall(last_at), points, reason)
        before = self._gaps[-1] if self._gaps else None
        if before and before.reason == reason and gap.first_at <= before.last_at + _ONE_GAP_SECONDS:
            self._gaps.pop()
            last = max(before.last_at, gap.last_at)
            gap = Gap(before.first_at, last, before.points + points, reason)
        self._gaps.append(gap)


def _position(group: Group) -> int:
    return group.position

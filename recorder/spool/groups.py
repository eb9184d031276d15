"""Groups of lines on their way through a queue.

Takes groups that wait in order, gives the next lines of them within limits. Never does I/O.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Group:
    """Lines appended together, or a piece of them.

    `position` orders groups and is that of the first line; `number` is the first line's place on the
    disk, None while it has none. `appended_at` is in monotonic seconds.
    """

    position: int
    appended_at: float
    lines: list[bytes]
    number: int | None = None

    def split(self, count: int) -> "Group":
        """Cut off the first `count` lines, and give them as a group of their own."""
        head = Group(self.position, self.appended_at, self.lines[:count], self.number)
        del self.lines[:count]
        self.position += count
        if self.number is not None:
            self.number += count
        return head


def take_lines(waiting: deque[Group], max_points: int, max_bytes: int, *, at_least_one: bool) -> list[Group]:
    """Take the longest run of the first lines within both limits; the rest stays in `waiting`.

    Args:
        waiting: groups in order; what is taken is gone from it.
        max_points: how many lines at most.
        max_bytes: how many bytes at most, with a newline each.
        at_least_one: take the first line even where it is beyond the limits.
    """
    taken: list[Group] = []
    while waiting:
        group = waiting[0]
        count = 0
        for line in group.lines:
            fits = max_points >= 1 and len(line) + 1 <= max_bytes
            if not fits and not at_least_one:
                break
            at_least_one = False
            max_points -= 1
            max_bytes -= len(line) + 1
            count += 1
        if count < len(group.lines):
            if count:
                taken.append(group.split(count))
            break
        taken.append(waiting.popleft())
    return taken


def size_of(lines: Sequence[bytes]) -> int:
    """Give the bytes of lines with a newline each."""
    return sum(map(len, lines)) + len(lines)

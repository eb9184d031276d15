"""A set of whole numbers as ranges.

Takes half-open ranges, gives what is missing between two numbers. Never does I/O.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """Numbers as disjoint half-open ranges in order; ranges that touch are one."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._ends: list[int] = []
        for first, end in ranges:
            self.add(first, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._ends, strict=True)

    def add(self, first: int, end: int) -> None:
        """Add the numbers from `first` up to, not including, `end`."""
        if first >= end:
            return
        low = bisect_left(self._ends, first)
        high = bisect_right(self._firsts, end)
        if low < high:
            first = min(first, self._firsts[low])
            end = max(end, self._ends[high - 1])
        self._firsts[low:high] = [first]
        self._ends[low:high] = [end]

    def cut(self, end: int) -> None:
        """Remove every number from `end` on."""
        keep = bisect_left(self._firsts, end)
        del self._firsts[keep:], self._ends[keep:]
        if keep:
            self._ends[-1] = min(self._ends[-1], end)

    def missing(self, first: int, end: int) -> list[tuple[int, int]]:
        """Give the ranges from `first` up to `end` that are not in the set."""
        found = []
        index = bisect_right(self._ends, first)
        while first < end:
            start = self._firsts[index] if index < len(self._firsts) else end
            if first < start:
                found.append((first, min(start, end)))
            if index == len(self._firsts):
                break
            first = self._ends[index]
            index += 1
        return found

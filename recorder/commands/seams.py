"""Captures decoded side by side, and merged: large ones in parts, and all in the order of their times.

Takes captures and the processes that decode, returns the points of devices as if all captures were one,
decoded from its beginning to its end. Never reads text itself but to learn when it begins and whether it may
be cut.

A part that begins within a capture is decoded on a guess: from where the pipeline stood behind the latest
part that is done, and over some text before the part, which brings it up to date. Its points are taken
only if the pipeline then stood exactly where it stood behind the part before; else the part is decoded
again, from there.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heappop, heappush
from math import inf
from pathlib import Path
from typing import Final

from recorder.commands.decoding import Decoded, Footing, Part, Piece
from recorder.pipeline import PipelineState
from recorder.points.point import Point
from recorder.sources.replay import UNREADABLE, begin_of, begins_with_stamps, is_compressed

Decode = Callable[[Part, Footing], AsyncIterator[Piece | Decoded]]

# A part is half an hour of a home, its points are 2 MB, and a thirtieth of it is decoded twice.
PART_BYTES: Final = 8 << 20
WARM_UP_BYTES: Final = 1 << 18
# The decoder withholds responses for some cycles of a bus at most.
_LONGEST_WITHHELD_NS: Final = 60 * 10**9


def cut(file: Path, begin: datetime | None, part_bytes: int = PART_BYTES) -> list[Part]:
    """Give the parts of a capture: one, where it is small, compressed, no file, or without stamps.

    Args:
        file: the capture.
        begin: when it begins, for text without stamps.
        part_bytes: how much text a part holds; the last one holds up to twice as much.
    """
    try:
        if is_compressed(file) or not file.is_file() or not begins_with_stamps(file):
            return [Part(file, begin)]
    except UNREADABLE:
        # Whoever decodes it tells why.
        return [Part(file, begin)]
    edges = range(0, max(1, file.stat().st_size - part_bytes + 1), part_bytes)
    ends = [*edges[1:], None]
    return [Part(file, begin, start, end) for start, end in zip(edges, ends, strict=True)]


class Captures:
    """Captures of one site, decoded side by side.

    Of a capture in parts as many are decoded ahead as `ahead` says, and kept in memory; one that is a single
    part is decoded no further than it is taken. A capture is opened once the others have come to its
    beginning.

    `counts` is what pipelines counted in all that was returned. `repeated` counts the parts that were decoded
    twice.

    Args:
        captures: the parts of each, in their order, as `cut` gives them.
        decode: decodes a part, as `Decoders.decode` does.
        ahead: parts that are decoded before they are wanted.
        warm_up_bytes: how much text before a part brings a guess up to date.
    """

    def __init__(
        self,
        captures: Sequence[Sequence[Part]],
        decode: Decode,
        ahead: int = 1,
        warm_up_bytes: int = WARM_UP_BYTES,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.repeated = 0
        self._captures = captures
        self._decode = decode
        self._ahead = ahead
        self._warm_up_bytes = warm_up_bytes

    async def points(self) -> AsyncIterator[tuple[Path, Piece]]:
        """Return the points of all captures in the order of their times, in pieces, each with its capture.

        Points without a time keep their place behind the one before them.

        Raises:
            DecodingError: a file could not be decoded to its end.
        """
        begins = [(begin_of(parts[0].file, parts[0].begin), parts) for parts in self._captures]
        waiting = deque(sorted(begins, key=lambda one: one[0]))
        open_readers: list[_Reader] = []
        try:
            while waiting or open_readers:
                earliest = min((reader.head_ns for reader in open_readers), default=inf)
                if waiting and waiting[0][0] <= earliest:
                    _, parts = waiting.popleft()
                    reader = _Reader(parts[0].file, self._pieces(parts))
                    if await reader.advance():
                        open_readers.append(reader)
                    yield reader.file, Piece([], reader.text_bytes())
                    continue
                reader = min(open_readers, key=lambda one: one.head_ns)
                others = (one.head_ns for one in open_readers if one is not reader)
                until = min((*others, waiting[0][0] if waiting else inf), default=inf)
                yield reader.file, Piece(reader.take(until), reader.text_bytes())
                if not await reader.advance():
                    open_readers.remove(reader)
                    yield reader.file, Piece([], reader.text_bytes())
        finally:
            for reader in open_readers:
                await reader.close()

    async def _pieces(self, parts: Sequence[Part]) -> AsyncIterator[Piece]:
        """Return the pieces of a capture in their order."""
        if len(parts) == 1:
            async for message in self._decode(parts[0], Footing()):
                if isinstance(message, Decoded):
                    self.counts.update(message.counts)
                else:
                    yield message
            return
        tasks: deque[asyncio.Task[list[Piece]]] = deque()
        places = deque(_places(parts))
        try:
            while places or tasks:
                while places and len(tasks) <= self._ahead:
                    tasks.append(asyncio.create_task(self._joined(places.popleft())))
                for piece in await tasks.popleft():
                    yield piece
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _joined(self, place: "_Place") -> list[Piece]:
        """Decode a part of a capture, so that it continues the part before."""
        state = None
        if place.before is not None:
            if not place.before.behind.done():
                guess = Footing(place.before.known(), min(self._warm_up_bytes, place.part.start))
                pieces, decoded = await self._decoded(place.part, guess)
                if decoded.before == await place.before.behind:
                    return self._done(place, pieces, decoded)
                self.repeated += 1
            state = await place.before.behind
        return self._done(place, *await self._decoded(place.part, Footing(state)))

    async def _decoded(self, part: Part, footing: Footing) -> tuple[list[Piece], Decoded]:
        messages = [message async for message in self._decode(part, footing)]
        (decoded,) = (message for message in messages if isinstance(message, Decoded))
        return [message for message in messages if isinstance(message, Piece)], decoded

    def _done(self, place: "_Place", pieces: list[Piece], decoded: Decoded) -> list[Piece]:
        self.counts.update(decoded.counts)
        place.before = None
        place.behind.set_result(decoded.behind)
        return pieces


class InOrder:
    """Puts points in the order of their times: those that a decoder withheld come behind later ones."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, Point]] = []
        self._taken = 0
        self._latest_ns = 0

    def take(self, points: Sequence[Point]) -> list[Point]:
        """Take points with a time, and return those that none may come before any more."""
        for point in points:
            assert point.time_ns is not None
            heappush(self._waiting, (point.time_ns, self._taken, point))
            self._taken += 1
            self._latest_ns = max(self._latest_ns, point.time_ns)
        return self._until(self._latest_ns - _LONGEST_WITHHELD_NS)

    def rest(self) -> list[Point]:
        """Return the points that still wait."""
        return self._until(self._latest_ns)

    def _until(self, time_ns: int) -> list[Point]:
        points = []
        while self._waiting and self._waiting[0][0] <= time_ns:
            points.append(heappop(self._waiting)[2])
        return points


class _Reader:
    """An open capture: the points that it has come to, and the time of the first of them."""

    def __init__(self, file: Path, pieces: AsyncIterator[Piece]) -> None:
        self.file = file
        self.head_ns: float = -inf
        self._pieces = pieces
        self._points: list[Point] = []
        self._at = 0
        self._text_bytes = 0

    async def advance(self) -> bool:
        """Come to the next point; returns False at the end of the capture."""
        while self._at == len(self._points):
            piece = await anext(self._pieces, None)
            if piece is None:
                return False
            self._points, self._at = piece.points, 0
            self._text_bytes += piece.text_bytes
        # A point without a time is as early as what was taken before it.
        self.head_ns = self._points[self._at].time_ns or self.head_ns
        return True

    def take(self, until_ns: float) -> list[Point]:
        """Return the next point, and those behind it in the piece that are not later than a time."""
        points, begin = self._points, self._at
        end = begin + 1
        while end < len(points) and (points[end].time_ns or 0) <= until_ns:
            end += 1
        self._at = end
        return points[begin:end]

    def text_bytes(self) -> int:
        """Return how much text was decoded since the last call."""
        text_bytes, self._text_bytes = self._text_bytes, 0
        return text_bytes

    async def close(self) -> None:
        """End decoding."""
        await self._pieces.aclose()  # type: ignore[attr-defined]


@dataclass(eq=False)
class _Place:
    """A part, what stands before it in its capture, and where the pipeline stands behind it, once known."""

    part: Part
    before: "_Place | None"
    behind: asyncio.Future[PipelineState] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def known(self) -> PipelineState | None:
        """Where the pipeline stands behind the latest part up to this one of which that is known."""
        place: _Place | None = self
        while place is not None and not place.behind.done():
            place = place.before
        return None if place is None else place.behind.result()


def _places(parts: Sequence[Part]) -> list[_Place]:
    places: list[_Place] = []
    for part in parts:
        places.append(_Place(part, places[-1] if places else None))
    return places

"""Large captures cut into parts that are decoded side by side, and joined again.

Takes captures and the processes that decode, gives the pieces of all of them, as if each capture were
decoded from its beginning to its end. Never reads text itself but to learn whether it may be cut.

A part that begins within a capture is decoded on a guess: from where the pipeline stood behind the latest
part that is done, and over some text before the part, which brings it up to date. Its points are taken
only if the pipeline then stood exactly where it stood behind the part before; else the part is decoded
again, from there.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from recorder.commands.decoding import Decoded, Footing, Part, Piece
from recorder.pipeline import PipelineState
from recorder.sources.replay import UNREADABLE, begins_with_stamps, is_compressed

Decode = Callable[[Part, Footing], AsyncIterator[Piece | Decoded]]

# A part is half an hour of a home, its points are 2 MB, and a thirtieth of it is decoded twice.
PART_BYTES: Final = 8 << 20
WARM_UP_BYTES: Final = 1 << 18


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
    """Parts of captures, decoded side by side.

    `counts` is what pipelines counted in all that was given. `repeated` counts the parts that were decoded
    twice.

    Args:
        parts: those of each capture, in their order, as `cut` gives them.
        decode: decodes a part, as `Decoders.decode` does.
        warm_up_bytes: how much text before a part brings a guess up to date.
    """

    def __init__(self, parts: Sequence[Part], decode: Decode, warm_up_bytes: int = WARM_UP_BYTES) -> None:
        self.counts: Counter[str] = Counter()
        self.repeated = 0
        self._decode = decode
        self._warm_up_bytes = warm_up_bytes
        self._places = _places(parts)

    async def pieces(self) -> AsyncIterator[tuple[Path, Piece]]:
        """Give the pieces of the next part, and so on, each with its capture.

        To be run as often side by side as there are processes, in one event loop: each part is given by one.

        Raises:
            DecodingError: a file could not be decoded to its end.
        """
        for place in self._places:
            async for piece in self._joined(place):
                yield place.part.file, piece

    async def _joined(self, place: "_Place") -> AsyncIterator[Piece]:
        part, before = place.part, place.before
        state = None
        if before is not None:
            if not before.behind.done():
                guess = Footing(before.known(), min(self._warm_up_bytes, part.start))
                messages = [message async for message in self._decode(part, guess)]
                (decoded,) = (message for message in messages if isinstance(message, Decoded))
                if decoded.before == await before.behind:
                    for message in messages:
                        if isinstance(message, Piece):
                            yield message
                    self._done(place, decoded)
                    return
                self.repeated += 1
            state = await before.behind
        async for message in self._decode(part, Footing(state)):
            if isinstance(message, Decoded):
                self._done(place, message)
            else:
                yield message

    def _done(self, place: "_Place", decoded: Decoded) -> None:
        self.counts.update(decoded.counts)
        place.before = None
        place.behind.set_result(decoded.behind)


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


def _places(parts: Sequence[Part]) -> Iterator[_Place]:
    before: _Place | None = None
    for part in parts:
        before = _Place(part, before if part.start > 0 else None)
        yield before

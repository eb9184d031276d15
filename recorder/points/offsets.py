"""The offsets of a controller's clock, for text whose time of receipt is not known.

Tells which offset the samples of a device had when they were recorded live, by their stamps, so that a
replay of the same text gives the same times. Does no I/O.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

# A clock that was off is taken to have been off by as much for this long before and after.
_NEAR_NS: Final = 86_400 * 10**9
_ALWAYS_NS: Final = 1 << 63


class Span(NamedTuple):
    """Stamps with one offset, in the order in which they were recorded; all in ns."""

    first_ns: int
    last_ns: int
    offset_ns: int


class Cursor(NamedTuple):
    """Where a device's stamps are: the span, and the stamp before."""

    place: int
    stamped_at_ns: int


class Offsets:
    """Offsets by device.

    Args:
        spans: those of each device. After a clock was set back, spans overlap.
        constant_ns: where it is not None, the offset of all text.
    """

    def __init__(self, spans: Mapping[str, Iterable[Span]], constant_ns: int | None = None) -> None:
        self._spans = {device: tuple(found) for device, found in spans.items()}
        self._constant_ns = constant_ns

    def find(self, device: str, stamped_at_ns: int, cursor: Cursor | None) -> tuple[int, Cursor | None]:
        """Return the offset of a sample, and the cursor for the next one of the device.

        A stamp that two spans hold is of the earlier one, until stamps go back.
        """
        if self._constant_ns is not None:
            return self._constant_ns, None
        spans = self._spans.get(device, ())
        if not spans:
            return 0, None
        if cursor is None:
            place = _place_of(spans, stamped_at_ns, range(len(spans)))
        else:
            place, before_ns = cursor
            is_back = stamped_at_ns < before_ns
            if is_back or not spans[place].first_ns <= stamped_at_ns <= spans[place].last_ns:
                here, later, earlier = (place,), range(place + 1, len(spans)), range(place - 1, -1, -1)
                order = (*later, *here, *earlier) if is_back else (*here, *later, *earlier)
                place = _place_of(spans, stamped_at_ns, order)
        return _offset_of(spans[place], stamped_at_ns), Cursor(place, stamped_at_ns)


def _place_of(spans: tuple[Span, ...], stamped_at_ns: int, places: Iterable[int]) -> int:
    """Return the first place whose span holds a stamp, else the one that is nearest."""
    nearest, least_ns = 0, _ALWAYS_NS
    for place in places:
        away_ns = _away_ns(spans[place], stamped_at_ns)
        if away_ns == 0:
            return place
        if away_ns < least_ns:
            nearest, least_ns = place, away_ns
    return nearest


def _away_ns(span: Span, stamped_at_ns: int) -> int:
    return max(span.first_ns - stamped_at_ns, stamped_at_ns - span.last_ns, 0)


def _offset_of(span: Span, stamped_at_ns: int) -> int:
    return span.offset_ns if _away_ns(span, stamped_at_ns) <= _NEAR_NS else 0

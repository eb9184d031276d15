"""One stream for each device: samples that come over two connections are taken from one of them.

Decides for the streams of one site. The stream that brought a device first owns it; what others bring is
kept back for a moment, and counted as duplicate once the owner has brought it. When the owner's stream
ends, or others are three samples ahead of it, one of them owns the device and gives what it kept back.
Does no I/O, and compares nothing with a clock.

Samples of two streams are the same where their values are, and their times nearly; how far apart their clocks
are is learned where the values change from the same to the same. A stream whose values differ at the same
times is of another device that answers to the same name: it never owns the device while the owner's is open.
"""

from array import array
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from recorder.profiles.model import Profile

_SECOND_NS: Final = 10**9
# An owner is silent when another stream is so many samples ahead of it.
_MOST_AHEAD: Final = 3
_KEPT_BACK: Final = 16
# So many samples that differ at the same time are of another device.
_MOST_DIFFERING: Final = 3
# Samples that are remembered, by their times and what their values hash to: 2 KB a device.
_REMEMBERED: Final = 64
# As long as nothing tells how two streams' times differ, each may be wrong by the tolerance.
_UNALIGNED_NS: Final = 5 * _SECOND_NS
_MOST_APART_NS: Final = 60 * _SECOND_NS
_NOTHING: Final = ()


class Sample(NamedTuple):
    """A scan with its time in Unix ns, None where that is not known, and what was added to its stamp."""

    profile: Profile
    values: dict[str, float]
    time_ns: int | None
    offset_ns: int


@dataclass(eq=False, slots=True)
class Stream:
    """One of the streams; `counts` is where its duplicates are counted."""

    counts: Counter[str]


class _Marked(NamedTuple):
    """A sample, its time, and what its values hash to."""

    time_ns: int
    mark: int
    sample: Sample


@dataclass(slots=True)
class _Other:
    """A stream that does not own the device.

    `shift_ns` is how much later its times are, None while unknown; `hint_ns` is another one, that was seen
    once. `mark` is that of its newest sample, and `differing` counts its samples since it was last seen to
    agree that differ from the owner's.
    """

    shift_ns: int | None = None
    hint_ns: int | None = None
    mark: int | None = None
    differing: int = 0
    kept: deque[_Marked] = field(default_factory=deque)

    def agrees(self, shift_ns: int, half_ns: int) -> bool:
        """Learn that a sample was the same so much later, and return whether that is no chance."""
        if abs(shift_ns - (self.shift_ns or 0)) > half_ns:
            hint_ns, self.hint_ns = self.hint_ns, shift_ns
            if hint_ns is None or abs(shift_ns - hint_ns) > half_ns:
                return False
        self.shift_ns, self.hint_ns, self.differing = shift_ns, None, 0
        return True


class _Device:
    """What was stored of a device: since when without a pause, and the last samples by time and mark."""

    __slots__ = ("begin_ns", "gap_ns", "marks", "newest_ns", "others", "owner", "spacing_ns", "times")

    def __init__(self, owner: Stream, time_ns: int) -> None:
        self.owner: Stream | None = owner
        self.begin_ns = self.newest_ns = time_ns
        self.spacing_ns = _SECOND_NS
        self.times, self.marks = array("q"), array("q")
        self.others: dict[Stream, _Other] = {}
        # The time between the last sample of the owner before and the first one of this owner.
        self.gap_ns = (0, 0)

    def store(self, time_ns: int, mark: int) -> None:
        """Remember a sample that is stored now."""
        spacing_ns = time_ns - self.newest_ns
        if 0 < spacing_ns <= _MOST_APART_NS:
            self.spacing_ns = spacing_ns
        elif spacing_ns:
            self.begin_ns = time_ns
        self.newest_ns = time_ns
        self.times.append(time_ns)
        self.marks.append(mark)
        if len(self.times) >= 2 * _REMEMBERED:
            del self.times[:_REMEMBERED]
            del self.marks[:_REMEMBERED]

    def move(self, by_ns: int) -> None:
        """Let all times be so much later."""
        self.begin_ns += by_ns
        self.newest_ns += by_ns
        self.gap_ns = (self.gap_ns[0] + by_ns, self.gap_ns[1] + by_ns)
        self.times = array("q", [time_ns + by_ns for time_ns in self.times])


class DeviceOwners:
    """Which stream of a site each device's samples are taken from."""

    def __init__(self) -> None:
        self._devices: dict[str, _Device] = {}

    def admit(self, stream: Stream, sample: Sample) -> Sequence[Sample]:
        """Take a sample, and return those that are to be stored now, in the order of their times."""
        profile, values, time_ns, _ = sample
        if time_ns is None:
            return (sample,)
        device = self._devices.get(profile.device)
        if device is None:
            device = self._devices[profile.device] = _Device(stream, time_ns)
        mark = hash(tuple(values.values()))
        if device.owner is not stream:
            one = _Marked(time_ns, mark, sample)
            if device.owner is not None or stream in device.others or _is_known(device, one):
                return self._other(device, stream, one)
            device.owner = stream
        device.store(time_ns, mark)
        for other, known in device.others.items():
            _owner_brought(known, device, other.counts)
        return (sample,)

    def leave(self, stream: Stream) -> Sequence[Sample]:
        """End a stream, and return what others kept back because it owned the device."""
        found: list[Sample] = []
        for device in self._devices.values():
            other = device.others.pop(stream, None)
            if other is not None:
                # The owner may be late with these, or gone without a word: then nobody else has them.
                found += _take_over(device, None, other, stream)
            elif device.owner is stream:
                device.owner = None
                heir = max(
                    device.others, key=lambda one: len(_ahead(device, device.others[one])), default=None
                )
                if heir is not None and _ahead(device, device.others[heir]):
                    found += _take_over(device, heir, device.others.pop(heir), heir)
        return found

    def clock_was_set(self, by_ns: int) -> None:
        """Learn that the clock that times are by was set forward by so many ns."""
        for device in self._devices.values():
            device.move(by_ns)
            for other in device.others.values():
                other.kept = deque(_moved(one, by_ns) for one in other.kept)

    def _other(self, device: _Device, stream: Stream, one: _Marked) -> Sequence[Sample]:
        """Take a sample of a stream that does not own the device."""
        other = device.others.setdefault(stream, _Other())
        half_ns, at_ns = device.spacing_ns // 2, one.time_ns - (other.shift_ns or 0)
        before, other.mark = other.mark, one.mark
        same = _same((device.times, device.marks), at_ns, one.mark, before, half_ns)
        if same is None and any(abs(time_ns - at_ns) < half_ns for time_ns in device.times):
            other.differing += 1
        if same is not None and other.agrees(one.time_ns - device.times[same], half_ns):
            stream.counts["duplicate_samples"] += 1 + len(other.kept)
            other.kept.clear()
            return _NOTHING
        begin_ns, end_ns = device.gap_ns
        if begin_ns + half_ns < at_ns < end_ns - half_ns:
            # What the owner before brings late, and nobody else has brought.
            device.gap_ns = (at_ns, end_ns)
            return (one.sample,)
        other.kept.append(one)
        if len(other.kept) > _KEPT_BACK:
            other.kept.popleft()
            stream.counts["duplicate_samples"] += 1
        ahead = _ahead(device, other)
        if other.differing >= _MOST_DIFFERING and device.owner is not None:
            return _NOTHING
        is_silent = len(ahead) >= _MOST_AHEAD and (
            other.shift_ns is not None or ahead[-1].time_ns > device.newest_ns + _UNALIGNED_NS
        )
        if is_silent or (ahead and device.owner is None):
            return _take_over(device, stream, device.others.pop(stream), stream)
        return _NOTHING


def _take_over(device: _Device, heir: Stream | None, other: _Other, counted: Stream) -> Sequence[Sample]:
    """Give the device to another stream, and return what that is ahead of the owner."""
    ahead = _ahead(device, other)
    counted.counts["duplicate_samples"] += len(other.kept) - len(ahead)
    if not ahead:
        return _NOTHING
    shift_ns = other.shift_ns or 0
    for known in device.others.values():
        if known.shift_ns is not None:
            known.shift_ns -= shift_ns
    if device.owner is not None:
        device.others[device.owner] = _Other(-shift_ns)
    device.owner = heir
    # From now on by the clock of the stream that has brought them.
    device.move(shift_ns)
    device.gap_ns = (device.newest_ns, ahead[0].time_ns)
    for time_ns, mark, _ in ahead:
        device.store(time_ns, mark)
    return [one.sample for one in ahead]


def _is_known(device: _Device, one: _Marked) -> bool:
    """Return whether a device that nobody owns had this sample, as far as that is remembered."""
    half_ns = device.spacing_ns // 2
    if not device.begin_ns - half_ns <= one.time_ns <= device.newest_ns + half_ns:
        return False
    if one.time_ns < device.times[0] - half_ns:
        return True
    return _same((device.times, device.marks), one.time_ns, one.mark, None, half_ns) is not None


def _owner_brought(other: _Other, device: _Device, counts: Counter[str]) -> None:
    """Forget what another stream kept back up to a sample that the owner has brought now."""
    if not other.kept:
        return
    times, marks = [one.time_ns for one in other.kept], [one.mark for one in other.kept]
    time_ns, mark, half_ns = device.times[-1], device.marks[-1], device.spacing_ns // 2
    before = device.marks[-2] if len(device.marks) > 1 else None
    same = _same((times, marks), time_ns + (other.shift_ns or 0), mark, before, half_ns)
    if same is not None and other.agrees(times[same] - time_ns, half_ns):
        counts["duplicate_samples"] += same + 1
        for _ in range(same + 1):
            other.kept.popleft()


def _same(
    known: tuple[Sequence[int], Sequence[int]], time_ns: int, mark: int, before: int | None, half_ns: int
) -> int | None:
    """Return the place of a sample among known ones, by times and marks, of the same values.

    Its time is nearly the same; or any time within a minute, where it is the only one of these values that
    follows one with the same values as the sample `before` it had, and those differ.
    """
    times, marks = known
    places = [place for place, one in enumerate(marks) if one == mark]
    if not places:
        return None
    nearest = min(places, key=lambda place: abs(times[place] - time_ns))
    if abs(times[nearest] - time_ns) <= half_ns:
        return nearest
    if before is None or before == mark:
        return None
    changes = [place for place in places if place and marks[place - 1] == before]
    is_near = len(changes) == 1 and abs(times[changes[0]] - time_ns) <= _MOST_APART_NS
    return changes[0] if is_near else None


def _ahead(device: _Device, other: _Other) -> list[_Marked]:
    """Return what a stream kept back that is newer than what was stored."""
    after_ns = device.newest_ns + (other.shift_ns or 0) + device.spacing_ns // 2
    return [one for one in other.kept if one.time_ns > after_ns]


def _moved(one: _Marked, by_ns: int) -> _Marked:
    time_ns, mark, sample = one
    moved = sample._replace(time_ns=time_ns + by_ns, offset_ns=sample.offset_ns + by_ns)
    return _Marked(time_ns + by_ns, mark, moved)

"""One stream for each device: samples that come over two connections are taken from one of them.

Decides for the streams of one site. The stream that brought a device first owns it; what others bring is
kept back for a moment, and counted as duplicate once the owner has brought it. When the owner's stream
ends, or others are three samples ahead of it, one of them owns the device and gives what it kept back.
Does no I/O, and compares nothing with a clock.

Samples of two streams are the same where their values are; how far apart their times then are tells which
are the same where values repeat.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from recorder.profiles.model import Profile

_SECOND_NS: Final = 10**9
# An owner is silent when another stream is so many samples ahead of it.
_MOST_AHEAD: Final = 3
_KEPT_BACK: Final = 16
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


@dataclass(slots=True)
class _Other:
    """A stream that does not own the device: how much later its times are, None while unknown."""

    shift_ns: int | None = None
    kept: deque[tuple[int, Sample]] = field(default_factory=deque)


@dataclass(slots=True)
class _Device:
    owner: Stream | None
    newest: tuple[int, Sample]
    spacing_ns: int = _SECOND_NS
    # Both only while several streams bring the device.
    others: dict[Stream, _Other] = field(default_factory=dict)
    recent: list[tuple[int, Sample]] = field(default_factory=list)
    # The time between the last sample of the owner before and the first one of this owner.
    gap_ns: tuple[int, int] = (0, 0)


class DeviceOwners:
    """Which stream of a site each device's samples are taken from."""

    def __init__(self) -> None:
        self._devices: dict[str, _Device] = {}

    def admit(self, stream: Stream, sample: Sample) -> Sequence[Sample]:
        """Take a sample, and return those that are to be stored now, in the order of their times."""
        time_ns = sample.time_ns
        if time_ns is None:
            return (sample,)
        name = sample.profile.device
        device = self._devices.get(name)
        if device is None:
            self._devices[name] = _Device(stream, (time_ns, sample))
            return (sample,)
        if device.owner is stream:
            spacing_ns = time_ns - device.newest[0]
            if spacing_ns > 0:
                device.spacing_ns = spacing_ns
            device.newest = (time_ns, sample)
            if device.others:
                device.recent = [*device.recent[1 - _KEPT_BACK :], device.newest]
                for other, known in device.others.items():
                    _owner_brought(known, time_ns, sample, device.spacing_ns // 2, other.counts)
            return (sample,)
        if device.owner is None and stream not in device.others:
            device.owner, device.newest = stream, (time_ns, sample)
            return (sample,)
        return self._other(device, stream, time_ns, sample)

    def leave(self, stream: Stream) -> Sequence[Sample]:
        """End a stream, and return what others kept back because it owned the device."""
        found: list[Sample] = []
        for device in self._devices.values():
            other = device.others.pop(stream, None)
            if other is not None:
                # The owner may be late with these, or gone without a word: then nobody else has them.
                found += self._take_over(device, None, other, stream)
            elif device.owner is stream:
                device.owner = None
                if device.others:
                    heir = max(device.others, key=lambda one: len(_ahead(device, device.others[one])))
                    if _ahead(device, device.others[heir]):
                        found += self._take_over(device, heir, device.others.pop(heir), heir)
            if not device.others:
                device.recent.clear()
        return found

    def clock_was_set(self, by_ns: int) -> None:
        """Learn that the clock that times are by was set forward by so many ns."""
        for device in self._devices.values():
            device.newest = _moved(device.newest, by_ns)
            device.gap_ns = (device.gap_ns[0] + by_ns, device.gap_ns[1] + by_ns)
            device.recent = [_moved(one, by_ns) for one in device.recent]
            for other in device.others.values():
                other.kept = deque(_moved(one, by_ns) for one in other.kept)

    def _other(self, device: _Device, stream: Stream, time_ns: int, sample: Sample) -> Sequence[Sample]:
        """Take a sample of a stream that does not own the device."""
        other = device.others.get(stream)
        if other is None:
            other = device.others[stream] = _Other()
            if not device.recent:
                device.recent.append(device.newest)
        same = _same(device.recent, time_ns - (other.shift_ns or 0), sample, device.spacing_ns // 2)
        if same is not None:
            other.shift_ns = time_ns - device.recent[same][0]
            stream.counts["duplicate_samples"] += 1 + len(other.kept)
            other.kept.clear()
            return _NOTHING
        begin_ns, end_ns = device.gap_ns
        at_ns, half_ns = time_ns - (other.shift_ns or 0), device.spacing_ns // 2
        if begin_ns + half_ns < at_ns < end_ns - half_ns:
            # What the owner before brings late, and nobody else has brought.
            device.gap_ns = (at_ns, end_ns)
            return (sample,)
        other.kept.append((time_ns, sample))
        if len(other.kept) > _KEPT_BACK:
            other.kept.popleft()
            stream.counts["duplicate_samples"] += 1
        ahead = _ahead(device, other)
        is_silent = len(ahead) >= _MOST_AHEAD and (
            other.shift_ns is not None or ahead[-1][0] > device.newest[0] + _UNALIGNED_NS
        )
        if is_silent or (ahead and device.owner is None):
            return self._take_over(device, stream, device.others.pop(stream), stream)
        return _NOTHING

    def _take_over(
        self, device: _Device, heir: Stream | None, other: _Other, counted: Stream
    ) -> Sequence[Sample]:
        """Give the device to another stream, and return what that is ahead of the owner."""
        ahead = _ahead(device, other)
        counted.counts["duplicate_samples"] += len(other.kept) - len(ahead)
        if heir is None and not ahead:
            return _NOTHING
        shift_ns = other.shift_ns or 0
        for known in device.others.values():
            if known.shift_ns is not None:
                known.shift_ns -= shift_ns
        if device.owner is not None:
            device.others[device.owner] = _Other(-shift_ns)
        # By the clock of the stream that has brought them.
        recent = [(time_ns + shift_ns, sample) for time_ns, sample in device.recent]
        device.recent = [*recent, *ahead][-_KEPT_BACK:]
        device.owner = heir
        if ahead:
            device.gap_ns = (device.newest[0] + shift_ns, ahead[0][0])
            device.newest = ahead[-1]
        if not device.others:
            device.recent.clear()
        return [sample for _, sample in ahead]


def _owner_brought(other: _Other, time_ns: int, sample: Sample, half_ns: int, counts: Counter[str]) -> None:
    """Forget what another stream kept back up to a sample that the owner has brought now."""
    same = _same(other.kept, time_ns + (other.shift_ns or 0), sample, half_ns)
    if same is not None:
        other.shift_ns = other.kept[same][0] - time_ns
        counts["duplicate_samples"] += same + 1
        for _ in range(same + 1):
            other.kept.popleft()


def _same(known: Sequence[tuple[int, Sample]], time_ns: int, sample: Sample, half_ns: int) -> int | None:
    """Return the place of a sample among known ones, by values, and by time where values repeat."""
    places = [place for place, (_, one) in enumerate(known) if one.values == sample.values]
    if not places:
        return None
    nearest = min(places, key=lambda place: abs(known[place][0] - time_ns))
    apart_ns = abs(known[nearest][0] - time_ns)
    if apart_ns <= half_ns:
        return nearest
    is_only_one = len(places) == 1 and len(known) > 1
    return nearest if is_only_one and apart_ns <= _MOST_APART_NS else None


def _ahead(device: _Device, other: _Other) -> list[tuple[int, Sample]]:
    """Return what a stream kept back that is newer than what was stored."""
    after_ns = device.newest[0] + (other.shift_ns or 0) + device.spacing_ns // 2
    return [one for one in other.kept if one[0] > after_ns]


def _moved(one: tuple[int, Sample], by_ns: int) -> tuple[int, Sample]:
    time_ns, sample = one
    return time_ns + by_ns, sample._replace(time_ns=time_ns + by_ns, offset_ns=sample.offset_ns + by_ns)

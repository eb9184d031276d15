"""Answers to samples: what one scan of a device read, as one point's fields.

Takes the readings of single answers, in the order of the bus; gives whole scans. Never does I/O.
"""

from typing import NamedTuple

from recorder.profiles.model import Profile


class Scan(NamedTuple):
    """The fields of one sample of a device, each read within this scan.

    `captured_at_ns` is when the last byte of its last answer was read: Unix time in ns, or None.
    """

    profile: Profile
    values: dict[str, float]
    captured_at_ns: int | None


class ScanState(NamedTuple):
    """An open scan: what it holds, in the order of the bus, and when its first and last answers were read."""

    values: tuple[tuple[str, float], ...]
    began_at_ns: int | None
    last_at_ns: int | None


class ScanAssembler:
    """Collects the answers of one device on one bus into scans.

    A scan is closed by the register that the profile names, by a register that it already holds or
    that stands in the profile before one that it holds, or when the next answer, or the clock, is
    `scan_timeout_seconds` past its first answer.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._timeout_ns = round(profile.scan_timeout_seconds * 1e9)
        self._place = {field.name: place for place, field in enumerate(profile.fields)}
        self._values: dict[str, float] = {}
        self._began_at_ns: int | None = None
        self._last_at_ns: int | None = None

    @property
    def state(self) -> ScanState:
        """Where the assembler stands: what it will give depends on this and on what comes."""
        return ScanState(tuple(self._values.items()), self._began_at_ns, self._last_at_ns)

    def resume(self, state: ScanState) -> None:
        """Go on from where another assembler of the same profile stood."""
        values, self._began_at_ns, self._last_at_ns = state
        self._values = dict(values)

    def feed(self, values: dict[str, float], captured_at_ns: int | None) -> list[Scan]:
        """Take the readings of one answer, and give the scans that it closes."""
        if self._profile.point_per == "answer":
            return [Scan(self._profile, values, captured_at_ns)] if values else []
        if not values:
            return []
        scans = self.expire(captured_at_ns)
        if self._values and self._place[next(iter(values))] <= self._place[next(reversed(self._values))]:
            scans += self.finish()
        if not self._values:
            self._began_at_ns = captured_at_ns
        self._values.update(values)
        self._last_at_ns = captured_at_ns
        if self._profile.scan_closed_by in values:
            scans += self.finish()
        return scans

    def clock_was_set(self, by_ns: int) -> None:
        """Learn that the clock that times are by was set forward by so many ns."""
        if self._began_at_ns is not None and self._last_at_ns is not None:
            self._began_at_ns += by_ns
            self._last_at_ns += by_ns

    def expire(self, now_ns: int | None) -> list[Scan]:
        """Close the scan that began too long before `now_ns`."""
        if now_ns is None or self._began_at_ns is None or now_ns - self._began_at_ns <= self._timeout_ns:
            return []
        return self.finish()

    def finish(self) -> list[Scan]:
        """Close the open scan, if it holds anything."""
        values, self._values = self._values, {}
        self._began_at_ns = None
        return [Scan(self._profile, values, self._last_at_ns)] if values else []

"""Scans: which answers make one point."""

from recorder.points.scan import ScanAssembler
from recorder.profiles.model import Profile, Register

METER = Profile(
    name="meter",
    measurement="powermeter",
    device="meter",
    unit=1,
    function=3,
    registers=tuple(Register(address, name, "u32") for address, name in enumerate("abc")),
    point_per="scan",
    scan_closed_by="c",
)
SECOND = 10**9


def test_last_register_closes_the_scan() -> None:
    """The point has the time of the last answer."""
    scans = ScanAssembler(METER)
    assert scans.feed({"a": 1.0}, 10) == []
    assert scans.feed({"b": 2.0}, 20) == []
    (scan,) = scans.feed({"c": 3.0}, 30)
    assert (scan.values, scan.captured_at_ns) == ({"a": 1.0, "b": 2.0, "c": 3.0}, 30)


def test_nothing_is_carried_into_the_next_scan() -> None:
    """A field that was not read is absent."""
    scans = ScanAssembler(METER)
    scans.feed({"a": 1.0}, 10)
    scans.feed({"c": 3.0}, 30)
    scans.feed({"b": 5.0}, 40)
    (scan,) = scans.feed({"c": 6.0}, 50)
    assert scan.values == {"b": 5.0, "c": 6.0}


def test_earlier_register_closes_the_scan() -> None:
    """Where a scan's last and the next one's first answer were lost, they do not become one scan."""
    scans = ScanAssembler(METER)
    scans.feed({"b": 1.0}, 10)
    (scan,) = scans.feed({"a": 2.0}, 20)
    assert scan.values == {"b": 1.0}


def test_repeated_register_closes_the_scan() -> None:
    """Where the last answer was lost, the next scan's first answer closes this one."""
    scans = ScanAssembler(METER)
    scans.feed({"a": 1.0}, 10)
    scans.feed({"b": 2.0}, 20)
    (scan,) = scans.feed({"a": 4.0}, 30)
    assert (scan.values, scan.captured_at_ns) == ({"a": 1.0, "b": 2.0}, 20)


def test_scan_is_closed_after_its_timeout() -> None:
    """An answer, or the clock, more than 5 s after the first answer closes the scan."""
    scans = ScanAssembler(METER)
    scans.feed({"a": 1.0}, 0)
    assert scans.expire(5 * SECOND) == []
    (scan,) = scans.feed({"b": 2.0}, 5 * SECOND + 1)
    assert scan.values == {"a": 1.0}
    (scan,) = scans.expire(11 * SECOND)
    assert scan.values == {"b": 2.0}


def test_end_of_the_stream_closes_the_scan() -> None:
    """What was read counts, even where the rest never came."""
    scans = ScanAssembler(METER)
    scans.feed({"a": 1.0}, 10)
    (scan,) = scans.finish()
    assert scan.values == {"a": 1.0}
    assert scans.finish() == []

"""One stream's stages together: a simulated site's text in, the plant's own figures out."""

from collections import Counter
from functools import cache
from hashlib import sha256
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.commands.configuration import load_configuration
from recorder.pipeline import Pipeline
from recorder.points.point import Point
from recorder.points.site import Site
from recorder.profiles.catalogue import Catalogue
from recorder.simulator.faults import parse_faults
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import ExpectedSample, SiteStream
from recorder.strace.runs import Single
from recorder.strace.syscalls import SyscallDecoder

NOON_S = 1_781_780_400  # 2026-06-18 11:00 UTC
CAPTURE = Path("../shared/captures/lg-ess-gen1-both-part1.strace")


@cache
def catalogue() -> Catalogue:
    return Catalogue(load_configuration(None, {}).profiles)


def new_pipeline() -> Pipeline:
    return Pipeline(catalogue(), Site("home", catalogue().profiles))


def decode(text: bytes, cuts: list[int] | None = None) -> tuple[list[Point], Counter[str]]:
    pipeline = new_pipeline()
    edges = [0, *sorted(cuts or []), len(text)]
    points = [point for start, end in pairwise(edges) for point in pipeline.feed(text[start:end], None)]
    return [*points, *pipeline.finish()], +pipeline.counts


@cache
def record(dialect: str, faults: str, seconds: int, seed: int) -> tuple[bytes, tuple[ExpectedSample, ...]]:
    """Give the text of a simulated site and what a receiver must find in it."""
    stream = SiteStream(Plant(seed, NOON_S), DIALECTS[dialect], parse_faults(faults), seed)
    pieces = [next(stream) for _ in range(seconds)]
    text = b"".join(piece.texts[0] for piece in pieces)
    return text, tuple(sample for piece in pieces for sample in piece.truth)


def of_devices(points: list[Point]) -> list[Point]:
    return [point for point in points if point.measurement in {"pcs", "powermeter"}]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_gives_the_plants_figures(dialect: str) -> None:
    """Each sample of the plant is one point with exactly its values, and nothing else is."""
    text, truth = record(dialect, "none", 20, 1)
    points, counts = decode(text)
    for device in ("pcs", "powermeter"):
        found = [point.fields for point in points if point.measurement == device]
        expected = [sample.fields for sample in truth if sample.device == device]
        assert [pytest.approx(fields, rel=1e-15) for fields in found] == expected
    assert counts["frames"] == 20 * 8


@pytest.mark.parametrize("dialect", [name for name, dialect in DIALECTS.items() if dialect.stamp == "ttt"])
def test_points_carry_the_stamp_of_their_last_byte(dialect: str) -> None:
    """A point's time is the stamp of the line that brought the last byte of its answer."""
    text, truth = record(dialect, "none", 20, 1)
    points, _ = decode(text)
    found = {(point.measurement, point.time_ns) for point in of_devices(points)}
    assert found == {(sample.device, sample.at_ns) for sample in truth}


@given(st.lists(st.integers(0, 25_000), max_size=40))
def test_any_split_gives_the_same_points(cuts: list[int]) -> None:
    """However the network cuts the stream, points and counts are the same."""
    text, _ = record("ttt", "all", 10, 7)
    assert decode(text, [min(cut, len(text)) for cut in cuts]) == decode(text)


class LineByLine(SyscallDecoder):
    """The plain decoder in the place of the one that joins reads."""

    def feed_runs(self, chunk: bytes) -> list[Single]:
        return [Single(number, transfer) for number, transfer in enumerate(self.feed(chunk))]


@given(st.data())
def test_joined_reads_give_what_single_ones_give(data: st.DataObject) -> None:
    """Points, times and counts do not depend on joining reads, whatever the text and the clocks."""
    text, _ = record(data.draw(st.sampled_from(["ttt", "capture", "escapes"])), "all", 10, 7)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 300)))
    text = text[:start] + data.draw(st.binary(max_size=9)) + text[end:]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    joined, plain = new_pipeline(), new_pipeline()
    plain._text = LineByLine(plain.counts)  # type: ignore[assignment]
    received_at_ns = data.draw(st.none() | st.integers(NOON_S - 100, NOON_S + 100).map(lambda s: s * 10**9))
    for start, end in pairwise([0, *cuts, len(text)]):
        chunk = text[start:end]
        assert joined.feed(chunk, received_at_ns) == plain.feed(chunk, received_at_ns)
        if received_at_ns is not None:
            received_at_ns += data.draw(st.integers(-3, 70)) * 10**9
            assert joined.expire(received_at_ns) == plain.expire(received_at_ns)
    assert joined.finish() == plain.finish()
    assert +joined.counts == +plain.counts
    assert joined.clock_offset_seconds == plain.clock_offset_seconds


@given(st.data())
def test_paced_text_gives_what_its_lines_give_one_by_one(data: st.DataObject) -> None:
    """Text to which a pace gives times has the points and counts that its lines have, each with its time."""
    dialect = data.draw(st.sampled_from(["capture", "escapes", "ttt"]))
    text, _ = record(dialect, "all", 10, 7)
    at = data.draw(st.integers(0, len(text)))
    text = text[:at] + data.draw(st.binary(max_size=9) | st.just(b"a" * 300)) + text[at:]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    by_line, paced = (
        Pipeline(catalogue(), Site("home", catalogue().profiles), max_line_bytes=size)
        for size in [data.draw(st.sampled_from([65536, 250]))] * 2
    )
    expected = [
        point
        for number, line in enumerate(BytesIO(text))
        for point in by_line.feed(line, NOON_S * 10**9 + number * 14_000_001)
    ]
    found = [
        point
        for start, end in pairwise([0, *cuts, len(text)])
        for point in paced.feed_paced(text[start:end], lambda number: NOON_S * 10**9 + number * 14_000_001)
    ]
    assert found == expected
    assert paced.finish() == by_line.finish()
    assert +paced.counts == +by_line.counts


def test_byte_by_byte_gives_the_same_points() -> None:
    """Even when every byte comes alone."""
    text, _ = record("ttt", "all", 5, 7)
    assert decode(text, list(range(len(text)))) == decode(text)


@pytest.mark.parametrize("seed", range(12))
def test_faults_cost_only_what_they_hit(seed: int) -> None:
    """Under every fault at once, undamaged samples all come out, and no value ever differs."""
    text, truth = record("ttt", "all", 120, seed)
    expected = {(sample.device, sample.at_ns): sample for sample in truth}
    points, counts = decode(text)
    found = {(point.measurement, point.time_ns): point.fields for point in of_devices(points)}
    for key, sample in expected.items():
        if sample.certain:
            assert found.get(key) == pytest.approx(sample.fields, rel=1e-15)
    by_second = {(str(sample.device), sample.at_ns // 10**9): sample.fields for sample in truth}
    for (measurement, time_ns), fields in found.items():
        assert time_ns is not None
        # A scan whose end is missing is joined to what is left of the next ones, for 5 s at most.
        second = time_ns // 10**9
        near = [by_second.get((measurement, second - past), {}) for past in range(6)]
        for name, value in fields.items():
            assert round(value, 9) in {round(true[name], 9) for true in near if name in true}
    assert counts["frames"] > 0


@given(st.lists(st.binary(max_size=500), max_size=20))
def test_arbitrary_bytes_never_raise_and_make_no_point(chunks: list[bytes]) -> None:
    """Whatever is sent to a port, only checked frames become points."""
    pipeline = new_pipeline()
    points = [point for chunk in chunks for point in pipeline.feed(chunk, 0)]
    assert [*points, *pipeline.finish()] == []


@given(st.data())
def test_damaged_text_never_makes_a_wrong_value(data: st.DataObject) -> None:
    """Whatever noise stands in place of a part of the stream, each value that comes out is the plant's.

    A part that is gone without a trace could leave a line that strace might have written: no stream does so.
    """
    text, truth = record("ttt", "none", 4, 3)
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start, min(len(text), start + 500)))
    points, _ = decode(text[:start] + b"\xff" + data.draw(st.binary(max_size=200)) + text[end:])
    values: dict[str, set[float]] = {name: set() for sample in truth for name in sample.fields}
    for sample in truth:
        for name, value in sample.fields.items():
            values[name].add(round(value, 9))
    for point in of_devices(points):
        for name, value in point.fields.items():
            assert round(value, 9) in values[name]


def test_points_received_in_one_chunk_do_not_share_a_time() -> None:
    """Without stamps, samples that arrive together still are points of their own."""
    text, truth = record("capture", "none", 20, 1)
    pipeline = new_pipeline()
    points = pipeline.feed(text, 1_781_780_400_000_000_000)
    times = {(point.measurement, point.time_ns) for point in of_devices(points)}
    assert len(times) == len(truth)


def test_silent_stream_closes_its_scan() -> None:
    """A scan whose last answer never comes is a point once the clock is past its timeout."""
    text, _ = record("ttt", "none", 5, 1)
    pipeline = new_pipeline()
    head = text[: text.rindex(rb"\x5b\x14")]
    pipeline.feed(head, None)
    assert pipeline.expire(NOON_S * 10**9 + 6 * 10**9) == []
    (point,) = pipeline.expire(NOON_S * 10**9 + 60 * 10**9)
    assert set(point.fields) == {"active_import", "active_export", "voltage_l1", "voltage_l2", "voltage_l3"}


def digest(text: bytes) -> str:
    """Tell the devices' points and counts of a text from any others, to the last bit of every value."""
    points, counts = decode(text)
    said = repr([tuple(point) for point in of_devices(points)]) + repr(sorted(counts.items()))
    return sha256(text).hexdigest()[:8] + " " + sha256(said.encode()).hexdigest()[:16]


# The first half is that of the simulator's text.
GOLDEN = {
    "capture": "f0ec0d37 a9d3c0d1795cfa65",
    "ttt": "adef73bd b7a574a8fc6f807e",
    "t": "2f14ff66 a9d3c0d1795cfa65",
    "tt": "f424bb37 a9d3c0d1795cfa65",
    "r": "6f58beb3 a9d3c0d1795cfa65",
    "x": "76cf1aff a9d3c0d1795cfa65",
    "escapes": "aebe7c28 a9d3c0d1795cfa65",
    "paths": "0dd1afbe a9d3c0d1795cfa65",
    "hex-paths": "e4d2795c a9d3c0d1795cfa65",
    "file": "6cb6f8f3 a9d3c0d1795cfa65",
    "modern": "7a41839e ce3451efdc03b95a",
    "durations": "9de54f3b cc874b8d456d37c6",
    "crlf": "0bd44550 a9d3c0d1795cfa65",
    "everything": "22ab29bf 1364a94aa6c94a66",
    "real": "0a5fb7c9 a827bfbc338b0093",
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_points_are_what_they_always_were(dialect: str) -> None:
    """Two minutes of each dialect with every fault give the points and counts that they gave before."""
    assert digest(record(dialect, "all", 120, 3)[0]) == GOLDEN[dialect]


@pytest.mark.skipif(not CAPTURE.exists(), reason="the real capture is not part of the repository")
def test_real_capture_gives_the_points_that_it_always_gave() -> None:
    """So does the minute of a real controller."""
    assert digest(CAPTURE.read_bytes()) == GOLDEN["real"]


@pytest.mark.skipif(not CAPTURE.exists(), reason="the real capture is not part of the repository")
def test_real_capture_gives_its_every_frame_and_none_else() -> None:
    """A minute of a real controller: ten PCS answers, and of the meter each field as often as it was read."""
    points, counts = decode(CAPTURE.read_bytes())
    fields = Counter((point.measurement, name) for point in points for name in point.fields)
    assert sum(point.measurement == "pcs" for point in points) == 10
    assert {name: count for (measurement, name), count in fields.items() if measurement == "powermeter"} == {
        "active_import": 11, "active_export": 11, "voltage_l1": 11, "voltage_l2": 10, "voltage_l3": 10,
        "active_power": 11, "frequency": 11,
    }  # fmt: skip
    assert counts["frames"] == 85


@pytest.mark.skipif(not CAPTURE.exists(), reason="the real capture is not part of the repository")
def test_real_capture_gives_the_values_of_its_bytes() -> None:
    """The first samples of the capture, read by hand from its hexadecimal text."""
    points, _ = decode(CAPTURE.read_bytes())
    meter = next(point for point in points if point.measurement == "powermeter")
    assert meter.fields == {"active_power": 218.75, "frequency": 49.99}
    pcs = next(point for point in points if point.measurement == "pcs").fields
    assert (pcs["active_power"], pcs["pv1_power"], pcs["pv2_power"], pcs["pv_power"]) == (134, 109, 62, 171)
    assert (pcs["battery_voltage"], pcs["battery_soc_raw"], pcs["frequency"]) == (198.9, 20.5, 49.97)


def test_scan_of_late_text_is_not_cut() -> None:
    """A scan under way in text that comes half a minute late is whole: it ages by its arrival."""
    text, truth = record("ttt", "none", 3, 1)
    late_ns = (NOON_S + 34) * 10**9
    pipeline = new_pipeline()
    points = []
    for start in range(0, len(text), 200):
        points += pipeline.feed(text[start : start + 200], late_ns)
        points += pipeline.expire(late_ns + 10**9)
    points += pipeline.finish()
    meter = [point for point in points if point.measurement == "powermeter"]
    assert [point.fields.keys() for point in meter] == [
        sample.fields.keys() for sample in truth if sample.device == "powermeter"
    ]

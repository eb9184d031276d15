"""Captures cut into parts: joined, they give what they give whole."""

import asyncio
import gzip
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import astuple
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recorder.commands.configuration import load_configuration
from recorder.commands.decoding import Decoded, Footing, Part, Piece, decode_part, pipeline_of, site_of
from recorder.commands.seams import Captures, InOrder, cut
from recorder.points.point import Point
from recorder.simulator.faults import parse_faults
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream

NOON_S = 1_781_780_400


@cache
def text(faults: str, seconds: int = 60) -> bytes:
    stream = SiteStream(Plant(1, NOON_S), DIALECTS["ttt"], parse_faults(faults), seed=1)
    return b"".join(second.texts[0] for second in islice(stream, seconds))


class Joined:
    """What captures give, decoded by jobs that take turns at random, in this process."""

    def __init__(self, captures: list[list[Part]], ahead: int, warm_up_bytes: int, seed: int = 0) -> None:
        self._random = Random(seed)
        self._configuration = load_configuration(None, {})
        self.points: list[Point] = []
        self.text_bytes: Counter[Path] = Counter()
        asyncio.run(self._run(Captures(captures, self._decode, ahead, warm_up_bytes)))

    async def _run(self, captures: Captures) -> None:
        async for file, piece in captures.points():
            self.text_bytes[file] += piece.text_bytes
            self.points += piece.points
            await self._turn()
        self.counts = +captures.counts
        self.repeated = captures.repeated

    async def _decode(self, part: Part, footing: Footing) -> AsyncIterator[Piece | Decoded]:
        pipeline = pipeline_of(self._configuration, site_of(self._configuration, "home"), derive=False)
        for message in decode_part(part, footing, pipeline):
            await self._turn()
            yield message

    async def _turn(self) -> None:
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)


def whole(file: Path) -> Joined:
    return Joined([[Part(file)]], 1, 0)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.data())
def test_parts_give_what_the_whole_gives(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever is damaged, wherever it is cut, whoever is first: lines and counts are those of the whole."""
    file = tmp_path / "capture"
    damaged = bytearray(text("all"))
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=5)):
        damaged[at : at + data.draw(st.integers(0, 200))] = data.draw(st.binary(max_size=5))
    file.write_bytes(damaged)
    parts = cut(file, None, data.draw(st.integers(2_000, 60_000)))
    ahead, warm_up_bytes = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 30_000))
    joined = Joined([parts], ahead, warm_up_bytes, data.draw(st.integers(0, 99)))
    expected = whole(file)
    assert joined.points == expected.points
    assert joined.counts == expected.counts
    assert joined.text_bytes[file] == len(damaged)


def test_guess_that_is_wrong_is_decoded_again(tmp_path: Path) -> None:
    """Parts that are guessed without any text before them give the right lines all the same."""
    file = tmp_path / "capture"
    file.write_bytes(text("none"))
    joined = Joined([cut(file, None, 20_000)], 3, 0)
    assert joined.repeated > 0
    assert joined.points == whole(file).points


def test_guess_that_is_right_is_not_decoded_again(tmp_path: Path) -> None:
    """In a capture of a controller that was never restarted, no part is decoded twice."""
    file = tmp_path / "capture"
    file.write_bytes(text("none", 150))
    parts = cut(file, None, 40_000)
    assert len(parts) > 4
    joined = Joined([parts], 3, 100_000)
    # In the first seconds of a capture the bus is not proven yet.
    assert joined.repeated <= 1
    assert joined.points == whole(file).points


def test_guess_knows_a_process_that_ended_long_ago(tmp_path: Path) -> None:
    """What a process left open that is never seen again costs the parts under way, and no more."""
    file = tmp_path / "capture"
    half_a_call = b"[pid 77] 1781780400.100000 read(9,  <unfinished ...>\n"
    file.write_bytes(half_a_call + text("none", 300))
    parts = cut(file, None, 30_000)
    assert len(parts) > 12
    joined = Joined([parts], 2, 60_000)
    assert joined.repeated <= 3
    assert joined.counts["unmatched_halves"] == 1
    assert joined.points == whole(file).points


def test_each_capture_is_a_stream_of_its_own(tmp_path: Path) -> None:
    """The first part of a second capture knows nothing of the first one, though it begins where that ends."""
    files = [tmp_path / "first", tmp_path / "second"]
    lines = text("all").splitlines(keepends=True)
    for file, half in zip(files, (lines[: len(lines) // 2], lines[len(lines) // 2 :]), strict=True):
        file.write_bytes(b"".join(half))
    joined = Joined([cut(file, None, 20_000) for file in reversed(files)], 2, 20_000)
    alone = [whole(file) for file in files]
    assert joined.points == alone[0].points + alone[1].points
    assert joined.counts == alone[0].counts + alone[1].counts
    assert joined.text_bytes.keys() == set(files)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.data())
def test_captures_of_each_device_make_what_one_of_both_makes(tmp_path: Path, data: st.DataObject) -> None:
    """Flows and energies of a PCS's and a meter's capture are those of a capture of both, in any order."""
    seconds = data.draw(st.integers(2, 60))
    lines = text("none", seconds).splitlines(keepends=True)
    processes = sorted({line.split(b"]")[0] for line in lines})
    files = [tmp_path / "both", *(tmp_path / f"one-{number}" for number, _ in enumerate(processes))]
    files[0].write_bytes(b"".join(lines))
    for file, process in zip(files[1:], processes, strict=True):
        file.write_bytes(b"".join(line for line in lines if line.startswith(process)))
    part_bytes = data.draw(st.integers(5_000, 200_000))
    both, *single = ([cut(file, None, part_bytes)] for file in files)
    apart = [parts for (parts,) in data.draw(st.permutations(single))]
    expected, found = (derived(Joined(captures, 1, 20_000).points) for captures in (both, apart))
    assert {point.measurement for point in expected} >= {"pcs", "powermeter", "flow"}
    assert found == expected


def derived(points: list[Point]) -> list[Point]:
    configuration = load_configuration(None, {})
    site, counts = site_of(configuration, "home"), Counter[str]()
    order = InOrder()
    ordered = [*order.take(points), *order.rest()]
    found = [one for point in ordered for one in site.take(dict(point.tags)["device"], point, counts)]
    return [*found, *site.finish()]


def test_parts_cover_a_capture(tmp_path: Path) -> None:
    """Parts lie end to end, from the first byte to the end of the file; none is smaller than asked."""
    file = tmp_path / "capture"
    file.write_bytes(text("none"))
    size = file.stat().st_size
    parts = cut(file, None, 20_000)
    assert (parts[0].start, parts[-1].end) == (0, None)
    assert [part.end for part in parts[:-1]] == [part.start for part in parts[1:]]
    assert all((part.end or size) - part.start >= 20_000 for part in parts)
    assert len(cut(file, None, size // 2 + 1)) == 1


@pytest.mark.parametrize("kind", ["compressed", "without stamps", "a directory"])
def test_what_cannot_be_cut_is_one_part(tmp_path: Path, kind: str) -> None:
    """Text whose parts cannot be found, or whose times need its beginning, is decoded by one process."""
    file = tmp_path / ("capture.gz" if kind == "compressed" else "capture")
    if kind == "compressed":
        file.write_bytes(gzip.compress(text("none")))
    elif kind == "without stamps":
        file.write_bytes(b"".join(line.split(b" ", 1)[1] + b"\n" for line in text("none").splitlines()))
    else:
        file.mkdir()
    (part,) = cut(file, None, 1000)
    assert astuple(part) == (file, None, 0, None)


def test_capture_that_shrinks_meanwhile_gives_what_is_left(tmp_path: Path) -> None:
    """Parts behind the end of a file that has become shorter give nothing, and what is there is whole."""
    file = tmp_path / "capture"
    file.write_bytes(text("none"))
    parts = cut(file, None, 20_000)
    file.write_bytes(text("none")[:50_000])
    joined = Joined([parts], 3, 20_000)
    expected = whole(file)
    assert joined.points == expected.points
    assert joined.counts == expected.counts

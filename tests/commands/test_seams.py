"""Captures cut into parts: joined, they give what they give whole."""

import asyncio
import gzip
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
from recorder.commands.decoding import Decoded, Footing, Part, Piece, decode_part, pipeline_of
from recorder.commands.seams import Captures, cut
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
    """What captures gave, decoded by so many jobs that take turns at random, in this process."""

    def __init__(self, parts: list[Part], jobs: int, warm_up_bytes: int, seed: int = 0) -> None:
        self._random = Random(seed)
        self._configuration = load_configuration(None, {})
        self.lines: list[bytes] = []
        self.pieces: list[Piece] = []
        self.given: list[Path] = []
        asyncio.run(self._run(parts, jobs, warm_up_bytes))

    async def _run(self, parts: list[Part], jobs: int, warm_up_bytes: int) -> None:
        captures = Captures(parts, self._decode, warm_up_bytes)

        async def serve() -> None:
            async for file, piece in captures.pieces():
                self.given.append(file)
                self.pieces.append(piece)
                self.lines += piece.lines
                await self._turn()

        await asyncio.gather(*[serve() for _ in range(jobs)])
        self.counts = +captures.counts
        self.repeated = captures.repeated

    async def _decode(self, part: Part, footing: Footing) -> AsyncIterator[Piece | Decoded]:
        for message in decode_part(part, footing, pipeline_of(self._configuration, "home")):
            await self._turn()
            yield message

    async def _turn(self) -> None:
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)


def whole(file: Path) -> Joined:
    return Joined([Part(file)], 1, 0)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_parts_give_what_the_whole_gives(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever is damaged, wherever it is cut, whoever is first: lines and counts are those of the whole."""
    file = tmp_path / "capture"
    damaged = bytearray(text("all"))
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=5)):
        damaged[at : at + data.draw(st.integers(0, 200))] = data.draw(st.binary(max_size=5))
    file.write_bytes(damaged)
    parts = cut(file, None, data.draw(st.integers(2_000, 60_000)))
    joined = Joined(
        parts, data.draw(st.integers(1, 4)), data.draw(st.integers(0, 30_000)), data.draw(st.integers(0, 99))
    )
    expected = whole(file)
    assert sorted(joined.lines) == sorted(expected.lines)
    assert joined.counts == expected.counts
    assert sum(piece.text_bytes for piece in joined.pieces) == len(damaged)


def test_guess_that_is_wrong_is_decoded_again(tmp_path: Path) -> None:
    """Parts that are guessed without any text before them give the right lines all the same."""
    file = tmp_path / "capture"
    file.write_bytes(text("none"))
    joined = Joined(cut(file, None, 20_000), 3, 0)
    assert joined.repeated > 0
    assert sorted(joined.lines) == sorted(whole(file).lines)


def test_guess_that_is_right_is_not_decoded_again(tmp_path: Path) -> None:
    """In a capture of a controller that was never restarted, no part is decoded twice."""
    file = tmp_path / "capture"
    file.write_bytes(text("none"))
    parts = cut(file, None, 20_000)
    assert len(parts) > 4
    joined = Joined(parts, 3, 30_000)
    assert joined.repeated == 0
    assert sorted(joined.lines) == sorted(whole(file).lines)


def test_guess_knows_a_process_that_ended_long_ago(tmp_path: Path) -> None:
    """What a process left open that is never seen again costs a part or two, and not each one behind it."""
    file = tmp_path / "capture"
    half_a_call = b"[pid 77] 1781780400.100000 read(9,  <unfinished ...>\n"
    file.write_bytes(half_a_call + text("none", 300))
    parts = cut(file, None, 30_000)
    assert len(parts) > 12
    joined = Joined(parts, 2, 30_000)
    assert joined.repeated <= 2
    assert joined.counts["unmatched_halves"] == 1
    assert sorted(joined.lines) == sorted(whole(file).lines)


def test_each_capture_is_a_stream_of_its_own(tmp_path: Path) -> None:
    """The first part of a second capture knows nothing of the first one, though it begins where that ends."""
    files = [tmp_path / "first", tmp_path / "second"]
    lines = text("all").splitlines(keepends=True)
    for file, half in zip(files, (lines[: len(lines) // 2], lines[len(lines) // 2 :]), strict=True):
        file.write_bytes(b"".join(half))
    joined = Joined([part for file in files for part in cut(file, None, 20_000)], 2, 20_000)
    alone = [whole(file) for file in files]
    assert sorted(joined.lines) == sorted(alone[0].lines + alone[1].lines)
    assert joined.counts == alone[0].counts + alone[1].counts
    assert set(joined.given) == set(files)


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
    joined = Joined(parts, 3, 20_000)
    expected = whole(file)
    assert sorted(joined.lines) == sorted(expected.lines)
    assert joined.counts == expected.counts

"""Decode: strace text to points, on one core.

Takes the real capture where it is at hand, and a simulated home's text otherwise; gives MB/s and lines/s of
the pipeline that the service, `replay` and `decode` run. Beside it, in turns on the same text: the seed's two
receivers, by their own way of measuring, and a floor, which is one compiled pattern over the same bytes.
"""

import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from bench.report import CannotRunError, Options, Result, Row, Target
from recorder.commands.configuration import load_configuration
from recorder.pipeline import Pipeline
from recorder.points.site import Site
from recorder.profiles.catalogue import Catalogue
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream

_SHARED: Final = Path(__file__).parents[2] / "shared"
_CAPTURE: Final = _SHARED / "captures/lg-ess-gen1-both-part1.strace"
_BASELINE: Final = _SHARED / "baseline"
# As `decode` reads.
_CHUNK_BYTES: Final = 1 << 16
_START_S: Final = 1_781_780_400
_PCS_REQUEST: Final = rb"\x9c\x72"
_FLOOR: Final = re.compile(rb'(?:\[pid +(\d+)\] )?(read|write)\((\d+), "([^"]*)", \d+\) += (\d+)\n')
_SAID: Final = re.compile(r", ([1-9]\d*) deltas in .*, ([\d.]+) MB/s")
_SEED_TURNS: Final = 5

_MIX = "the mix of both devices"
_PCS = "the PCS alone"
_METER = "the meter alone"
_STAMPED = "the same with stamps, as the controller script sends it"
_ESCAPED = "the same with C escapes"
_GARBAGE = ("random bytes", "lines of another protocol", "reads cut short")


class Turn(NamedTuple):
    """One reading of a text, in MB/s by the time of the processor and by the clock on the wall."""

    processor: float
    wall: float


def run(options: Options) -> Result:
    """Measure every text in turns.

    Raises:
        CannotRunError: a text gave no point, garbage gave one, or a receiver of the seed gave nothing.
    """
    nbytes, turns = (500_000, 3) if options.quick else (4_000_000, 9)
    texts = _texts(nbytes)
    seeds = {_PCS: ("pcs_receiver.py", 5001), _METER: ("powermeter_receiver.py", 5002)}
    catalogue = Catalogue(load_configuration(None, {}).profiles)
    found: dict[str, list[Turn]] = {}
    by_seed: dict[str, list[float]] = {}
    for turn in range(turns):
        options.show(f"turn {turn + 1} of {turns}")
        for name, text in texts.items():
            decoded = _timed(text, partial(_decode, catalogue, name))
            found.setdefault(name, []).append(decoded)
        found.setdefault("floor", []).append(_timed(texts[_MIX], _find))
        for name, (script, port) in seeds.items() if _BASELINE.exists() and turn < _SEED_TURNS else ():
            by_seed.setdefault(name, []).append(_seed(script, port, texts[name][: nbytes // 4]))
    lines_per_mb = texts[_MIX].count(b"\n") / len(texts[_MIX]) * 1e6
    return Result(
        "Decode: strace text to points, one core",
        (
            _row(found, _MIX, "floor", Target(at_least=20)),
            Row("the same, in lines", _processor(found[_MIX]) * lines_per_mb, "lines/s", runs=turns),
            Row("floor: one compiled pattern over the mix", _processor(found["floor"]), "MB/s", runs=turns),
            *_rows_beside_seed(found, by_seed),
            *(_row(found, name, _MIX) for name in (_STAMPED, _ESCAPED)),
            *(_row(found, name, _MIX, Target(ratio_at_least=1 / 3)) for name in _GARBAGE),
        ),
        _notes(texts, found),
    )


def _texts(nbytes: int) -> dict[str, bytes]:
    """Give what is decoded, about `nbytes` of each."""
    capture = _repeatable(_CAPTURE.read_bytes()) if _CAPTURE.exists() else _simulated("capture", 120)
    rng = random.Random(1)
    return {
        name: text * (nbytes // len(text) + 1)
        for name, text in {
            _MIX: capture,
            **_alone(capture),
            _STAMPED: _simulated("ttt", 120),
            _ESCAPED: _simulated("escapes", 120),
            _GARBAGE[0]: rng.randbytes(100_000) + b"\n",
            _GARBAGE[1]: b"GET /setup HTTP/1.1\r\nHost: recorder.example\r\nUser-Agent: scanner/1.0\r\n\r\n"
            * 100,
            _GARBAGE[2]: b'read(4, "\\x01\\x03\\xb8\\x00\\x00\n' * 100,
        }.items()
    }


def _repeatable(capture: bytes) -> bytes:
    """Cut a capture at its first and last request, so that no response is missing where it follows itself."""
    lines = capture.splitlines(keepends=True)
    requests = [number for number, line in enumerate(lines) if b"write(" in line]
    return b"".join(lines[requests[0] : requests[-1]])


def _simulated(dialect: str, seconds: int) -> bytes:
    stream = SiteStream(Plant(5, _START_S), DIALECTS[dialect], seed=5)
    return b"".join(second.texts[0] for second in islice(stream, seconds))


def _alone(capture: bytes) -> dict[str, bytes]:
    """Give each device's lines as strace writes them of a single process: without `[pid N]`."""
    lines: dict[bytes, list[bytes]] = {}
    for process, line in re.findall(rb"\[pid +(\d+)\] ([^\n]*\n)", capture):
        lines.setdefault(process, []).append(line)
    texts = {b"".join(of_one) for of_one in lines.values()}
    pcs = max(texts, key=lambda text: text.count(_PCS_REQUEST))
    return {_PCS: pcs, _METER: max(texts - {pcs}, key=len)}


def _timed(text: bytes, work: Callable[[bytes], None]) -> Turn:
    processor, wall = time.process_time(), time.perf_counter()
    work(text)
    processor, wall = time.process_time() - processor, time.perf_counter() - wall
    return Turn(len(text) / processor / 1e6, len(text) / wall / 1e6)


def _decode(catalogue: Catalogue, name: str, text: bytes) -> None:
    pipeline = Pipeline(catalogue, Site("home", catalogue.profiles))
    points = 0
    for start in range(0, len(text), _CHUNK_BYTES):
        points += len(pipeline.feed(text[start : start + _CHUNK_BYTES], None))
    points += len(pipeline.finish())
    if (points == 0) != (name in _GARBAGE):
        raise CannotRunError(f"{name}: {points} points came out")


def _find(text: bytes) -> None:
    for start in range(0, len(text), _CHUNK_BYTES):
        _FLOOR.findall(text[start : start + _CHUNK_BYTES])


def _seed(script: str, port: int, text: bytes) -> float:
    """Give the MB/s of a receiver of the seed, without its sleep of 20 ms a line, which is no decoding."""
    with tempfile.NamedTemporaryFile(suffix=".strace") as file:
        file.write(text)
        file.flush()
        command = [sys.executable, str(_BASELINE / "drive.py"), str(_BASELINE / script), str(port), file.name]
        done = subprocess.run([*command, "--no-sleep"], capture_output=True, text=True, check=False)
    said = _SAID.search(done.stdout)
    if said is None:
        raise CannotRunError(f"{script} gave nothing: are ports {port} and 55555 free? {done.stderr[-200:]}")
    return float(said[2])


def _row(found: dict[str, list[Turn]], name: str, beside: str, target: Target | None = None) -> Row:
    pairs = zip(found[name], found[beside], strict=True)
    ratio = median(turn.processor / other.processor for turn, other in pairs)
    return Row(name, _processor(found[name]), "MB/s", ratio, beside, target, len(found[name]))


def _rows_beside_seed(found: dict[str, list[Turn]], by_seed: dict[str, list[float]]) -> list[Row]:
    rows = []
    for name, target in ((_PCS, Target(ratio_at_least=15)), (_METER, None)):
        walls = [turn.wall for turn in found[name]]
        if name not in by_seed:
            rows.append(Row(name, median(walls), "MB/s", runs=len(walls)))
            continue
        seed = by_seed[name]
        ratio = median(wall / other for wall, other in zip(walls, seed, strict=False))
        rows.append(Row(name, median(walls), "MB/s", ratio, "the seed's receiver", target, len(seed)))
        rows.append(Row(f"the seed's receiver of {name.split()[1]}", median(seed), "MB/s", runs=len(seed)))
    return rows


def _processor(turns: list[Turn]) -> float:
    return median(turn.processor for turn in turns)


def _notes(texts: dict[str, bytes], found: dict[str, list[Turn]]) -> tuple[str, ...]:
    source = (
        "The mix is the real capture, repeated."
        if _CAPTURE.exists()
        else "The real capture is not here: a simulated home's text, repeated, stands in its place."
    )
    seed = (
        "The seed's receivers read from a socket, byte by byte, and know neither two processes in one stream "
        "nor halves of calls; each gets its own process's lines. The recorder gets the same lines from "
        "memory, and both are timed by the clock on the wall; the other figures are of processor time."
        if _BASELINE.exists()
        else "The seed's receivers are not here: their column is missing."
    )
    wall = median(turn.wall for turn in found[_MIX])
    how = (
        f"{source} {len(texts[_MIX]) / 1e6:.1f} MB of each text in pieces of {_CHUNK_BYTES >> 10} KiB, "
        f"through `Pipeline.feed`, to points. By the clock on the wall the mix takes {wall:.1f} MB/s."
    )
    return how, seed

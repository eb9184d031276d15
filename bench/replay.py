"""`ess-recorder replay` of a large capture, to the last point queryable.

Takes options, gives points a second of the real command as a process, beside raw POST of the same lines.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

from bench.homes import make_seconds
from bench.recording import DATABASE, ROOT, Database, count_by_site, database
from bench.report import CannotRunError, Options, Result, Row, Target
from bench.write import BATCH_POINTS, write_raw
from recorder.commands.configuration import load_configuration
from recorder.pipeline import Pipeline
from recorder.points.line_protocol import to_line
from recorder.points.site import Site
from recorder.profiles.catalogue import Catalogue

_AGO_SECONDS: Final = 5 * 86_400


def run(options: Options) -> Result:
    """Replay a capture, and send the lines that it gives by hand."""
    seconds, runs = (10_000, 1) if options.quick else (70_000, 3)
    with tempfile.TemporaryDirectory(prefix="ess-bench-") as directory, database() as server:
        capture = Path(directory) / "capture.strace"
        options.show("writing the capture")
        begin_s = int(time.time()) - _AGO_SECONDS
        _write_capture(capture, begin_s, seconds)
        files = len(os.sched_getaffinity(0))
        parts = [capture.with_name(f"part-{number}.strace") for number in range(files)]
        for number, part in enumerate(parts):
            _write_capture(part, begin_s + number * seconds // files, seconds // files)
        lines = _lines(capture)
        points = len(lines)
        samples = sum(not line.startswith(b"flow,") for line in lines)
        batches = [b"\n".join(lines[at : at + BATCH_POINTS]) for at in range(0, points, BATCH_POINTS)]
        raw, taken, side_by_side = [], [], []
        for number in range(runs):
            options.show(f"run {number + 1} of {runs}: raw")
            server.query('DROP DATABASE "raw"')
            server.query('CREATE DATABASE "raw"')
            raw.append(points / write_raw(server, batches, "raw"))
            options.show(f"run {number + 1} of {runs}: replay")
            taken.append(_replay(server, [capture], samples))
            options.show(f"run {number + 1} of {runs}: replay of {files} files")
            # A scan that a seam cuts is a sample less, or one more.
            side_by_side.append(_replay(server, parts, samples - files)[0])
        options.show("replay with averages")
        with_averages = _replay(server, [capture], samples, averages=True)[0]
    ceiling = sorted(raw)[runs // 2]
    took, cpu = sorted(taken)[runs // 2]
    rate = points / took
    target = Target(at_least=20_000, ratio_at_least=0.5)
    name = "`ess-recorder replay`, to the last point queryable"
    return Result(
        "Replay of a captured stream",
        (
            Row(name, rate, "points/s", rate / ceiling, "raw POST", target, runs),
            Row("raw POST of the same prepared lines", ceiling, "points/s", runs=runs),
            Row(
                f"the same in {files} files, decoded side by side",
                points / median(side_by_side),
                "points/s",
                points / median(side_by_side) / ceiling,
                "raw POST",
                runs=runs,
            ),
            Row("processor time of the command, all threads", cpu / points * 1e6, "µs/point", runs=runs),
            Row("the same with averages and energies of that time", points / with_averages, "points/s"),
        ),
        (
            (
                f"{points:,} points of {seconds:,} s of one home, text of the controller script "
                f"({capture_mb(seconds):,.0f} MB): a second, with its PCS answer and its scan of the "
                "meter, is some 70 lines. The time is that of the whole command with `--no-backfill`, start "
                "and set-up included; the last row lets it compute the averages too. Continuous queries are "
                "installed in the database of the replay, and find nothing, since the points are days old; "
                "the raw database has none."
            ),
        ),
    )


def capture_mb(seconds: int) -> float:
    """Give about how much text so many seconds of a home are."""
    made = make_seconds(1)
    return sum(sum(map(len, second.pieces)) for second in made) / len(made) * seconds / 1e6


def _write_capture(path: Path, begin_s: int, seconds: int) -> None:
    made = make_seconds(1)
    with path.open("wb") as file:
        for passed in range(seconds):
            file.writelines(made[passed % len(made)].at(begin_s + passed))


def _lines(capture: Path) -> list[bytes]:
    """Give the lines of the capture's points."""
    profiles = load_configuration(None, {}).profiles
    pipeline = Pipeline(Catalogue(profiles), Site("home", profiles))
    lines: list[bytes] = []
    with capture.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            lines += map(to_line, pipeline.feed(chunk, None))
    lines += map(to_line, pipeline.finish())
    return lines


def _replay(
    server: Database, captures: list[Path], samples: int, *, averages: bool = False
) -> tuple[float, float]:
    """Run the command; gives the seconds to the last point queryable, and its processor seconds."""
    server.query(f'DROP DATABASE "{DATABASE}"')
    with tempfile.TemporaryDirectory(prefix="ess-bench-") as data:
        environment = {
            "ESS_INFLUXDB_URL": server.url,
            "ESS_INFLUXDB_DATABASE": DATABASE,
            "ESS_DATA_DIR": data,
        }
        command = [sys.executable, "-m", "recorder", "replay", *map(str, captures)]
        before, began = _children_seconds(), time.perf_counter()
        done = subprocess.run(
            command if averages else [*command, "--no-backfill"],
            cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise CannotRunError(f"ess-recorder replay failed: {done.stderr[-500:]}")
        while sum(sum(count_by_site(server, name).values()) for name in ("pcs", "powermeter")) < samples:
            time.sleep(0.005)
        return time.perf_counter() - began, _children_seconds() - before


def _children_seconds() -> float:
    """Processor seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

"""SQLite or segments: what a day without InfluxDB costs an SD card, and what a fault leaves.

    python bench/queue_formats.py [--minutes 60]

Takes the lines of one simulated home, and stores them at the default commit interval in the segments of
`recorder.spool` and in SQLite (WAL, synchronous FULL, one row a batch, a blob with its CRC). Prints a
Markdown table. Needs root for the device figures and the full disk: an ext4 image on a loop device, and a
tmpfs, both in a mount namespace of its own.
"""

import argparse
import logging
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Protocol

import structlog

from recorder.pipeline import Pipeline
from recorder.points.line_protocol import to_line
from recorder.points.site import Site
from recorder.profiles.catalogue import Catalogue
from recorder.profiles.parse import parse_profile
from recorder.resources import shipped_config_dir
from recorder.simulator.faults import FaultRates
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream
from recorder.spool.durable import DurableQueue, Limits

INTERVAL_SECONDS = 10
DAY_SECONDS = 86_400
FLIPS = 200


class Store(Protocol):
    """A format under test."""

    def add(self, lines: Sequence[bytes]) -> bool:
        """Store lines for certain; False where the disk refuses."""

    def drain(self) -> list[bytes]:
        """Give everything that is left and whole, and delete it."""

    def close(self) -> None:
        """Close all files."""


class Segments:
    """The durable queue, committing when told."""

    def __init__(self, directory: Path) -> None:
        self._queue = DurableQueue(directory / "queue", Limits())
        self._queue.open()

    def add(self, lines: Sequence[bytes]) -> bool:
        """Store lines for certain; False where the disk refuses."""
        self._queue.append(lines)
        return self._queue.commit()

    def drain(self) -> list[bytes]:
        """Give what is left, and delete it."""
        found: list[bytes] = []
        while batch := self._queue.take(5000, 1 << 22):
            found += batch.lines
            self._queue.accept(batch)
        self._queue.commit()
        return found

    def close(self) -> None:
        """Close all files."""
        self._queue.close()


class Sqlite:
    """One row a batch, as careful as SQLite can be."""

    def __init__(self, directory: Path) -> None:
        self._database = sqlite3.connect(directory / "queue.db", isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS batch (id INTEGER PRIMARY KEY, crc INT, lines BLOB)"
        )

    def add(self, lines: Sequence[bytes]) -> bool:
        """Store lines for certain; False where the disk refuses."""
        blob = b"\n".join(lines)
        try:
            self._database.execute("INSERT INTO batch (crc, lines) VALUES (?, ?)", (zlib.crc32(blob), blob))
        except sqlite3.OperationalError:
            return False
        return True

    def drain(self) -> list[bytes]:
        """Give what is left, and delete it."""
        rows = self._database.execute("SELECT crc, lines FROM batch ORDER BY id").fetchall()
        self._database.execute("DELETE FROM batch")
        return [line for crc, blob in rows if zlib.crc32(blob) == crc for line in blob.split(b"\n")]

    def close(self) -> None:
        """Close all files."""
        self._database.close()


FORMATS: dict[str, Callable[[Path], Store]] = {"segments": Segments, "SQLite": Sqlite}


def home(seconds: int) -> Iterator[list[bytes]]:
    """The lines of one home, one commit interval at a time."""
    profiles = [
        parse_profile(path.read_text(), path.name)
        for path in sorted((shipped_config_dir() / "profiles").glob("*.yaml"))
    ]
    start_s = 1_781_780_400
    stream = SiteStream(Plant(5, start_s), DIALECTS["ttt"], FaultRates(), 5)
    pipeline = Pipeline(
        Catalogue(profiles), Site("home", profiles), max_line_bytes=65536, clock_tolerance_seconds=2.0
    )
    lines: list[bytes] = []
    for second, piece in enumerate(islice(stream, seconds), 1):
        lines += map(to_line, pipeline.feed(piece.texts[0], (start_s + second) * 10**9))
        if second % INTERVAL_SECONDS == 0:
            yield lines
            lines = []


def device_counts(device: str) -> tuple[int, int]:
    """Bytes written to a block device, and flushes, since it is there."""
    figures = Path(f"/sys/block/{device}/stat").read_text().split()
    return int(figures[6]) * 512, int(figures[15])


def process_written() -> int:
    """Bytes that this process caused to be written to any disk."""
    text = Path("/proc/self/io").read_text()
    return int(text.split("\nwrite_bytes: ")[1].split()[0])


def writing(name: str, minutes: int, directory: Path) -> dict[str, str]:
    """What an outage of so many minutes writes, as a day of it."""
    image = directory / f"{name}.img"
    subprocess.run(["truncate", "-s", "512M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    mounted = directory / name
    mounted.mkdir()
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    try:
        source = subprocess.run(
            ["findmnt", "-no", "SOURCE", mounted], capture_output=True, text=True, check=True
        )
        device = source.stdout.strip().removeprefix("/dev/")
        batches = list(home(minutes * 60))
        store = FORMATS[name](mounted)
        os.sync()
        nbytes, flushes = device_counts(device)
        by_process, began = process_written(), time.process_time()
        for lines in batches:
            assert store.add(lines)
        seconds = time.process_time() - began
        by_process = process_written() - by_process
        os.sync()
        nbytes, flushes = (
            after - before for after, before in zip(device_counts(device), (nbytes, flushes), strict=True)
        )
        payload = sum(len(line) + 1 for lines in batches for line in lines)
        drained = len(store.drain())
        store.close()
        assert drained == sum(map(len, batches))
        scale = DAY_SECONDS / (minutes * 60)
        mb = scale / 1e6
        return {
            "lines a day, MB": f"{payload * mb:.0f}",
            "written by the process a day, MB": f"{by_process * mb:.0f}",
            "written to the device a day, MB": f"{nbytes * mb:.0f}",
            "flushes of the device a day": f"{flushes * scale:.0f}",
            "processor time a day, s": f"{seconds * scale:.1f}",
        }
    finally:
        subprocess.run(["umount", mounted], check=False)


def full_disk(name: str, directory: Path) -> dict[str, str]:
    """Whether a full disk can be emptied, and written again."""
    mounted = directory / f"{name}-full"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", mounted], check=True)
    try:
        store = FORMATS[name](mounted)
        accepted = 0
        lines = next(home(INTERVAL_SECONDS))
        while accepted < 4000 and store.add(lines):
            accepted += 1
        try:
            left = len(store.drain()) // len(lines)
            goes_on = "yes" if store.add(lines) else "no"
        except sqlite3.OperationalError as error:
            left, goes_on = 0, f"no: {error}"
        return {
            "commits on 4 MB": str(accepted),
            "of these given back on the full disk": str(left),
            "goes on after that": goes_on,
        }
    finally:
        subprocess.run(["umount", "-l", mounted], check=False)


def damage(name: str, directory: Path) -> dict[str, str]:
    """What single flipped bytes do to files of 60 commits that a kill left behind."""
    whole, copy = directory / f"{name}-whole", directory / f"{name}-copy"
    whole.mkdir()
    store = FORMATS[name](whole)
    batches = list(home(60 * INTERVAL_SECONDS))
    for lines in batches:
        store.add(lines)
    expected = {line for lines in batches for line in lines}
    rng = Random(1)
    lost, worst, wrong, unusable = 0, 0, 0, 0
    for _ in range(FLIPS):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        files = [path for path in copy.rglob("*") if path.suffix in {".segment", ".db", ".db-wal"}]
        victim = rng.choices(files, [path.stat().st_size for path in files])[0]
        content = bytearray(victim.read_bytes())
        content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
        victim.write_bytes(content)
        try:
            damaged = FORMATS[name](copy)
            given = damaged.drain()
            damaged.close()
        except sqlite3.Error:
            given, unusable = [], unusable + 1
        missing = len(expected - set(given))
        lost += missing
        worst = max(worst, missing)
        wrong += len(set(given) - expected)
    store.close()
    return {
        f"wrong lines after {FLIPS} single flips": str(wrong),
        "flips that made all unreadable": str(unusable),
        "lines lost a flip, mean (worst) of " + str(len(expected)): f"{lost / FLIPS:.0f} ({worst})",
    }


def main() -> None:
    """Measure both and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=int, default=60, help="length of the outage that is measured")
    minutes = parser.parse_args().minutes
    if not os.environ.get("QUEUE_FORMATS_UNSHARED"):
        os.environ["QUEUE_FORMATS_UNSHARED"] = "1"
        os.execvp("unshare", ["unshare", "-m", sys.executable, *sys.argv])
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as home_directory:
        directory = Path(home_directory)
        columns = {
            name: writing(name, minutes, directory) | full_disk(name, directory) | damage(name, directory)
            for name in FORMATS
        }
    print(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, ", end="")
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}; {minutes} minutes, ext4\n")
    print(f"| one home, a commit each {INTERVAL_SECONDS} s | {' | '.join(columns)} |")
    print(f"| --- |{' --- |' * len(columns)}")
    for row in columns["segments"]:
        print(f"| {row} | {' | '.join(column[row] for column in columns.values())} |")


if __name__ == "__main__":
    main()

"""The real recorder and a real influxd as processes on cores of their own, and what they use.

Takes settings, gives running processes with their processor time, memory and writes, and the points that
arrived. Whoever imports this takes care of nothing: all is gone at the end of the `with` blocks.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bench.report import CannotRunError
from tests.support.influxd import Influxd, QueryError, free_port, wait_until

ROOT: Final = Path(__file__).parents[1]
DATABASE: Final = "ess"
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


@contextmanager
def other_cores() -> Iterator[int]:
    """Keep this process and what it starts off one core, and give the number of that core.

    Raises:
        CannotRunError: there is one core only.
    """
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        raise CannotRunError("it needs two cores, one for the recorder and one for what feeds it")
    kept = min(cores)
    os.sched_setaffinity(0, cores - {kept})
    try:
        yield kept
    finally:
        os.sched_setaffinity(0, cores)


class Database(Influxd):
    """A real influxd whose use of the machine can be read."""

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid


@contextmanager
def database() -> Iterator[Database]:
    """Run an empty influxd for as long as the `with` block.

    Raises:
        CannotRunError: there is no influxd.
    """
    with tempfile.TemporaryDirectory(prefix="ess-bench-") as directory:
        try:
            server = Database(Path(directory))
            server.start()
        except FileNotFoundError:
            raise CannotRunError("influxd is not installed; on Debian: apt install influxdb") from None
        try:
            yield server
        finally:
            server.kill()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used: processor seconds since its start, MB of memory now, bytes to disk."""

    at: float
    cpu_seconds: float
    rss_mb: float
    written_bytes: int

    def cpu_percent_since(self, before: "Usage") -> float:
        """Processor time as a share of one core, in percent."""
        return 100 * (self.cpu_seconds - before.cpu_seconds) / (self.at - before.at)


def usage_of(pid: int) -> Usage:
    """Read what a process has used so far."""
    process = Path(f"/proc/{pid}")
    figures = (process / "stat").read_text().rpartition(")")[2].split()
    rss = re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
    written = re.search(r"(?m)^write_bytes: (\d+)", (process / "io").read_text())
    return Usage(
        time.monotonic(),
        (int(figures[11]) + int(figures[12])) / _TICKS_PER_SECOND,
        int(rss[1]) / 1024 if rss else 0.0,
        int(written[1]) if written else 0,
    )


class Recording:
    """`ess-recorder run` in a directory of its own, on one core if one is named.

    Args:
        directory: for its settings, data and log.
        influxdb_url: where it writes to.
        settings: sections that differ from the shipped settings.
        core: the only core that it may use.
    """

    def __init__(
        self,
        directory: Path,
        influxdb_url: str,
        settings: Mapping[str, Any] | None = None,
        core: int | None = None,
    ) -> None:
        self.port, self.http_port = free_port(), free_port()
        self.log = directory / "recorder.log"
        self._file = directory / "recorder.json"
        self._core = core
        given = dict(settings or {})
        listener = {"name": "pcs", "bind": "127.0.0.1", "port": self.port, **given.pop("listener", {})}
        # JSON is YAML.
        self._file.write_text(
            json.dumps(
                {
                    "site": "home",
                    "timezone": "Europe/Berlin",
                    "data_dir": str(directory / "data"),
                    "log_level": "warning",
                    "listeners": [listener],
                    "http": {"port": self.http_port},
                    "devices": [{"profile": "lg-ess-gen1-pcs"}, {"profile": "abb-b2x"}],
                    "influxdb": {"url": influxdb_url, "database": DATABASE},
                    **given,
                }
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process; it does not listen yet."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "recorder", "run", "--config", str(self._file)],
                cwd=ROOT, stdout=output, stderr=output,
            )  # fmt: skip
        if self._core is not None:
            os.sched_setaffinity(self.pid, {self._core})

    def __enter__(self) -> Self:
        self.start()
        wait_until(self._writes, 60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process in order."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=60)

    def health(self) -> dict[str, Any]:
        """Give the health answer, whatever its status is."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/healthz", timeout=30) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            with error:
                return dict(json.load(error))

    def _writes(self) -> bool:
        """Whether the recorder has found InfluxDB and set it up."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise CannotRunError(f"the recorder ended: {self.log.read_text()[-500:]}")
        try:
            return bool(self.health()["influxdb"]["state"] == "writing")
        except OSError:
            return False


def count_by_site(influxd: Influxd, measurement: str) -> dict[str, int]:
    """How many points of a measurement each site has."""
    statement = f'SELECT count("active_power") FROM "{measurement}" GROUP BY "site"'
    try:
        return {row["site"]: int(row["count"]) for row in influxd.query(statement, DATABASE)}
    except QueryError:
        return {}

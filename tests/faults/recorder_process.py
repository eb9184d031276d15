"""The recorder as a process that may be killed, wrapped and watched.

Takes a directory, InfluxDB's URL and what differs from the shipped settings, gives the running service.
Adds to `tests.support.service` what faults need: a settings file, a wrapper, kill -9 and peak memory.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import yaml

from tests.support.influxd import TIMEOUT_SECONDS, wait_until
from tests.support.service import ROOT, Service

# Stamps of the past week are kept as they are, so that a day can be sent in minutes.
PAST_WEEK_SECONDS = 604_800


class RecorderProcess(Service):
    """`ess-recorder run` with the shipped settings, changed by `changes`, begun by `wrapper`.

    `changes` maps a section to its keys, for example `{"queue": {"max_bytes": 65536}}`; the keys of
    `listeners` go to every listener. `wrapper` is a command that ends in exec, so that the process
    that was started is the recorder.
    """

    def __init__(
        self,
        directory: Path,
        influxdb_url: str,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
        wrapper: Sequence[str] = (),
        **env: str,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(directory, influxdb_url, ESS_CONFIG=str(directory / "recorder.yaml"), **env)
        self.data_dir = directory / "data"
        self.peak_rss_mb = 0.0
        self._wrapper = wrapper
        document = yaml.safe_load(_quoted((ROOT / "config/recorder.yaml").read_text()))
        document["clock"]["tolerance_seconds"] = PAST_WEEK_SECONDS
        for section, keys in (changes or {}).items():
            places = document[section] if section == "listeners" else [document.setdefault(section, {})]
            for place in places:
                place.update(deepcopy(dict(keys)))
        text = yaml.safe_dump(document, sort_keys=False, width=1000)
        (directory / "recorder.yaml").write_text(re.sub(r"""'@(\$\{[^}]*\})'""", r"\1", text))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    @property
    def pid(self) -> int:
        """The recorder's process."""
        assert self.process is not None
        return self.process.pid

    def start(self, *, wait: bool = True) -> None:
        """Start the process, and wait until it answers."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*self._wrapper, sys.executable, "-m", "recorder", "run"],
                cwd=ROOT, env={**os.environ, **self.env}, stdout=output, stderr=output,
            )  # fmt: skip
        if wait:
            wait_until(self._answers)

    def stop(self) -> int:
        """End the service in order, and give its exit code."""
        self.note_peak()
        return super().stop()

    def kill(self) -> None:
        """End the process as a power loss would."""
        assert self.process is not None
        self.note_peak()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=TIMEOUT_SECONDS)

    def note_peak(self) -> None:
        """Remember the most memory that the process has used so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+) kB", status)
        if peak:
            self.peak_rss_mb = max(self.peak_rss_mb, int(peak[1]) / 1024)

    def has_stored(self, line_part: bytes) -> bool:
        """Whether a line with this in it is in the queue's files."""
        for path in (self.data_dir / "queue").glob("*.segment"):
            # A file goes once all that it holds is in InfluxDB.
            with suppress(FileNotFoundError):
                if line_part in path.read_bytes():
                    return True
        return False

    def written_bytes(self) -> int:
        """Bytes that the process has caused to be written to a disk, since it was started."""
        counters = Path(f"/proc/{self.pid}/io").read_text()
        return int(re.findall(r"write_bytes: (\d+)", counters)[0])

    def influx(self) -> dict[str, Any]:
        """What the health answer says about InfluxDB."""
        figures: dict[str, Any] = self.health()[1]["influxdb"]
        return figures

    def counted(self, name: str, source: str = "pcs") -> float:
        """What a source has counted under `name`."""
        count: float = self.health()[1]["sources"][source].get(name, 0)
        return count


def _quoted(text: str) -> str:
    """Settings in which the bare `${NAME}` that stand for numbers can be read as YAML."""
    return re.sub(r"""(?m)^(\s*[\w-]+:\s+)(\$\{[^}]*\})""", r'\1"@\2"', text)

"""How long the commands take to begin.

Takes options, gives seconds from the start of the process to the first accepted connection, and of `--help`.
"""

import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from bench.recording import ROOT, Recording
from bench.report import CannotRunError, Options, Result, Row
from tests.support.influxd import free_port

_WITHIN_SECONDS = 60.0


def run(options: Options) -> Result:
    """Start the commands several times, beside a Python that does nothing."""
    runs = 3 if options.quick else 11
    found: dict[str, list[float]] = {"python": [], "help": [], "run": []}
    for number in range(runs):
        options.show(f"run {number + 1} of {runs}")
        found["python"].append(_seconds(["-c", "pass"]))
        found["help"].append(_seconds(["-m", "recorder", "decode", "--help"]))
        found["run"].append(_until_accepted())
    python, shown, accepted = (sorted(found[name])[runs // 2] for name in ("python", "help", "run"))
    return Result(
        "Start-up",
        (
            Row(
                "`ess-recorder run` to the first accepted connection",
                accepted,
                "s",
                accepted / python,
                "python",
                None,
                runs,
            ),
            Row("`ess-recorder decode --help`", shown, "s", shown / python, "python", None, runs),
            Row("`python -c pass`", python, "s", runs=runs),
        ),
    )


def _seconds(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - began


def _until_accepted() -> float:
    """Start the service without an InfluxDB, and connect until it accepts."""
    with tempfile.TemporaryDirectory(prefix="ess-bench-") as directory:
        recorder = Recording(Path(directory), f"http://127.0.0.1:{free_port()}")
        began = time.perf_counter()
        recorder.start()
        try:
            while time.perf_counter() - began < _WITHIN_SECONDS:
                with suppress(OSError), socket.create_connection(("127.0.0.1", recorder.port)):
                    return time.perf_counter() - began
                time.sleep(0.002)
        finally:
            recorder.stop()
    raise CannotRunError("the recorder did not listen in time")

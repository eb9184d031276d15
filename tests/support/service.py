"""The recorder as a process, as a user runs it.

Takes settings by environment, gives the running service and its ports. Shares no code with it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.influxd import TIMEOUT_SECONDS, free_port, wait_until

ROOT = Path(__file__).parents[2]


def ess_recorder(
    *arguments: str, env: Mapping[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "recorder", *arguments],
        cwd=ROOT, env={**os.environ, **(env or {})}, input=stdin, capture_output=True,
        timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip


class Service:
    """`ess-recorder run` in a directory of its own, for as long as the `with` block."""

    def __init__(self, directory: Path, influxdb_url: str, **env: str) -> None:
        self.pcs_port, self.powermeter_port, self.http_port = (free_port() for _ in range(3))
        self.log = directory / "recorder.log"
        self.env = {
            "ESS_SITE": "home",
            "ESS_BIND": "127.0.0.1",
            "ESS_PCS_PORT": str(self.pcs_port),
            "ESS_POWERMETER_PORT": str(self.powermeter_port),
            "ESS_HTTP_PORT": str(self.http_port),
            "ESS_DATA_DIR": str(directory / "data"),
            "ESS_INFLUXDB_URL": influxdb_url,
            **env,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "recorder", "run"],
                cwd=ROOT, env={**os.environ, **self.env}, stdout=output, stderr=output,
            )  # fmt: skip
        wait_until(self._answers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """End the service in order, and give its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=TIMEOUT_SECONDS)

    def health(self) -> tuple[int, dict[str, Any]]:
        """Give status and content of the health answer."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.http_port}/healthz", timeout=TIMEOUT_SECONDS
            ) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def report(self) -> dict[str, Any]:
        """Give what `/api/v1/health` tells of every part."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.http_port}/api/v1/health", timeout=TIMEOUT_SECONDS
        ) as answer:
            report: dict[str, Any] = json.load(answer)
            return report

    def send(self, text: bytes, port: int | None = None) -> None:
        """Send text over one connection, then close it."""
        with socket.create_connection(("127.0.0.1", port or self.pcs_port)) as connection:
            connection.sendall(text)

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(self.log.read_text())
        try:
            self.health()
        except OSError:
            return False
        return True

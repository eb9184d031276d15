"""Real time series databases for tests: InfluxDB 1.x and VictoriaMetrics.

Takes a temporary directory, gives a server of its own on private ports that can be stopped, killed,
suspended and started again with its data. Talks to it with the standard library only, so that a
test checks the recorder against something that shares no code with it. Never uses a server that is
already running.
"""

import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO

Row = dict[str, Any]

TIMEOUT_SECONDS: Final = 300.0
"""When a test gives up waiting, whatever for: far beyond what a busy machine needs for anything."""

LONG_SECONDS: Final = 1800.0
"""The same for what takes minutes on a quiet machine."""


class QueryError(Exception):
    """The database answered a statement of a test with an error."""


def wait_until(condition: Callable[[], bool], timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """Return as soon as `condition` holds, or raise TimeoutError."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        asked_at = time.monotonic()
        if condition():
            return
        if asked_at > deadline:
            message = f"not so within {timeout_seconds} s: {condition}"
            raise TimeoutError(message)
        # A condition that costs much leaves half of the time to what is waited for.
        time.sleep(max(0.02, time.monotonic() - asked_at))


async def until(condition: Callable[[], object]) -> None:
    """Return as soon as `condition` holds, while the event loop goes on."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on right now.

    It is below the ports that the kernel gives to connections: one that was tried in vain while its
    listener restarts would else, now and then, connect to itself and keep the port.
    """
    while True:
        port = next(_own_ports())
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@cache
def _own_ports() -> Iterator[int]:
    """Give ports that no other worker of this run gives: a server that restarts finds its port still free."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports = list(range(15_000 + worker, 32_000, workers))
    random.SystemRandom().shuffle(ports)
    return cycle(ports)


def http(
    method: str, url: str, parameters: Mapping[str, str] | None = None, body: bytes | None = None
) -> tuple[int, bytes]:
    """One HTTP exchange; status and body, whatever the status is."""
    address = f"{url}?{urllib.parse.urlencode(parameters or {})}"
    request = urllib.request.Request(address, data=body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def as_of(now: datetime, statement: str) -> str:
    """The statement as it would be read at another moment than the server's `now()`."""
    moment = f"'{now.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}'"
    # Else a query that fills gaps would fill them up to the server's own time.
    bounded = re.sub(r"\btime > now\(\) - (\w+)", rf"time > {moment} - \1 AND time <= {moment}", statement)
    return bounded.replace("now()", moment)


class DatabaseServer(ABC):
    """A database process that lives as long as the `with` block, or between `start` and `stop`."""

    ready_path: str
    ready_status: int

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: TextIO | None = None

    @property
    def url(self) -> str:
        """Where the server listens, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_text(self) -> str:
        """Everything that the server has printed so far."""
        return (self.directory / "server.log").read_text()

    @abstractmethod
    def command(self) -> list[str]:
        """The command that starts the server."""

    def start(self) -> None:
        """Start the process on the data that its directory holds, and wait until it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._log = (self.directory / "server.log").open("a")
        self._process = subprocess.Popen(self.command(), stdout=self._log, stderr=subprocess.STDOUT)
        wait_until(self._answers)

    def stop(self) -> None:
        """End the process in order; nothing happens when it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process as a power loss would."""
        self._end(signal.SIGKILL)

    def suspend(self) -> None:
        """Stop the process from running while its sockets stay open, until `resume`."""
        self._signal(signal.SIGSTOP)
        wait_until(self._is_suspended)

    def resume(self) -> None:
        """Let a suspended process go on."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(self.log_text)
        try:
            return http("GET", self.url + self.ready_path)[0] == self.ready_status
        except OSError:
            return False

    def _is_suspended(self) -> bool:
        """Whether each thread has stopped; the signal reaches them one after the other."""
        assert self._process is not None
        stats = Path(f"/proc/{self._process.pid}/task").glob("*/stat")
        return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in stats)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(number)
        self._signal(signal.SIGCONT)
        self._process.wait(timeout=TIMEOUT_SECONDS)
        self._process = None
        if self._log is not None:
            self._log.close()


class Influxd(DatabaseServer):
    """A real `influxd` 1.x in `directory`.

    With `auth` it demands a user, and at first has none. `sections` adds lines to its configuration
    file, for example `{"http": {"max-body-size": "1000"}}`. `username` and `password` are what `query`
    and `write` send; a test sets them once it has created the user.
    """

    ready_path = "/ping"
    ready_status = 204

    def __init__(
        self, directory: Path, *, auth: bool = False, sections: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        super().__init__(directory)
        self.auth = auth
        self.sections = sections or {}
        self.username = ""
        self.password = ""

    def command(self) -> list[str]:
        """Write the configuration file, and give the command that starts the server with it."""
        values: dict[str, dict[str, str]] = {
            "meta": {"dir": f'"{self.directory}/meta"'},
            "data": {
                "dir": f'"{self.directory}/data"',
                "wal-dir": f'"{self.directory}/wal"',
                "query-log-enabled": "false",
            },
            "monitor": {"store-enabled": "false"},
            "http": {
                "bind-address": f'"127.0.0.1:{self.port}"',
                "auth-enabled": str(self.auth).lower(),
                "log-enabled": "false",
            },
        }
        for section, lines in self.sections.items():
            values.setdefault(section, {}).update(lines)
        text = 'reporting-disabled = true\nbind-address = "127.0.0.1:0"\n'
        for section, lines in values.items():
            text += f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())
        path = self.directory / "influxdb.conf"
        path.write_text(text)
        return ["influxd", "-config", str(path)]

    def query(self, statement: str, database: str = "") -> list[Row]:
        """The rows of all series of one statement: columns, tags, `name`; `time` in Unix ns.

        Raises:
            QueryError: The server answered with an error.
        """
        return self.query_each([statement], database)[0]

    def query_each(self, statements: Sequence[str], database: str = "") -> list[list[Row]]:
        """The rows of each of several statements, in one request."""
        parameters = {"db": database, "epoch": "ns", **self._credentials()}
        body = urllib.parse.urlencode({"q": ";".join(statements)}).encode()
        status, text = http("POST", f"{self.url}/query", parameters, body)
        answer = json.loads(text)
        results = answer.get("results", [{}])
        error = answer.get("error") or next((one["error"] for one in results if "error" in one), None)
        if status != 200 or error:
            raise QueryError(error or status)
        return [_rows(result) for result in results]

    def write(self, lines: bytes, database: str, retention_policy: str = "") -> None:
        """Write line protocol with ns stamps.

        Raises:
            QueryError: The server did not take all of it.
        """
        parameters = {"db": database, "rp": retention_policy, "precision": "ns", **self._credentials()}
        status, text = http("POST", f"{self.url}/write", parameters, lines)
        if status != 204:
            raise QueryError(text.decode())

    def create_admin(self, username: str, password: str) -> None:
        """Create the first user, and use it from here on."""
        self.query(f"CREATE USER \"{username}\" WITH PASSWORD '{password}' WITH ALL PRIVILEGES")
        self.username, self.password = username, password

    def _credentials(self) -> dict[str, str]:
        return {"u": self.username, "p": self.password} if self.username else {}


def _rows(result: Mapping[str, Any]) -> list[Row]:
    """The rows of all series of a statement's result."""
    return [
        {
            "name": series.get("name", ""),
            **series.get("tags", {}),
            **dict(zip(series["columns"], row, strict=True)),
        }
        for series in result.get("series", [])
        for row in series.get("values", [])
    ]


class VictoriaMetrics(DatabaseServer):
    """A real `victoria-metrics`, which takes line protocol on both write paths of InfluxDB."""

    ready_path = "/health"
    ready_status = 200

    def command(self) -> list[str]:
        """The command that starts the server."""
        return [
            "victoria-metrics",
            f"-storageDataPath={self.directory}/data",
            f"-httpListenAddr=127.0.0.1:{self.port}",
            "-retentionPeriod=10y",
        ]

    def samples(self, metric: str) -> list[Row]:
        """Every stored series of `metric` (`measurement_field`): labels, values, Unix ms stamps."""
        http("GET", f"{self.url}/internal/force_flush")
        _, text = http("GET", f"{self.url}/api/v1/export", {"match[]": metric})
        return [json.loads(line) for line in text.splitlines()]

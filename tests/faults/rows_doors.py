"""Faults at the doors: floods of connections, strangers, and requests that try something."""

import http.client
import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from tests.faults.feeder import Fed, Feeder
from tests.faults.matrix import CannotInjectError, Ground, Result, row
from tests.faults.recorder_process import RecorderProcess
from tests.faults.truth import report, settle, stored_count
from tests.support.influxd import TIMEOUT_SECONDS, Influxd, wait_until

FEW_FILES = ("prlimit", "--nofile=256:256")
CONTROLLER = "127.0.0.1"
STRANGER = "127.0.0.2"


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """Let this process have that many sockets open.

    Raises:
        CannotInjectError: the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise CannotInjectError(f"this process may have {hard} files open, and needs {count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Drips:
    """Connections of a stranger that bring a byte each second, and come again when they are closed."""

    def __init__(self, port: int, count: int) -> None:
        self.opened = 0
        self._port = port
        self._sockets: list[socket.socket | None] = [None] * count
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=TIMEOUT_SECONDS)
        for connection in self._sockets:
            if connection is not None:
                connection.close()

    def _run(self) -> None:
        while not self._stopping.wait(1):
            for number, connection in enumerate(self._sockets):
                self._sockets[number] = self._drip(connection)

    def _drip(self, connection: socket.socket | None) -> socket.socket | None:
        try:
            if connection is None:
                connection = socket.create_connection(
                    (CONTROLLER, self._port), timeout=2, source_address=(STRANGER, 0)
                )
                self.opened += 1
            connection.sendall(b"x")
        except OSError:
            if connection is not None:
                connection.close()
            return None
        return connection


@row(
    29,
    "500 connections at 1 byte/s; 5,000 connections with `ulimit -n 256`",
    "the controller loses no sample; s",
)
def floods_of_connections(ground: Ground) -> Result:
    """A stranger in the home's network opens all it can, while the controller streams and comes again."""
    drip_seconds = 60 if ground.full else 3
    with (
        many_files(6_000),
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url, wrapper=FEW_FILES) as recorder,
        Feeder(recorder.pcs_port, speed=10) as feeder,
    ):
        wait_until(lambda: stored_count(influxd) > 10)
        with Drips(recorder.pcs_port, 500) as drips:
            wait_until(lambda: drips.opened >= 500)
            feeder.wait_for(drip_seconds * 10)
            dripped = drips.opened
        began = time.monotonic()
        flood = [_open(recorder.pcs_port) for _ in range(5_000)]
        opened = sum(connection is not None for connection in flood)
        flood_seconds = time.monotonic() - began
        came_again = time.monotonic()
        with Feeder(recorder.pcs_port, seconds=20, speed=10, ago_seconds=10_000) as again:
            wait_until(lambda: bool(again.sent))
            first_ns = again.sent[0].sample.at_ns
            wait_until(
                lambda: bool(influxd.query(f"SELECT frequency FROM pcs WHERE time >= {first_ns}", "ess"))
            )
            again_seconds = time.monotonic() - came_again
            again.finish()
        for connection in flood:
            if connection is not None:
                connection.close()
        feeder.wait_for(20)
        feeder.stop()
        assert feeder.connections == 1, "the controller's own connection was closed"
        fed = Fed(again.sent + feeder.sent, again.doubtful + feeder.doubtful)
        settle(recorder, influxd, fed)
        figure = (
            f"{dripped} slow connections in {drip_seconds} s, {opened} of 5,000 begun in "
            f"{flood_seconds:.1f} s; the controller's connection stayed, a second one was served after "
            f"{again_seconds:.1f} s"
        )
        return report(recorder, influxd, fed, figure)


def _open(port: int) -> socket.socket | None:
    connection = socket.socket()
    connection.bind((STRANGER, 0))
    connection.setblocking(False)
    with suppress(BlockingIOError):
        try:
            connection.connect((CONTROLLER, port))
        except ConnectionError:
            connection.close()
            return None
    return connection


@row(30, "source address not allowed", "closed before a byte is read; count")
def strangers(ground: Ground) -> Result:
    """Only the controller's address may connect; another one sends a whole stream, and none of it counts."""
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(
            ground.directory / "recorder", influxd.url, {"listeners": {"allow": [f"{CONTROLLER}/32"]}}
        ) as recorder,
        Feeder(recorder.pcs_port) as feeder,
        Feeder(recorder.pcs_port, ago_seconds=10_000, source=STRANGER) as stranger,
    ):
        wait_until(lambda: recorder.counted("connections_refused_address") >= 20)
        stranger.stop()
        feeder.wait_for(50)
        feeder.stop()
        settle(recorder, influxd, feeder)
        refused = recorder.counted("connections_refused_address")
        assert recorder.counted("connections_accepted") == 1
        return report(recorder, influxd, feeder, f"{refused:.0f} connections refused, 0 bytes of them read")


@row(31, "HTTP: 1 MB header, path traversal, script in names", "refused, 404, no markup")
def odd_requests(ground: Ground) -> Result:
    """Requests that no person sends are refused, and a hostile name comes back as data only."""
    name = "<script>alert(1)</script>"
    with (
        Influxd(ground.directory / "influxd") as influxd,
        RecorderProcess(ground.directory / "recorder", influxd.url, ESS_SITE=name) as recorder,
        Feeder(recorder.pcs_port) as feeder,
    ):
        wait_until(lambda: stored_count(influxd) > 20)
        port = recorder.http_port
        statuses = {
            "1 MB header": _status(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000),
            "traversal": _status(port, b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: x\r\n"),
            "encoded traversal": _status(port, b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n"),
            "POST": _status(port, b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"),
        }
        assert statuses["1 MB header"] == 431, statuses
        assert statuses["traversal"] == statuses["encoded traversal"] == 404, statuses
        assert statuses["POST"] == 405, statuses
        for path in ("/healthz", "/api/v1/latest", "/api/v1/health"):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
            client.request("GET", path)
            answer = client.getresponse()
            assert name in str(json.load(answer)), path
            client.close()
            assert answer.headers["Content-Type"].startswith("application/json")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        feeder.stop()
        settle(recorder, influxd, feeder)
        figure = ", ".join(f"{what} {status}" for what, status in statuses.items()) + "; names only in JSON"
        return report(recorder, influxd, feeder, figure)


def _status(port: int, head: bytes) -> int:
    """The status that a request gets; 0 where the connection is closed without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as connection:
        with suppress(ConnectionError):
            connection.sendall(head + b"\r\n\r\n")
        with suppress(ConnectionError):
            answer = connection.recv(4096)
            return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0
    return 0

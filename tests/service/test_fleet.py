"""Many homes through one port: sites by address, several processes, and garbage beside them."""

import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

from recorder.simulator.faults import FaultRates
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream
from tests.support.influxd import TIMEOUT_SECONDS, Influxd, QueryError, free_port, wait_until
from tests.support.service import ROOT, Service

HOMES = 12
SECONDS = 20


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """Give a running influxd of the test's own."""
    with Influxd(tmp_path / "influxd") as server:
        yield server


class Fleet(Service):
    """A recorder of many homes on one port, told apart by their addresses."""

    def __init__(self, directory: Path, influxdb_url: str, port: int, **listener: Any) -> None:
        directory.mkdir()
        super().__init__(directory, influxdb_url, ESS_CONFIG=str(directory / "recorder.yaml"))
        self.pcs_port = port
        sites = {address(home): f"home-{home}" for home in range(HOMES)}
        settings = {
            "site": directory.name,
            "data_dir": str(directory / "data"),
            "listeners": [{"name": "fleet", "bind": "127.0.0.1", "port": port, "sites": sites, **listener}],
            "http": {"port": self.http_port},
            "devices": [{"profile": "lg-ess-gen1-pcs"}, {"profile": "abb-b2x"}],
            "influxdb": {"url": influxdb_url},
        }
        (directory / "recorder.yaml").write_text(json.dumps(settings))

    def accepted(self) -> int:
        """How many connections this process has had."""
        return int(self.health()[1]["sources"]["fleet"].get("connections_accepted", 0))


def address(home: int) -> str:
    return f"127.7.0.{home + 1}"


def text_of(home: int, start_s: int) -> bytes:
    stream = SiteStream(Plant(home, start_s), DIALECTS["ttt"], FaultRates(), home)
    return b"".join(second.texts[0] for second in islice(stream, SECONDS))


def connect(port: int, home: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), source_address=(address(home), 0))


def counts(influxd: Influxd, measurement: str) -> dict[str, int]:
    statement = f'SELECT count("active_power") FROM "{measurement}" GROUP BY "site"'
    with suppress(QueryError):
        return {row["site"]: row["count"] for row in influxd.query(statement, "ess")}
    return {}


def test_processes_share_a_port_and_lose_and_double_nothing(tmp_path: Path, influxd: Influxd) -> None:
    """Two processes on one port both record, and each home's samples are in InfluxDB exactly once."""
    port = free_port()
    start_s = int(time.time()) - SECONDS
    with ExitStack() as stack:
        fleets = [
            stack.enter_context(Fleet(tmp_path / name, influxd.url, port, reuse_port=True))
            for name in ("one", "two")
        ]
        for home in range(HOMES):
            with connect(port, home) as connection:
                connection.sendall(text_of(home, start_s))
        # The kernel chooses by a hash: connections go on until both processes have had some.
        while not all(fleet.accepted() for fleet in fleets):
            connect(port, 0).close()
        expected = {f"home-{home}": SECONDS for home in range(HOMES)}
        wait_until(lambda: counts(influxd, "pcs") == counts(influxd, "powermeter") == expected)
        assert counts(influxd, "pcs") == expected


def test_port_is_not_shared_unasked(tmp_path: Path, influxd: Influxd) -> None:
    """Without reuse_port a second process on the port ends with exit code 1 and says why."""
    port = free_port()
    with Fleet(tmp_path / "one", influxd.url, port):
        second = Fleet(tmp_path / "two", influxd.url, port)
        ended = subprocess.run(
            [sys.executable, "-m", "recorder", "run"],
            cwd=ROOT, env={**os.environ, **second.env}, capture_output=True,
            timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert b"another program has the port" in ended.stderr


@contextmanager
def garbage(port: int, home: int) -> Iterator[list[int]]:
    """Send random bytes as fast as they are taken; gives how many were."""
    noise = Random(1).randbytes(1 << 18)
    sent = [0]
    stopping = threading.Event()

    def flood() -> None:
        while not stopping.is_set():
            with suppress(OSError), connect(port, home) as connection:
                connection.settimeout(1)
                while not stopping.is_set():
                    sent[0] += connection.send(noise)

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        yield sent
    finally:
        stopping.set()
        flooding.join()


def more_than(sent: list[int], nbytes: int) -> bool:
    return sent[0] > nbytes


def has_samples(influxd: Influxd, number: int) -> bool:
    return counts(influxd, "pcs") == {"home-0": number}


def test_points_keep_coming_while_another_stream_sends_garbage(tmp_path: Path, influxd: Influxd) -> None:
    """Each second of a home is in InfluxDB before the next is sent, while garbage comes at full speed."""
    with Fleet(tmp_path / "one", influxd.url, free_port()) as fleet:
        stream = SiteStream(Plant(1, int(time.time()) - 60), DIALECTS["ttt"], FaultRates(), 1)
        with garbage(fleet.pcs_port, 1) as sent, connect(fleet.pcs_port, 0) as connection:
            for number, second in enumerate(islice(stream, 4), 1):
                taken = sent[0]
                wait_until(partial(more_than, sent, taken + (1 << 20)))
                connection.sendall(second.texts[0])
                wait_until(partial(has_samples, influxd, number))


@contextmanager
def few_files(soft: int) -> Iterator[None]:
    """Let what is started here begin with this soft limit of open files."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


def test_soft_limit_of_files_is_raised_for_the_connections(tmp_path: Path, influxd: Influxd) -> None:
    """A service that begins with few files allows itself as many as its connections need."""
    with few_files(256), Fleet(tmp_path / "one", influxd.url, free_port(), max_connections=1500) as fleet:
        assert fleet.process is not None
        limits = Path(f"/proc/{fleet.process.pid}/limits").read_text()
        soft = next(line.split()[3] for line in limits.splitlines() if line.startswith("Max open files"))
        assert int(soft) >= 1500

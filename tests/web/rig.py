"""A recorder with fresh samples, and what HTTP clients see of it."""

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from recorder.simulator.faults import FaultRates
from recorder.simulator.plant import Plant, PlantSettings
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import ExpectedSample, SiteStream
from tests.support.influxd import TIMEOUT_SECONDS, wait_until
from tests.support.service import Service


class Answer(NamedTuple):
    """Status, headers by lower-case name, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


def recent(seconds: int) -> tuple[bytes, list[ExpectedSample]]:
    """Text of the last seconds up to now, both devices in one stream, and the samples in it.

    The home stands where it is noon: at night there would be no PV, at dawn less than answers are rounded to.
    """
    now_s = int(time.time())
    at_noon = PlantSettings(longitude_deg=(43_200 - now_s % 86_400) / 240)
    stream = SiteStream(Plant(5, now_s - seconds, at_noon), DIALECTS["ttt"], FaultRates(), 5)
    pieces = list(islice(stream, seconds))
    return b"".join(piece.texts[0] for piece in pieces), [s for piece in pieces for s in piece.truth]


def get(port: int, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
    """One request, sent as it is: no path is tidied, no redirect followed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@contextmanager
def recording(
    directory: Path, seconds: int = 20, **env: str
) -> Iterator[tuple[Service, list[ExpectedSample]]]:
    """Give a recorder without InfluxDB that has just got the last seconds of a plant, and the truth."""
    with Service(directory, "", **env) as service:
        yield service, send_recent(service, seconds)


def send_recent(service: Service, seconds: int) -> list[ExpectedSample]:
    """Send the last seconds of a plant, and give the truth once they are recorded."""
    before = points(service)
    text, truth = recent(seconds)
    service.send(text)
    wait_until(lambda: points(service) >= before + 2 * seconds)
    return truth


def points(service: Service) -> int:
    """How many samples came in at the first port."""
    return int(service.health()[1]["sources"]["pcs"].get("points", 0))


def fresh(service: Service, truth: list[ExpectedSample], path: str, mark: bytes) -> tuple[Answer, int]:
    """The answer while samples are no older than 5 s, and how often they were sent: a busy machine is late.

    Args:
        service: the recorder.
        truth: the samples that were sent; replaced by those that were sent again.
        path: what is asked for.
        mark: what the answer holds where samples are fresh.
    """
    times = 1
    while mark not in (answer := get(service.http_port, path)).body:
        truth[:] = send_recent(service, len(truth) // 2)
        times += 1
    return answer, times

"""The names that the recorder goes by: a page of another origin cannot read through a name of its own."""

import socket
from collections.abc import Iterator

import pytest

from tests.faults.recorder_process import RecorderProcess
from tests.web.rig import get

PATHS = (
    "/", "/?token=x", "/metrics", "/healthz", "/api/v1/latest", "/api/v1/history", "/api/v1/events",
    "/api/v1/health", "/api/v1/openapi.json", "/lgess", "/static/page.css", "/nothing",
)  # fmt: skip


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecorderProcess]:
    """Give a recorder whose owner gave it a name of the public DNS."""
    changes = {"http": {"hosts": ["Ess.example.org"]}}
    with RecorderProcess(tmp_path_factory.mktemp("named"), "", changes) as recorder:
        yield recorder


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "192.168.1.10:8080", "[::1]:8080", "[fe80::1]", "localhost:8080", "recorder",
        "RECORDER.", "ess.local", "ess.home.arpa", "ess.lan:80", "ess.internal", "Ess.Fritz.Box",
        "ess.local.:8080", "ess.example.org", "ESS.example.org.:443",
    ],
)  # fmt: skip
def test_names_of_the_own_network_are_answered(named: RecorderProcess, host: str) -> None:
    """An address, a name without a dot, one of the own network, and one that the owner set are answered."""
    for path in ("/", "/metrics", "/healthz", "/api/v1/latest"):
        assert get(named.http_port, path, {"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example", "attacker.example:8080", "127.0.0.1.attacker.example", "local.attacker.example",
        "ess.example.org.attacker.example", "www.ess.example.org", "attacker-local.example", "fritz.box",
        "[attacker.local]", "[]", "", ":8080", ".", "1.2.3.4.5", "attacker.example@127.0.0.1",
    ],
)  # fmt: skip
def test_any_other_name_is_told_what_to_set(named: RecorderProcess, host: str) -> None:
    """A name of the public DNS gets 421 on every path, whoever asks, and reads nothing but the setting."""
    for path in PATHS:
        answer = get(named.http_port, path, {"Host": host})
        assert (answer.status, answer.headers["content-type"][:24]) == (421, "application/problem+json")
        assert "http.hosts" in answer.json["detail"]


def test_request_without_a_host_is_answered(named: RecorderProcess) -> None:
    """A program that speaks HTTP/1.0 names no host; a browser always does."""
    with socket.create_connection(("127.0.0.1", named.http_port)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert connection.makefile("rb").readline().split()[1] == b"200"

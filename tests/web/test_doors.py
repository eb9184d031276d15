"""What no browser sends, and more than one client should: refused, and the recording unaffected."""

import contextlib
import socket
from pathlib import Path

import pytest

from tests.support.influxd import TIMEOUT_SECONDS, wait_until
from tests.support.service import Service
from tests.web.rig import get, recent


def raw(port: int, request: bytes) -> bytes:
    """Send bytes as they are, and give all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
        return answer


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000, 431),
        (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x", 431),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 65, 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -1", 400),
        (b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close", 404),
        (b"GET /static/../service.py HTTP/1.1\r\nHost: x\r\nConnection: close", 404),
        (b"GET /static/%2e%2e/service.py HTTP/1.1\r\nHost: x\r\nConnection: close", 404),
        (b"GET /static/..%2fservice.py HTTP/1.1\r\nHost: x\r\nConnection: close", 404),
        (b"GET /static//etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close", 404),
        (b"GET /static/ HTTP/1.1\r\nHost: x\r\nConnection: close", 404),
        (b"GET /static/%00 HTTP/1.1\r\nHost: x\r\nConnection: close", 404),
        (
            b"POST /api/v1/latest HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            405,
        ),
    ],
    ids=lambda value: value[:40].decode("latin1") if isinstance(value, bytes) else "",
)
def test_odd_request_is_refused(shared: Service, head: bytes, status: int) -> None:
    """Large heads are 431, what is no HTTP is 400, paths that lead out are 404; each answer is whole."""
    answer = raw(shared.http_port, head + b"\r\n\r\n")
    assert int(answer.split(b" ", 2)[1]) == status
    assert b"application/problem+json" in answer
    assert b"import" not in answer
    assert get(shared.http_port, "/healthz").status == 200


def test_many_small_headers_are_too_large_together(shared: Service) -> None:
    """A head that is large as a whole is 431, though each of its lines is small."""
    lines = b"".join(b"X%d: %b\r\n" % (number, b"a" * 4000) for number in range(60))
    answer = raw(shared.http_port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")
    assert int(answer.split(b" ", 2)[1]) == 431
    assert get(shared.http_port, "/healthz").status == 200


def test_slow_client_is_closed(shared: Service) -> None:
    """A request that comes a byte at a time is closed before it is whole."""
    with socket.create_connection(("127.0.0.1", shared.http_port), timeout=60) as connection:
        closed = False
        connection.settimeout(0.5)
        for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1000:
            try:
                connection.sendall(bytes([byte]))
                closed = connection.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                closed = True
            if closed:
                break
        assert closed


def test_crowd_of_idle_connections_leaves_the_recording_alone(tmp_path: Path) -> None:
    """600 connections that say nothing cost no sample, and soon the door is open again."""
    with Service(tmp_path, "") as service, contextlib.ExitStack() as stack:
        for _ in range(600):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection(("127.0.0.1", service.http_port), timeout=5))
        text, _ = recent(20)
        service.send(text)

        def recorded() -> bool:
            try:
                return bool(service.health()[1]["sources"]["pcs"].get("points", 0) == 40)
            except (OSError, ValueError):
                return False

        # The idle ones are closed after 15 s.
        wait_until(recorded)


def test_client_that_takes_no_answer_is_cut_off(tmp_path: Path) -> None:
    """Connections that ask for much and read nothing are closed, and free their place."""
    with Service(tmp_path, "") as service:
        hogs = []
        for _ in range(20):
            hog = socket.socket()
            hog.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            hog.connect(("127.0.0.1", service.http_port))
            hog.settimeout(1)
            with contextlib.suppress(TimeoutError):
                for _ in range(100):
                    hog.sendall(b"GET /api/v1/history?from=0&step=15m HTTP/1.1\r\nHost: x\r\n\r\n")
            hogs.append(hog)

        def all_closed() -> bool:
            return sum(map(closed, hogs)) == len(hogs)

        def closed(hog: socket.socket) -> bool:
            try:
                hog.send(b"G")
            except TimeoutError:
                return False
            except OSError:
                return True
            return False

        wait_until(all_closed)
        assert service.health()[0] == 200
        for hog in hogs:
            hog.close()

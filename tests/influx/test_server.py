"""The three verbs of the server, against real servers and against what is none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from recorder.influx.answers import Action, judge
from recorder.influx.errors import InfluxRefused, InfluxUnreachable
from recorder.influx.server import Connection, InfluxServer, ServerKind
from tests.influx.misfit import misfit
from tests.support.influxd import TIMEOUT_SECONDS, Influxd, VictoriaMetrics, free_port, wait_until


@pytest.fixture(scope="module")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """A server with an empty database `ess`."""
    with Influxd(tmp_path_factory.mktemp("influxd")) as server:
        server.query("CREATE DATABASE ess")
        yield server


def test_debian_server_has_queries_but_no_v2_write(influxd: Influxd) -> None:
    """InfluxDB 1.6.7 names its version, runs continuous queries, and lacks `/api/v2/write`."""
    kind = InfluxServer(Connection(influxd.url)).detect()
    assert kind.version.startswith("1.6.7")
    assert (kind.has_v2_write, kind.has_continuous_queries) == (False, True)


@pytest.mark.parametrize("compress", [False, True])
def test_lines_are_written_and_read_back(influxd: Influxd, compress: bool) -> None:
    """A write is answered 204 and its points are there, with and without gzip."""
    server = InfluxServer(Connection(influxd.url + "/", compress=compress))
    field = f"f{compress}"
    answer = server.write(f"m,site=K\u00f6ln {field}=1.5 1000\nm {field}=2.5 2000\n".encode())
    assert answer.status == 204
    rows = server.query(f"SELECT {field}, site FROM m WHERE {field} > 0")
    assert [(row["time"], row[field], row["site"]) for row in rows] == [
        (1000, 1.5, "K\u00f6ln"),
        (2000, 2.5, None),
    ]


@pytest.mark.parametrize("compress", [False, True])
def test_v2_write_path_stores_points(tmp_path: Path, compress: bool) -> None:
    """Where the server has `/api/v2/write`, influxdb-client writes the same lines there."""
    with VictoriaMetrics(tmp_path) as victoria:
        server = InfluxServer(Connection(victoria.url, compress=compress))
        assert server.detect() == ServerKind("", "", has_v2_write=True, has_continuous_queries=False)
        assert server.write(b"pcs,site=home active_power=42.0 1790000000123000000\n").status == 204
        wait_until(lambda: bool(victoria.samples("pcs_active_power")))
        (series,) = victoria.samples("pcs_active_power")
        assert (series["values"], series["timestamps"]) == ([42.0], [1790000000123])
        server.close()


def test_refused_statement_says_why(influxd: Influxd) -> None:
    """An InfluxQL error is translated, with the server's own words."""
    with pytest.raises(InfluxRefused, match="nowhere"):
        InfluxServer(Connection(influxd.url, database="nowhere")).query("SELECT f FROM m")
    with pytest.raises(InfluxRefused, match="error parsing query") as refused:
        InfluxServer(Connection(influxd.url)).query("CREATE USER x WITH PASSWORD 'hunter2' BROKEN")
    assert "hunter2" not in str(refused.value)


def test_nothing_at_the_port_is_unreachable() -> None:
    """A closed port is one error for all three verbs, and names the URL."""
    url = f"http://127.0.0.1:{free_port()}"
    server = InfluxServer(Connection(url))
    with pytest.raises(InfluxUnreachable, match=url):
        server.detect()
    with pytest.raises(InfluxUnreachable, match=url):
        server.write(b"m f=1.0 1\n")
    with pytest.raises(InfluxUnreachable, match=url):
        server.query("SHOW DATABASES")


@pytest.mark.parametrize("v2", [False, True])
def test_suspended_server_times_out(tmp_path: Path, v2: bool) -> None:
    """A server that accepts connections but never answers costs no more than the time-out."""
    with VictoriaMetrics(tmp_path) if v2 else Influxd(tmp_path) as database:
        server = InfluxServer(Connection(database.url, timeout_seconds=0.3))
        server._kind = InfluxServer(Connection(database.url, timeout_seconds=TIMEOUT_SECONDS)).detect()
        assert server._kind.has_v2_write == v2
        database.suspend()
        with pytest.raises(InfluxUnreachable):
            server.write(b"m f=1.0 1\n")
        with pytest.raises(InfluxUnreachable):
            server.query("SHOW DATABASES")


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, b"hello", {}),
        (302, b"", {"Location": "/elsewhere"}),
        (401, b"<html>login</html>", {}),
        (404, b"not here", {}),
        (500, b"\xff\xfe garbage", {}),
    ],
)
def test_something_else_on_the_port_is_no_database(status: int, body: bytes, headers: dict[str, str]) -> None:
    """What is no InfluxDB is refused with a remedy, and a redirect is not followed."""
    with misfit(status, body, headers) as url:
        server = InfluxServer(Connection(url))
        with pytest.raises(InfluxRefused, match="URL") as refused:
            server.detect()
        assert refused.value.status == status
        with pytest.raises(InfluxRefused):
            server.query("SHOW DATABASES")


@pytest.mark.parametrize("has_v2_write", [False, True])
@pytest.mark.parametrize("status", [200, 202, 302, 404, 503])
def test_answer_that_is_not_204_reaches_the_judge_as_it_is(has_v2_write: bool, status: int) -> None:
    """On both write paths nothing but 204 is taken for success, and a redirect is not followed."""
    with misfit(status, b"{}", {"Location": "/elsewhere", "Retry-After": "7"}) as url:
        server = InfluxServer(Connection(url))
        server._kind = ServerKind("", "", has_v2_write, has_continuous_queries=False)
        answer = server.write(b"m f=1.0 1\n")
    assert answer.status == status
    verdict = judge(answer.status, answer.body, answer.headers)
    assert verdict.action in {Action.PAUSE, Action.RETRY}
    assert (verdict.after_seconds == 7.0) == (status == 503)


def test_answer_that_is_no_text_is_no_success() -> None:
    """Bytes that are no UTF-8 make influxdb-client fail; that is a pause, not a crash."""
    with misfit(500, b"\xff\xfe") as url:
        server = InfluxServer(Connection(url))
        server._kind = ServerKind("", "", has_v2_write=True, has_continuous_queries=False)
        answer = server.write(b"m f=1.0 1\n")
    assert judge(answer.status, answer.body, answer.headers).action is Action.PAUSE


@pytest.mark.parametrize("url", ["", "localhost:8086", "ftp://h", "http://"])
def test_url_that_is_none_is_refused(url: str) -> None:
    """A URL without a scheme or a host is an error that says what is allowed."""
    with pytest.raises(ValueError, match="http://"):
        Connection(url)


def test_token_with_a_newline_is_refused() -> None:
    """A secret that no header can carry is an error that does not show it."""
    with pytest.raises(ValueError, match="control character") as refused:
        Connection("http://h", token="hunter2\n")
    assert "hunter2" not in str(refused.value)


def test_secrets_are_in_no_text() -> None:
    """Neither password nor token shows in the representation of a connection."""
    shown = repr(Connection("http://h", username="u", password="hunter2", token="hunter2"))
    assert "hunter2" not in shown

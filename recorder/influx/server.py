"""The database as three verbs: detect what it is, write lines, run a query.

Takes line protocol and InfluxQL, gives answers and rows. Never retries, never follows a redirect,
never waits longer than its timeout, and never logs or shows a secret. Every call blocks; call it in
a worker thread. One thread may write while others query.

HTTP API: https://docs.influxdata.com/influxdb/v1/tools/api/
"""

import base64
import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import urllib3

from recorder.influx.answers import reason_of
from recorder.influx.errors import InfluxRefused, InfluxUnreachable

if TYPE_CHECKING:
    from recorder.influx.v2_write import V2Write

Row = dict[str, Any]

_WRONG_USER = "set the user name, password or token that InfluxDB knows"
_NOT_DONE = "InfluxDB does not carry the statement out"
_OTHER_TYPE = (
    "another program wrote that field as that type; where nothing else in the measurement is needed, "
    "take it away with DROP MEASUREMENT"
)
_WRONG_URL = "check the URL: what answers there is no InfluxDB"
_FAST_COMPRESSION = 1
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'?")


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the database is and who asks.

    `username` and `password` are for InfluxDB 1.x, `token` for 2.x. `timeout_seconds` bounds every
    request. `compress` sends writes with gzip: less traffic for more CPU.
    """

    url: str
    database: str = "ess"
    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    timeout_seconds: float = 10.0
    compress: bool = False

    def __post_init__(self) -> None:
        """Refuse what can not be sent.

        Raises:
            ValueError: The URL is none, or a name or secret holds a control character.
        """
        if not re.match(r"https?://[^/\s]", self.url):
            raise ValueError(f"the URL of InfluxDB begins with http:// or https://, unlike {self.url!r}")
        if not (self.username + self.password + self.token).isprintable():
            raise ValueError("user name, password or token of InfluxDB hold a control character")

    @property
    def authorization(self) -> str:
        """The value of the Authorization header; empty when nobody is named."""
        if self.token:
            return f"Token {self.token}"
        if self.username:
            return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return ""


@dataclass(frozen=True, slots=True)
class ServerKind:
    """What a server can do; `version` is empty where it does not name one, as VictoriaMetrics."""

    version: str
    build: str
    has_v2_write: bool
    has_continuous_queries: bool


@dataclass(frozen=True, slots=True)
class WriteAnswer:
    """The answer to a write, not yet judged; the names of headers are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class InfluxServer:
    """One InfluxDB 1.x, 2.x or anything that takes its line protocol."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._url = connection.url.rstrip("/")
        self._pool = urllib3.PoolManager(retries=False)
        self._kind: ServerKind | None = None
        self._v2_write: V2Write | None = None

    def detect(self) -> ServerKind:
        """Ask the server what it is; `write` goes by the latest answer.

        InfluxDB 1.6 answers 404 in plain text on `/api/v2/write`; where the path exists an empty
        write is answered 204, 401, or with an error in JSON.

        Raises:
            InfluxUnreachable: Nothing answered in time.
            InfluxRefused: What answers is no time series database.
        """
        ping = self._request("GET", "/ping")
        if ping.status != 204:
            raise InfluxRefused(ping.status, reason_of(ping.status, ping.body), _WRONG_URL)
        probe = self._request("POST", "/api/v2/write", body=b"")
        version = ping.headers.get("x-influxdb-version", "")
        self._kind = ServerKind(
            version=version,
            build=ping.headers.get("x-influxdb-build", ""),
            has_v2_write=probe.status in {204, 401, 403} or _is_json_object(probe.body),
            has_continuous_queries=re.match(r"v?1\.", version) is not None,
        )
        return self._kind

    def write(self, lines: bytes) -> WriteAnswer:
        """Send lines of line protocol with ns stamps into the default retention policy, once.

        Raises:
            InfluxUnreachable: Nothing answered in time; the lines may have been written.
        """
        kind = self._kind or self.detect()
        return self._write_v2(lines) if kind.has_v2_write else self._write_v1(lines)

    def write_into(self, policy: str, lines: bytes) -> WriteAnswer:
        """The same into a retention policy by its name, which InfluxDB 1.x alone has.

        Raises:
            InfluxUnreachable: Nothing answered in time; the lines may have been written.
        """
        return self._write_v1(lines, policy)

    def query(self, statement: str, *, timeout_seconds: float | None = None) -> list[Row]:
        """Run one InfluxQL statement, and give the rows of all its series.

        A row has the tags and columns of its series, `series_name`, and `time` in ns.

        Raises:
            InfluxUnreachable: Nothing answered in time; the statement may have been carried out.
            InfluxRefused: The server does not carry it out, or speaks no InfluxQL.
        """
        parameters = urlencode({"db": self.connection.database, "epoch": "ns"})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode({"q": statement}).encode()
        answer = self._request("POST", f"/query?{parameters}", body, headers, timeout_seconds)
        reason = _redacted(reason_of(answer.status, answer.body))
        if answer.status in {401, 403}:
            raise InfluxRefused(answer.status, reason, _WRONG_USER)
        try:
            document = json.loads(answer.body)
            result = document["results"][0] if answer.status == 200 else document
            if "error" in result:
                reason = _redacted(str(result["error"]))
                remedy = _OTHER_TYPE if "already exists as type" in reason else _NOT_DONE
                raise InfluxRefused(answer.status, reason, remedy)
            return _rows(result)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise InfluxRefused(answer.status, reason, _WRONG_URL) from None

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self._pool.clear()
        if self._v2_write is not None:
            self._v2_write.close()

    def _write_v1(self, lines: bytes, policy: str = "") -> WriteAnswer:
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self.connection.compress:
            headers["Content-Encoding"] = "gzip"
            lines = gzip.compress(lines, _FAST_COMPRESSION)
        parameters = urlencode({"db": self.connection.database, "rp": policy, "precision": "ns"})
        return self._request("POST", f"/write?{parameters}", lines, headers)

    def _write_v2(self, lines: bytes) -> WriteAnswer:
        if self._v2_write is None:
            self._v2_write = self._open_v2()
        try:
            answer = self._v2_write.write(lines)
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(error) from None
        return WriteAnswer(answer.status, answer.body, _lower_case(answer.headers))

    def _open_v2(self) -> "V2Write":
        from recorder.influx.v2_write import V2Write  # noqa: PLC0415  # slow to load, and seldom needed

        to = self.connection
        # InfluxDB 1.8 and later take name and password of a 1.x user as the token of /api/v2/write.
        token = to.token or (to.username and f"{to.username}:{to.password}")
        return V2Write(to.url, to.database, token, to.timeout_seconds, compress=to.compress)

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> WriteAnswer:
        headers = dict(headers or {})
        if self.connection.authorization:
            headers["Authorization"] = self.connection.authorization
        timeout = urllib3.Timeout(total=timeout_seconds or self.connection.timeout_seconds)
        try:
            answer = self._pool.request(
                method,
                self._url + path,
                body=body,
                headers=headers,
                timeout=timeout,
                redirect=False,
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(error) from None
        return WriteAnswer(answer.status, answer.data, _lower_case(answer.headers))

    def _unreachable(self, error: Exception) -> InfluxUnreachable:
        return InfluxUnreachable(
            f"InfluxDB at {self._url} did not answer ({type(error).__name__}): "
            "check that it runs, and the URL in the configuration"
        )


def _lower_case(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {name.lower(): value for name, value in (headers or {}).items()}


def _redacted(reason: str) -> str:
    """A server that can not parse a statement repeats it, with the password in it."""
    return _QUOTED.sub("'...'", reason) if "PASSWORD" in reason.upper() else reason


def _is_json_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def _rows(result: Mapping[str, Any]) -> list[Row]:
    return [
        {
            "series_name": series.get("name", ""),
            **series.get("tags", {}),
            **dict(zip(series["columns"], row, strict=True)),
        }
        for series in result.get("series", [])
        for row in series.get("values", [])
    ]

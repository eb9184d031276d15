"""Writing where the server has `/api/v2/write`, by influxdb-client.

Takes line protocol, gives the answer, not yet judged. Never retries and never waits longer than its timeout.
Imported only where a server has that path: the library takes a while to load, and memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException


@dataclass(frozen=True, slots=True)
class V2Answer:
    """Status, body and headers of an answer; status 0 where it was no text."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class V2Write:
    """Writes into one bucket.

    Args:
        url: the server's.
        bucket: where to write; the database of a 1.x server.
        token: empty when nobody is named.
        timeout_seconds: for one request.
        compress: whether to send gzip.
    """

    def __init__(self, url: str, bucket: str, token: str, timeout_seconds: float, *, compress: bool) -> None:
        self._bucket = bucket
        self._client = InfluxDBClient(
            url,
            token=token,
            org="-",
            timeout=int(timeout_seconds * 1000),
            enable_gzip=compress,
            retries=False,
        )
        self._write_api = self._client.write_api(write_options=SYNCHRONOUS)

    def write(self, lines: bytes) -> V2Answer:
        """Send lines with ns stamps, once.

        Raises:
            urllib3.exceptions.HTTPError: nothing answered in time; the lines may have been written.
        """
        try:
            self._write_api.write(self._bucket, "-", lines)
        except ApiException as error:
            if not error.status:
                raise urllib3.exceptions.HTTPError(str(error.reason)) from None
            return V2Answer(error.status, (error.body or "").encode(), error.headers or {})
        except UnicodeDecodeError:
            return V2Answer(0, b"the answer is no text", {})
        # The client takes any 2xx for success and returns nothing; the status is in its last answer.
        return V2Answer(self._client.api_client.last_response.status, b"", {})

    def close(self) -> None:
        """Close the connections."""
        self._client.close()  # type: ignore[no-untyped-call]

"""Something else on InfluxDB's port, or an InfluxDB in trouble: a server with always the same answer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@contextmanager
def misfit(
    status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, *, version: str = ""
) -> Iterator[str]:
    """The URL of a server that answers every request with `status` and `body`.

    With `version` it answers `/ping` as an InfluxDB of that version does.
    """

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if version and self.path == "/ping":
                self.send_response(204)
                self.send_header("X-Influxdb-Version", version)
                self.end_headers()
                return
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 - the names that the standard library looks for

        def log_message(self, *_: object) -> None:
            """Nothing: the output of a test is for failures."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()

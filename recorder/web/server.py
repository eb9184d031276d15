"""The door of the HTTP server: its connections, and their bounds.

Takes an aiohttp application, listens on one address. Never lets one client take what the others need:
connections are counted, one that is slow or silent is closed, and a large header is refused.
"""

import asyncio
import resource
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from recorder.web.access import SECURITY_HEADERS, problem

MOST_CONNECTIONS: Final = 512
_MOST_FIELD_BYTES: Final = 8190
_MOST_HEAD_BYTES: Final = 65536
_MOST_HEADERS: Final = 64
_IDLE_SECONDS: Final = 15.0
_LINGER_SECONDS: Final = 1.0
_SWEEP_SECONDS: Final = 15.0
_SHUTDOWN_SECONDS: Final = 2.0

_log = structlog.get_logger(__name__)


class HttpServer:
    """Serves an application on one address.

    Args:
        application: what answers.
        bind: the address to listen on.
        port: the TCP port; 0 takes any free one.
    """

    def __init__(self, application: web.Application, bind: str, port: int) -> None:
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        self._bind = bind
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self.port = port

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be bound.
        """
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._admit, self._bind, self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweeping = asyncio.create_task(self._sweep(), name="http-sweep")

    async def close(self) -> None:
        """Stop answering."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _admit(self) -> asyncio.Protocol:
        """Give a new connection what answers it; one too many is closed."""
        server = self._runner.server
        if server is None or len(server.connections) >= _most_connections():
            return _Refused()
        return _Connection(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=_IDLE_SECONDS,
            max_line_size=_MOST_FIELD_BYTES,
            max_field_size=_MOST_FIELD_BYTES,
            max_headers=_MOST_HEADERS,
        )

    async def _sweep(self) -> None:
        """Close connections that have not taken a byte of their answer since the last sweep."""
        waiting: dict[web.RequestHandler, int] = {}
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            server = self._runner.server
            before, waiting = waiting, {}
            for connection in server.connections if server else ():
                transport = connection.transport
                nbytes = transport.get_write_buffer_size() if transport else 0
                if transport and nbytes and nbytes >= before.get(connection, nbytes + 1):
                    transport.abort()
                elif nbytes:
                    waiting[connection] = nbytes


class _Refused(asyncio.Protocol):
    """A connection beyond the bound."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Connection(web.RequestHandler):
    """aiohttp's connection, with a bound for the whole head and errors like all others."""

    head_bytes = 0
    _refusing = False

    def data_received(self, data: bytes) -> None:
        """Take bytes; after a refusal they are dropped, so that the client can read its answer."""
        self.head_bytes += len(data)
        if self._refusing:
            return
        if self.head_bytes > _MOST_HEAD_BYTES and isinstance(self.transport, asyncio.Transport):
            self._refusing = True
            self.transport.write(_too_large())
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.transport.close)
            return
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # aiohttp passes it
    ) -> web.StreamResponse:
        """Answer what is no HTTP, or too large, without a line in the log for each."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already")
        self._refusing = True
        if isinstance(exc, LineTooLong):
            return _last_words(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "a header is larger than 8 KB")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("a request could not be answered", exc_info=exc)
        return _last_words(status, "")


class _LastResponse(web.Response):
    """An answer after which the client may go on sending for a moment without breaking it."""

    async def write_eof(self, data: bytes = b"") -> None:
        await super().write_eof(data)
        await asyncio.sleep(_LINGER_SECONDS)


def begin_request(request: web.Request) -> None:
    """Let a connection's next head be counted from nothing."""
    if isinstance(request.protocol, _Connection):
        request.protocol.head_bytes = 0


def _last_words(status: int, detail: str) -> web.StreamResponse:
    plain = problem(status, detail)
    response = _LastResponse(status=status, body=plain.body, headers={**SECURITY_HEADERS})
    response.content_type = plain.content_type
    response.force_close()
    return response


def _too_large() -> bytes:
    """Give the answer to a head that is not even read to its end, as bytes."""
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    plain = problem(status, "the headers are larger than 64 KB together")
    assert isinstance(plain.body, bytes)
    headers = {
        **SECURITY_HEADERS,
        "Content-Type": plain.headers["Content-Type"],
        "Content-Length": str(len(plain.body)),
        "Connection": "close",
    }
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *(f"{name}: {text}" for name, text in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + plain.body


def _most_connections() -> int:
    """Give how many connections may be open; most of what the system allows is for controllers."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, soft // 3)

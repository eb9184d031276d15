"""Server-sent events: each point to everybody who looks on, without waiting for anyone.

Takes points as they are made, gives each client the same bytes, encoded once. Never holds more than a
few of them for a client: one that does not read is disconnected, and counted.

    publish ─► gathered (a tenth of a second) ─► one chunk a site ─► a short queue a client ─► socket
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiohttp import web

from recorder.points.point import Point
from recorder.web.live import Live, point_of, text_of

MOST_CLIENTS: Final = 256
_GATHER_SECONDS: Final = 0.1
_BEAT_SECONDS: Final = 5.0
_QUEUED_CHUNKS: Final = 64
# A burst beyond it, as a stream that was held up brings one, is told by its newest points.
_GATHERED_POINTS: Final = 5000
_RETRY: Final = b"retry: 2000\n\n"


class _Client:
    """One who looks on: the site that it asked for, and what waits for it."""

    def __init__(self, site: str | None, request: web.Request) -> None:
        self.site = site
        self.request = request
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED_CHUNKS)

    def send(self, chunk: bytes | None) -> bool:
        """Queue a chunk, None to end; False where the client has not read for too long."""
        try:
            self.chunks.put_nowait(chunk)
        except asyncio.QueueFull:
            return False
        return True


class EventHub:
    """Gives points and the state of health to every client.

    Args:
        live: the newest points, for a client that begins.
        health: gives the data of a `health` event.
    """

    def __init__(self, live: Live, health: Callable[[], dict[str, Any]]) -> None:
        self._live = live
        self._health = health
        self._clients: set[_Client] = set()
        self._gathered: deque[Point] = deque(maxlen=_GATHERED_POINTS)
        self._sending: asyncio.TimerHandle | None = None
        self._beating: asyncio.TimerHandle | None = None
        self._closed = False
        self.dropped = 0

    @property
    def clients(self) -> int:
        """How many look on."""
        return len(self._clients)

    def publish(self, samples: Sequence[Point]) -> None:
        """Take points, and send them soon; needs a running event loop. Cheap where nobody looks on."""
        if not self._clients or not samples:
            return
        self._gathered.extend(samples)
        if self._sending is None:
            self._sending = asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._send)

    async def stream(self, request: web.Request, site: str | None) -> web.StreamResponse:
        """Answer one client until it goes, reads too slowly, or the recorder stops.

        Raises:
            HTTPServiceUnavailable: too many look on already.
        """
        if self._closed or len(self._clients) >= MOST_CLIENTS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_CLIENTS} event streams are open; try again later")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        client = _Client(site, request)
        # What was gathered is among the newest points, which the client gets at once.
        self._send()
        known = [_event("point", point) for point in self._live.points(site)]
        client.send(b"".join([_RETRY, *known, _event("health", self._health())]))
        self._clients.add(client)
        self._keep_beating()
        try:
            while (chunk := await client.chunks.get()) is not None:
                await response.write(chunk)
        except ConnectionError:
            # It went, or was dropped: either way there is nobody to tell.
            pass
        finally:
            self._clients.discard(client)
        return response

    def close(self) -> None:
        """Tell what was gathered, and end every stream."""
        self._closed = True
        self._send()
        if self._beating is not None:
            self._beating.cancel()
        for client in tuple(self._clients):
            if not client.send(None):
                self._drop(client)

    def _send(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        by_site: defaultdict[str, list[bytes]] = defaultdict(list)
        while self._gathered:
            point = point_of(self._gathered.popleft())
            by_site[point["site"]].append(_event("point", point))
        chunks = {site: b"".join(events) for site, events in by_site.items()}
        everything = b"".join(chunks.values())
        for client in tuple(self._clients):
            chunk = everything if client.site is None else chunks.get(client.site)
            if chunk and not client.send(chunk):
                self._drop(client)

    def _keep_beating(self) -> None:
        if self._beating is None:
            self._beating = asyncio.get_running_loop().call_later(_BEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        self._beating = None
        self.beat()
        if self._clients:
            self._keep_beating()

    def beat(self) -> None:
        """Tell every client the time and the state of health."""
        chunk = _event("health", self._health())
        for client in tuple(self._clients):
            if not client.send(chunk):
                self._drop(client)

    def _drop(self, client: _Client) -> None:
        self.dropped += 1
        self._clients.discard(client)
        if client.request.transport is not None:
            client.request.transport.abort()


def _event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {text_of(data)}\n\n".encode()

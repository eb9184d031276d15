"""TCP listeners for streams of strace text.

Takes connections from allowed addresses with a site, gives their bytes to a `StreamHandler` each. Never waits
for what is behind the handler, and never looks into the text.
"""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import structlog

from recorder.logs import SeldomLog
from recorder.sources.sites import Network, SiteMap
from recorder.sources.stream import StreamHandler

_READ_CHECKS_PER_IDLE_PERIOD: Final = 4
# Under a flood many wait in the kernel, and few are taken at a time: file descriptors must not run out.
_BACKLOG: Final = 1024
_ACCEPTED_AT_A_TIME: Final = 8
# So much of one stream is decoded before the others have their turn.
_READ_BYTES: Final = 64 << 10
# What is counted: connections, but for the last, which counts pauses.
_OUTCOMES: Final = ("accepted", "refused_address", "refused_site", "refused_full", "hung_up", "throttled")
_KEEPALIVE_OPTIONS: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """Where a listener listens, whom it serves, and when it hangs up.

    `port` 0 takes any free one. A connection without a byte for `idle_close_seconds` is closed, and one
    without a valid frame after `first_frame_within_seconds`. One that sends more than
    `max_bytes_per_second` is read at that pace; a home sends 4 KB/s. With `reuse_port` other processes
    may listen on the same port, and the kernel shares connections out among them. An address without a
    site in `sites` is refused.
    """

    name: str
    bind: str
    port: int
    allow: Sequence[Network]
    max_connections: int
    idle_close_seconds: float
    first_frame_within_seconds: float
    max_bytes_per_second: int
    sites: SiteMap
    reuse_port: bool = False


class StraceTcpListener:
    """Accepts many streams at once on one port.

    At `max_connections`, a connection that has brought no valid frame gives way to a new one: of the
    address that has most of those, the one that has been silent for longest. So a flood displaces
    itself, and neither a controller that streams nor one that comes again. Where all are useful the new
    one is refused.

    `counts` tells how many connections were accepted, refused (for their address, for want of a site, or
    because all places were taken) and hung up on, and how often one was throttled: a pause each time.

    Args:
        options: see `ListenerOptions`.
        open_stream: called with the stream's site and the sender's address for each accepted connection.
    """

    def __init__(self, options: ListenerOptions, open_stream: Callable[[str, str], StreamHandler]) -> None:
        self.options = options
        self.counts = Counter(dict.fromkeys(_OUTCOMES, 0))
        self.port = options.port
        self._open_stream = open_stream
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self.say = SeldomLog(log.info, time.monotonic)
        # One for all connections: what was read is copied out before the next read.
        self.buffer = memoryview(bytearray(_READ_BYTES))

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be bound.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self),
            self.options.bind,
            self.options.port,
            backlog=_ACCEPTED_AT_A_TIME,
            reuse_port=self.options.reuse_port,
        )
        for listening in self._server.sockets:
            with listening.dup() as twin:
                twin.listen(_BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]
        log.info("listening", listener=self.options.name, bind=self.options.bind, port=self.port)

    async def close(self) -> None:
        """Stop listening and hang up on every connection."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.hang_up("shut down")
        await asyncio.sleep(0)

    def admit(self, connection: "_Connection", address: str) -> StreamHandler | None:
        """Decide on a new connection: a handler for its bytes, or None where it is refused."""
        peer = ip_address(address.partition("%")[0])
        peer = getattr(peer, "ipv4_mapped", None) or peer
        if not any(peer in network for network in self.options.allow):
            self.counts["refused_address"] += 1
            self.say(
                "connection refused: its address is not in the listener's allow list",
                listener=self.options.name,
                peer=address,
            )
            return None
        site = self.options.sites.site_of(peer)
        if site is None:
            self.counts["refused_site"] += 1
            self.say(
                "connection refused: its address has no site in the listener's sites",
                listener=self.options.name,
                peer=address,
            )
            return None
        if len(self._connections) >= self.options.max_connections and not self._make_room(address):
            self.counts["refused_full"] += 1
            self.say("connection refused: max_connections reached", listener=self.options.name, peer=address)
            return None
        self.counts["accepted"] += 1
        self._connections.add(connection)
        self.say("stream opened", listener=self.options.name, peer=address)
        return self._open_stream(site, address)

    def forget(self, connection: "_Connection") -> None:
        """Learn that a connection is gone."""
        self._connections.discard(connection)

    def _make_room(self, newcomer: str) -> bool:
        idlers = [connection for connection in self._connections if not connection.useful]
        if not idlers:
            return False
        held = Counter(connection.address for connection in idlers)
        held[newcomer] += 1
        idlest = min(idlers, key=lambda idler: (-held[idler.address], idler.last_read))
        idlest.hang_up("made room for a newer connection")
        return True


class _Connection(asyncio.BufferedProtocol):
    """One accepted connection."""

    def __init__(self, listener: StraceTcpListener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._handler: StreamHandler | None = None
        self._idle_check: asyncio.TimerHandle | None = None
        self._hung_up_for = ""
        self.address = ""
        self.last_read = 0.0
        self._opened_at = 0.0
        # How many bytes may be read at once now; it fills up again with time.
        self._allowance = 0.0

    @property
    def useful(self) -> bool:
        return self._handler is not None and self._handler.useful

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.address = transport.get_extra_info("peername", ("0.0.0.0",))[0]  # noqa: S104
        self._handler = self._listener.admit(self, self.address)
        if self._handler is None:
            self._transport.abort()
            return
        connected = transport.get_extra_info("socket")
        for level, option, value in _KEEPALIVE_OPTIONS:
            connected.setsockopt(level, option, value)
        self._opened_at = self.last_read = asyncio.get_running_loop().time()
        self._allowance = self._listener.options.max_bytes_per_second
        self._check_idle()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the caller's guess
        return self._listener.buffer

    def buffer_updated(self, nbytes: int) -> None:
        now = asyncio.get_running_loop().time()
        self._throttle(nbytes, now - self.last_read)
        self.last_read = now
        if self._handler is not None:
            self._handler.feed(bytes(self._listener.buffer[:nbytes]), time.time_ns())

    def _throttle(self, received: int, seconds: float) -> None:
        """Leave what comes too fast in the kernel for a while, so that other streams keep their turn."""
        rate = self._listener.options.max_bytes_per_second
        self._allowance = min(rate, self._allowance + seconds * rate) - received
        if self._allowance < 0 and self._transport is not None:
            self._listener.counts["throttled"] += 1
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(-self._allowance / rate, self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.forget(self)
        if self._idle_check is not None:
            self._idle_check.cancel()
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.finish()
            self._listener.say(
                "stream closed",
                listener=self._listener.options.name,
                peer=self.address,
                reason=self._hung_up_for or (str(exc) if exc else "ended by the sender"),
            )

    def hang_up(self, reason: str) -> None:
        self._hung_up_for = reason
        self._listener.counts["hung_up"] += 1
        self._listener.forget(self)
        if self._transport is not None:
            self._transport.abort()

    def _check_idle(self) -> None:
        loop = asyncio.get_running_loop()
        options = self._listener.options
        idle_left = options.idle_close_seconds - (loop.time() - self.last_read)
        frame_left = options.first_frame_within_seconds - (loop.time() - self._opened_at)
        if idle_left <= 0:
            self.hang_up(f"no byte for {options.idle_close_seconds:g} s")
        elif frame_left <= 0 and not self.useful:
            self.hang_up(f"no valid frame within {options.first_frame_within_seconds:g} s")
        else:
            longest = options.idle_close_seconds / _READ_CHECKS_PER_IDLE_PERIOD
            wait_seconds = min(idle_left, longest) if self.useful else min(idle_left, longest, frame_left)
            self._idle_check = loop.call_later(wait_seconds, self._check_idle)

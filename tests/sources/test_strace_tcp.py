"""The TCP listener, with real sockets: who is served, who is not, and when it hangs up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_network

import pytest

from recorder.sources.sites import Network, SiteMap
from recorder.sources.strace_tcp import ListenerOptions, StraceTcpListener
from tests.support.influxd import TIMEOUT_SECONDS, until

LOOPBACK = ip_network("127.0.0.0/8")
HOME = SiteMap({}, "home")


class Recording:
    """A handler that keeps what it was fed."""

    def __init__(self, site: str, _address: str = "") -> None:
        self.site = site
        self.text = b""
        self.finished = 0
        self.times_ns: list[int] = []

    @property
    def useful(self) -> bool:
        return b"frame" in self.text

    def feed(self, chunk: bytes, received_at_ns: int) -> None:
        self.text += chunk
        self.times_ns.append(received_at_ns)

    def finish(self) -> None:
        self.finished += 1


@asynccontextmanager
async def listening(
    *,
    max_connections: int = 8,
    idle_close_seconds: float = 3600.0,
    allow: str = "127.0.0.0/8",
    first_frame_within_seconds: float = 3600.0,
    max_bytes_per_second: int = 1 << 20,
    reuse_port: bool = False,
    sites: dict[Network, str] | None = None,
) -> AsyncIterator[tuple[StraceTcpListener, list[Recording]]]:
    opened: list[Recording] = []

    def open_stream(site: str, _address: str) -> Recording:
        opened.append(Recording(site))
        return opened[-1]

    options = ListenerOptions(
        "pcs",
        "127.0.0.1",
        0,
        (ip_network(allow),),
        max_connections,
        idle_close_seconds,
        first_frame_within_seconds,
        max_bytes_per_second,
        SiteMap(sites or {}, None if sites else "home"),
        reuse_port,
    )
    listener = StraceTcpListener(options, open_stream)
    await listener.start()
    try:
        yield listener, opened
    finally:
        await listener.close()
        await until(lambda: listener.connections == 0)
        while clients:
            _, writer = clients.pop()
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


clients: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []


async def connect(
    listener: StraceTcpListener, source: str = "127.0.0.1"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    clients.append(await asyncio.open_connection("127.0.0.1", listener.port, local_addr=(source, 0)))
    return clients[-1]


async def test_each_connection_is_a_stream_of_its_own() -> None:
    """Bytes of two connections at once reach two handlers, in order, and each ends once."""
    async with listening() as (listener, opened):
        writers = [(await connect(listener))[1] for _ in range(2)]
        for number, writer in enumerate(writers):
            writer.write(b"hello %d" % number)
        await until(lambda: len(opened) == 2 and all(len(stream.text) == 7 for stream in opened))
        for writer in writers:
            writer.close()
        await until(lambda: all(stream.finished for stream in opened))
        assert sorted(stream.text for stream in opened) == [b"hello 0", b"hello 1"]
        assert [stream.finished for stream in opened] == [1, 1]
        assert listener.connections == 0


async def test_what_never_happened_is_counted_as_0() -> None:
    """From the start on each count is there, so that its first rise shows as one."""
    async with listening() as (listener, _):
        assert dict(listener.counts) == {
            "accepted": 0,
            "refused_address": 0,
            "refused_site": 0,
            "refused_full": 0,
            "hung_up": 0,
            "throttled": 0,
        }


async def test_reconnect_is_taken_at_once() -> None:
    """A controller that comes back while its old connection still hangs gets a new stream."""
    async with listening() as (listener, opened):
        _, old = await connect(listener)
        old.write(b"old")
        _, new = await connect(listener)
        new.write(b"new")
        await until(lambda: [stream.text for stream in opened] == [b"old", b"new"])


async def test_silent_connection_is_closed() -> None:
    """A connection without a byte for the idle time is hung up, and its stream ends."""
    async with listening(idle_close_seconds=0.2) as (listener, opened):
        reader, _ = await connect(listener)
        assert await asyncio.wait_for(reader.read(), TIMEOUT_SECONDS) == b""
        await until(lambda: bool(opened) and opened[0].finished == 1)
        assert listener.counts["hung_up"] == 1


async def test_address_that_is_not_allowed_is_refused() -> None:
    """A peer outside the allow list is closed before a byte of it is read."""
    async with listening(allow="192.0.2.0/24") as (listener, opened):
        reader, _ = await connect(listener)
        assert await asyncio.wait_for(reader.read(), TIMEOUT_SECONDS) == b""
        assert opened == []
        assert listener.counts["refused_address"] == 1


async def test_address_tells_the_site() -> None:
    """Streams from different addresses belong to different sites, on one port."""
    sites: dict[Network, str] = {ip_network("127.0.0.2"): "north", ip_network("127.0.0.0/24"): "south"}
    async with listening(sites=sites) as (listener, opened):
        for source in ("127.0.0.2", "127.0.0.3"):
            await connect(listener, source)
        await until(lambda: len(opened) == 2)
        assert [stream.site for stream in opened] == ["north", "south"]


async def test_address_without_a_site_is_refused() -> None:
    """A peer that no entry of `sites` holds is closed before a byte is read, and counted."""
    async with listening(sites={ip_network("127.0.0.2"): "north"}) as (listener, opened):
        reader, _ = await connect(listener)
        assert await asyncio.wait_for(reader.read(), TIMEOUT_SECONDS) == b""
        assert opened == []
        assert listener.counts["refused_site"] == 1


async def test_two_listeners_share_a_port_where_both_say_so() -> None:
    """With reuse_port a second listener takes the port too; without, it is an error as before."""
    async with listening(reuse_port=True) as (listener, _):
        shared = replace(listener.options, port=listener.port)
        second = StraceTcpListener(shared, Recording)
        await second.start()
        await second.close()
        with pytest.raises(OSError, match="in use"):
            await StraceTcpListener(replace(shared, reuse_port=False), Recording).start()


async def test_useful_connection_is_kept_when_all_places_are_taken() -> None:
    """At the limit a connection without a frame makes room, and one with frames stays."""
    async with listening(max_connections=2) as (listener, opened):
        _, controller = await connect(listener)
        controller.write(b"frame")
        await until(lambda: bool(opened) and opened[0].useful)
        for _ in range(5):
            await connect(listener)
        await until(lambda: listener.counts["accepted"] == 6)
        assert opened[0].finished == 0
        assert listener.connections == 2


async def test_flood_displaces_itself() -> None:
    """A controller that has not sent a frame yet keeps its place under a flood from another address."""
    async with listening(max_connections=3) as (listener, opened):
        _, controller = await connect(listener)
        await until(lambda: len(opened) == 1)
        for _ in range(12):
            await connect(listener, "127.0.0.2")
        await until(lambda: listener.counts["accepted"] == 13)
        controller.write(b"frame")
        await until(lambda: opened[0].useful)
        assert opened[0].finished == 0
        assert listener.connections == 3


async def test_new_connection_is_refused_when_all_are_useful() -> None:
    """Where every place brings frames, one more is turned away and the others go on."""
    async with listening(max_connections=1) as (listener, opened):
        _, controller = await connect(listener)
        controller.write(b"frame")
        await until(lambda: bool(opened) and opened[0].useful)
        reader, _ = await connect(listener)
        assert await asyncio.wait_for(reader.read(), TIMEOUT_SECONDS) == b""
        assert listener.counts["refused_full"] == 1
        assert opened[0].finished == 0
        controller.close()


async def test_loss_of_a_taken_port_is_an_error() -> None:
    """Two listeners cannot have one port: the second says so."""
    async with listening() as (listener, _):
        options = ListenerOptions("other", "127.0.0.1", listener.port, (LOOPBACK,), 1, 1.0, 1.0, 65536, HOME)
        with pytest.raises(OSError, match="in use"):
            await StraceTcpListener(options, Recording).start()


async def test_connection_without_a_frame_is_closed() -> None:
    """One that sends bytes and never a valid frame is hung up; one with frames stays."""
    async with listening(first_frame_within_seconds=3.0) as (listener, opened):
        _, controller = await connect(listener)
        controller.write(b"frame")
        await until(lambda: bool(opened) and opened[0].useful)
        reader, _ = await connect(listener)
        assert await asyncio.wait_for(reader.read(), TIMEOUT_SECONDS) == b""
        assert opened[0].finished == 0


async def test_stream_that_comes_too_fast_is_read_at_its_pace_and_wholly() -> None:
    """Beyond the allowed bytes a second it waits in the kernel, and nothing of it is lost."""
    async with listening(max_bytes_per_second=1 << 20) as (listener, opened):
        _, writer = await connect(listener)
        sent = bytes(range(256)) * (3 << 12)
        began = asyncio.get_running_loop().time()
        writer.write(sent)
        await until(lambda: bool(opened) and len(opened[0].text) == len(sent))
        # 3 MiB at 1 MiB/s, of which the first is allowed at once.
        assert asyncio.get_running_loop().time() - began > 1.5
        assert opened[0].text == sent
        assert listener.counts["throttled"] > 0

"""Streaming to a real receiver: paced, complete, and back again after a break."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from recorder.simulator.drive import Pace, Progress, Receiver, make_sites, simulate
from recorder.simulator.faults import FaultRates
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import StreamSecond
from tests.support.influxd import until

START = 1_718_960_000


@dataclass
class _Sink:
    """A TCP server that keeps what each connection sent."""

    port: int = 0
    received: list[bytearray] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    ended: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = bytearray()
        self.received.append(text)
        self.writers.append(writer)
        with suppress(ConnectionError):
            while chunk := await reader.read(65536):
                text += chunk
        self.ended += 1
        writer.close()

    @property
    def text(self) -> bytes:
        return b"".join(self.received)


@asynccontextmanager
async def _sink(port: int = 0) -> AsyncIterator[_Sink]:
    sink = _Sink()
    server = await asyncio.start_server(sink.serve, "127.0.0.1", port)
    sink.port = server.sockets[0].getsockname()[1]
    try:
        yield sink
    finally:
        server.close()
        for writer in sink.writers:
            writer.transport.abort()
        await server.wait_closed()


class _Record:
    """What was reported of each second."""

    def __init__(self) -> None:
        self.seconds: list[tuple[int, StreamSecond, bool]] = []

    def __call__(self, site: int, second: StreamSecond, sent: bool) -> None:
        self.seconds.append((site, second, sent))


async def test_both_processes_go_through_one_connection() -> None:
    """Flat out, the receiver gets exactly the text of every second, in order."""
    record, progress = _Record(), Progress()
    sites = make_sites([1], START, DIALECTS["capture"], FaultRates(), both=True)
    async with _sink() as sink:
        await simulate(Receiver("127.0.0.1", (sink.port,)), sites, Pace(0, 50), progress, record)
        await until(lambda: sink.ended == 1)
    assert sink.text == b"".join(second.texts[0] for _, second, _ in record.seconds)
    assert (progress.seconds, progress.seconds_lost, progress.connections) == (50, 0, 1)
    assert progress.bytes_sent == len(sink.text)


async def test_each_process_has_a_connection_of_its_own() -> None:
    """Separate streams go to the two ports, the PCS to the first."""
    record = _Record()
    sites = make_sites([1], START, DIALECTS["capture"], FaultRates(), both=False)
    async with _sink() as pcs, _sink() as meter:
        receiver = Receiver("127.0.0.1", (pcs.port, meter.port))
        await simulate(receiver, sites, Pace(0, 20), Progress(), record)
        await until(lambda: pcs.ended == meter.ended == 1)
    assert pcs.text == b"".join(second.texts[0] for _, second, _ in record.seconds)
    assert meter.text == b"".join(second.texts[1] for _, second, _ in record.seconds)


async def test_sites_are_streamed_side_by_side() -> None:
    """Each of three homes has its own connection and its own plant."""
    record = _Record()
    sites = make_sites([1, 2, 3], START, DIALECTS["capture"], FaultRates(), both=True)
    async with _sink() as sink:
        await simulate(Receiver("127.0.0.1", (sink.port,)), sites, Pace(0, 10), Progress(), record)
        await until(lambda: sink.ended == 3)
    assert len({bytes(text) for text in sink.received}) == 3
    assert sorted(site for site, _, _ in record.seconds) == [0] * 10 + [1] * 10 + [2] * 10


async def test_speed_sets_the_pace() -> None:
    """At speed 50, ten seconds take at least nine fiftieths of a second."""
    loop = asyncio.get_running_loop()
    sites = make_sites([1], START, DIALECTS["capture"], FaultRates(), both=True)
    async with _sink() as sink:
        began = loop.time()
        await simulate(Receiver("127.0.0.1", (sink.port,)), sites, Pace(50, 10), Progress(), _Record())
        assert loop.time() - began >= 9 / 50


async def test_a_receiver_that_comes_back_is_found_again() -> None:
    """Seconds without a receiver are lost and counted; later ones arrive, whole, on a new connection."""
    record, progress = _Record(), Progress()
    sites = make_sites([1], START, DIALECTS["capture"], FaultRates(), both=True)
    async with _sink() as first:
        port = first.port
        pace = Pace(100, None)
        driving = asyncio.create_task(simulate(Receiver("127.0.0.1", (port,)), sites, pace, progress, record))
        await until(lambda: first.text)
    await until(lambda: progress.seconds_lost > 3)
    assert f"127.0.0.1:{port}" in progress.problem
    async with _sink(port) as second:
        await until(lambda: len(second.text) > 20_000)
        driving.cancel()
        await asyncio.wait([driving])
        await until(lambda: second.ended == 1)
    sent = b"".join(text.texts[0] for _, text, sent in record.seconds if sent)
    # The second at which it was cancelled was not yet reported.
    assert bytes(second.received[0][:20_000]) in sent
    assert progress.problem == ""


async def test_a_patient_stream_loses_nothing() -> None:
    """Flat out, the stream waits for a receiver that is not there yet."""
    async with _sink() as taken:
        port = taken.port
    progress = Progress()
    sites = make_sites([1], START, DIALECTS["capture"], FaultRates(), both=True)
    receiver = Receiver("127.0.0.1", (port,))
    driving = asyncio.create_task(simulate(receiver, sites, Pace(0, 5), progress, _Record()))
    await until(lambda: progress.problem)
    async with _sink(port) as sink:
        await driving
        await until(lambda: sink.ended == 1)
        assert (progress.seconds_lost, len(sink.text)) == (0, progress.bytes_sent)


async def test_a_torn_line_breaks_the_connection() -> None:
    """What stands before the tear ends one connection, the rest begins another."""
    record = _Record()
    sites = make_sites([3], START, DIALECTS["capture"], FaultRates({"torn": 1.0}), both=True)
    async with _sink() as sink:
        await simulate(Receiver("127.0.0.1", (sink.port,)), sites, Pace(0, 3), Progress(), record)
        await until(lambda: sink.ended == 4)
    first, *_ = record.seconds
    assert bytes(sink.received[0]) == first[1].texts[0][: first[1].tears[0][0]]
    assert sink.text == b"".join(second.texts[0] for _, second, _ in record.seconds)


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
async def test_an_unreachable_receiver_is_named(host: str) -> None:
    """The problem says which address, why, and what to look at."""
    async with _sink() as gone:
        port = gone.port
    progress = Progress()
    sites = make_sites([1], START, DIALECTS["capture"], FaultRates(), both=True)
    await simulate(Receiver(host, (port,)), sites, Pace(100, 2), progress, _Record())
    assert progress.seconds_lost == 2
    assert progress.problem.startswith(f"cannot reach {host}:{port} (")
    assert progress.problem.endswith("is the receiver running?")

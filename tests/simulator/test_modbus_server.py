"""The plant on a pseudo-terminal, polled by a real Modbus master."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pymodbus.client import AsyncModbusSerialClient
from pymodbus.framer import FramerType

from recorder.simulator.modbus_server import Answer, ServedPlant, serve_plant_on_pty
from recorder.simulator.plant import Plant
from recorder.simulator.registers import METER_SCAN, METER_VALUES, PCS_ADDRESS, pcs_registers
from tests.support.influxd import TIMEOUT_SECONDS

START = 1_718_970_000
NOW_NS = START * 10**9


@asynccontextmanager
async def _polled(plant: Plant) -> AsyncIterator[tuple[AsyncModbusSerialClient, ServedPlant]]:
    with serve_plant_on_pty(lambda: plant.state, lambda: NOW_NS) as served:
        client = AsyncModbusSerialClient(
            served.path, framer=FramerType.RTU, baudrate=9600, timeout=TIMEOUT_SECONDS, retries=0
        )
        assert await client.connect()
        try:
            yield client, served
        finally:
            client.close()


async def _read(client: AsyncModbusSerialClient, address: int, count: int) -> bytes:
    answer = await client.read_holding_registers(address, count=count, device_id=1)
    assert not answer.isError()
    return b"".join(word.to_bytes(2) for word in answer.registers)


async def test_a_master_reads_the_pcs() -> None:
    """All 92 registers come in one answer and are those of the plant."""
    plant = Plant(1, START)
    async with _polled(plant) as (client, _):
        assert await _read(client, PCS_ADDRESS, 92) == pcs_registers(plant.state)


async def test_a_master_reads_the_meter() -> None:
    """Each of the meter's values is read under its own address."""
    plant = Plant(1, START)
    async with _polled(plant) as (client, _):
        for value in METER_VALUES:
            assert await _read(client, value.address, value.words) == value.encode(plant.state)


async def test_answers_follow_the_plant_and_are_recorded() -> None:
    """What was answered, and when, is the truth: one record a request, in order."""
    plant = Plant(1, START)
    async with _polled(plant) as (client, served):
        before = await _read(client, PCS_ADDRESS, 92)
        plant.advance(1)
        after = await _read(client, PCS_ADDRESS, 92)
    assert before != after
    assert served.answers == [Answer(NOW_NS, PCS_ADDRESS, before), Answer(NOW_NS, PCS_ADDRESS, after)]


async def test_an_unknown_register_is_refused() -> None:
    """The master gets "illegal data address", and nothing is recorded."""
    async with _polled(Plant(1, START)) as (client, served):
        answer = await client.read_holding_registers(0x1000, count=2, device_id=1)
    assert (answer.isError(), answer.exception_code, served.answers) == (True, 2, [])


async def test_another_function_is_refused() -> None:
    """A device of this kind has no coils: "illegal function"."""
    async with _polled(Plant(1, START)) as (client, _):
        answer = await client.read_coils(PCS_ADDRESS, count=1, device_id=1)
    assert (answer.isError(), answer.exception_code) == (True, 1)


async def test_garbage_and_other_units_get_no_answer() -> None:
    """After noise and a request to another unit, the next request is answered."""
    plant = Plant(1, START)
    async with _polled(plant) as (client, served):
        assert client.ctx.transport is not None
        client.ctx.transport.write(b"\xff\x00\x17noise")  # type: ignore[attr-defined]
        frequency = METER_SCAN[-1]
        while not served.answers:
            client.ctx.comm_params.timeout_connect = 0.2
            try:
                await _read(client, frequency.address, frequency.words)
            except Exception:  # noqa: BLE001 - a time-out is the device's silence
                continue
    assert {answer.address for answer in served.answers} == {frequency.address}

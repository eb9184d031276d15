"""What the writer does about each answer, on real servers where they can be brought to give it."""

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recorder.influx.dead_letters import DeadLetters
from recorder.influx.writer import Hooks, WriterSettings, WriterState
from tests.influx.misfit import misfit
from tests.influx.plant import set_up
from tests.influx.writer_rig import Rig, running, stored
from tests.support.influxd import Influxd, until


@pytest.fixture
def influxd(tmp_path: Path) -> Iterator[Influxd]:
    """A server with an empty database `ess`."""
    with Influxd(tmp_path) as server:
        server.query("CREATE DATABASE ess")
        yield server


async def test_type_conflict_in_5000_points_costs_three_requests(influxd: Influxd, tmp_path: Path) -> None:
    """Of 5,000 points 4,999 are written, the conflicting one is a dead letter with its reason."""
    influxd.write(b"m f=0.0 0", "ess")
    dead_letters = DeadLetters(tmp_path / "dead", lambda: datetime(2026, 6, 18, 11, tzinfo=UTC))
    settings = WriterSettings(batch_points=5000, flush_after_seconds=0.05)
    async with running(Rig(influxd.url, settings, Hooks(on_rejected=dead_letters.add))) as rig:
        lines = [b"m f=%d.0 %d" % (number, number) for number in range(1, 5000)]
        lines.insert(3777, b"m f=1i 5000")
        rig.queue.append(lines)
        await rig.until_empty()
        assert (rig.writer.counters.written, rig.writer.counters.rejected) == (4999, 1)
        assert rig.queue.depth().rejected == 1
        assert rig.server.writes == [5000, 1, 4999]
    assert stored(influxd) == [float(number) for number in range(5000)]
    (file,) = dead_letters.take()
    letter = json.loads(file.read_text())
    assert letter["line"] == "m f=1i 5000"
    assert letter["rejected_at"] == "2026-06-18T11:00:00Z"
    assert 'input field "f" on measurement "m" is type integer' in letter["reason"]


async def test_field_that_conflicts_in_all_its_points_is_told_from_the_others(influxd: Influxd) -> None:
    """Every third of 3,000 points conflicts with what another program wrote: at most four requests."""
    influxd.write(b"other,site=a f=0i 0", "ess")
    async with running(Rig(influxd.url, WriterSettings(flush_after_seconds=0.05))) as rig:
        good = [b"m f=%d.0 %d" % (number, number) for number in range(2000)]
        bad = [b"other,site=a g=1.0,f=%d.5 %d" % (number, number) for number in range(1000)]
        rig.queue.append([line for at in range(1000) for line in (good[2 * at], bad[at], good[2 * at + 1])])
        await rig.until_empty()
        assert (rig.writer.counters.written, rig.writer.counters.rejected) == (2000, 1000)
        assert len(rig.server.writes) <= 4


async def test_parse_error_and_conflict_in_one_batch_are_both_found(influxd: Influxd) -> None:
    """Two different faults among 5,000 points reject two lines, with the reason of each, in five requests."""
    influxd.write(b"m f=0.0 0", "ess")
    reasons: dict[bytes, str] = {}
    hooks = Hooks(on_rejected=lambda lines, why: reasons.update(zip(lines, why, strict=True)))
    async with running(Rig(influxd.url, WriterSettings(flush_after_seconds=0.05), hooks)) as rig:
        lines = [b"m f=%d.0 %d" % (number, number) for number in range(1, 4999)]
        lines.insert(70, b"this is no line")
        lines.insert(4000, b"m f=3i 3")
        rig.queue.append(lines)
        await rig.until_empty()
        assert (rig.writer.counters.written, rig.writer.counters.rejected) == (4998, 2)
        assert len(rig.server.writes) <= 5
    assert stored(influxd) == [float(number) for number in range(4999)]
    assert "unable to parse" in reasons[b"this is no line"]
    assert "type conflict" in reasons[b"m f=3i 3"]


async def test_points_beyond_retention_among_others_are_found_by_their_number(influxd: Influxd) -> None:
    """The old points of a batch are rejected, the others written, in three requests."""
    influxd.query("ALTER RETENTION POLICY autogen ON ess DURATION 1h SHARD DURATION 1h")
    now_ns = time.time_ns()
    async with running(Rig(influxd.url, WriterSettings(flush_after_seconds=0.05))) as rig:
        recent = [b"m f=1.0 %d" % (now_ns + number) for number in range(300)]
        rig.queue.append([*recent[:100], *(b"m f=2.0 %d" % number for number in range(50)), *recent[100:]])
        await rig.until_empty()
        assert (rig.writer.counters.written, rig.writer.counters.rejected) == (300, 50)
        assert len(rig.server.writes) == 3
    assert len(stored(influxd)) == 300


async def test_points_beyond_retention_are_counted_in_one_request(influxd: Influxd) -> None:
    """A whole batch that is too old is rejected without halving it."""
    influxd.query("ALTER RETENTION POLICY autogen ON ess DURATION 1h SHARD DURATION 1h")
    async with running(Rig(influxd.url)) as rig:
        rig.append(1, 80)
        await rig.until_empty()
        assert rig.writer.counters.rejected == 80
        assert len(rig.server.writes) <= 8


async def test_too_large_body_is_halved(tmp_path: Path) -> None:
    """A server that takes 1 KB at once gets everything in small pieces."""
    with Influxd(tmp_path, sections={"http": {"max-body-size": "1000"}}) as influxd:
        influxd.query("CREATE DATABASE ess")
        async with running(Rig(influxd.url)) as rig:
            rig.append(1, 100)
            await rig.until_empty()
            assert rig.writer.counters.rejected == 0
        assert stored(influxd) == [float(number) for number in range(1, 101)]


async def test_wrong_password_pauses_until_it_is_right(tmp_path: Path) -> None:
    """With a wrong password everything is kept, the remedy is named, and the right one resumes."""
    with Influxd(tmp_path, auth=True) as influxd:
        influxd.create_admin("admin", "root")
        influxd.query("CREATE DATABASE ess")
        influxd.query("CREATE USER recorder WITH PASSWORD 'other' WITH ALL PRIVILEGES")
        async with running(Rig(influxd.url, username="recorder", password="secret")) as rig:
            rig.append(1, 100)
            await until(lambda: rig.writer.state is WriterState.PAUSED)
            assert "password" in rig.writer.remedy
            assert rig.queue.depth().points == 100
            influxd.query("SET PASSWORD FOR recorder = 'secret'")
            await rig.until_empty()
            assert (rig.writer.state, rig.writer.remedy) == (WriterState.WRITING, "")
        assert len(stored(influxd)) == 100


async def test_dropped_database_is_created_where_that_is_allowed(influxd: Influxd) -> None:
    """DROP DATABASE while writing costs no point that was still in the queue."""
    async with running(Rig(influxd.url, hooks=Hooks(lambda: set_up(influxd).apply()))) as rig:
        rig.append(1, 50)
        await rig.until_empty()
        influxd.query("DROP DATABASE ess")
        rig.append(51, 50)
        await rig.until_empty()
    assert stored(influxd) == [float(number) for number in range(51, 101)]


@pytest.mark.parametrize(
    ("breaking", "remedy", "mending"),
    [
        ("DROP DATABASE ess", "create the database", "CREATE DATABASE ess"),
        (
            "DROP RETENTION POLICY autogen ON ess",
            "retention policy",
            "CREATE RETENTION POLICY autogen ON ess DURATION 0s REPLICATION 1 DEFAULT",
        ),
    ],
    ids=["database", "default retention policy"],
)
async def test_what_is_missing_pauses_where_nothing_may_be_created(
    influxd: Influxd, breaking: str, remedy: str, mending: str
) -> None:
    """Without leave to create what is missing the writer names it, and keeps all until somebody does."""
    influxd.query(breaking)
    async with running(Rig(influxd.url)) as rig:
        rig.append(1, 10)
        await until(lambda: rig.writer.state is WriterState.PAUSED)
        assert remedy in rig.writer.remedy
        assert rig.queue.depth().points == 10
        influxd.query(mending)
        await rig.until_empty()
    assert len(stored(influxd)) == 10


@pytest.mark.parametrize("status", [200, 302, 404])
async def test_something_else_on_the_port_acknowledges_nothing(status: int) -> None:
    """A wrong URL pauses the writer, and every line stays."""
    with misfit(status, b"hello", {"Location": "/"}) as url:
        async with running(Rig(url)) as rig:
            rig.append(1, 10)
            await until(lambda: rig.writer.state is WriterState.PAUSED)
            assert "URL" in rig.writer.remedy
            assert rig.queue.depth().points == 10
            assert rig.writer.counters.written == 0


TROUBLE = (
    (429, b"slow down", WriterState.RETRYING),
    (429, b'{"code":"too many requests","message":"slow down"}', WriterState.RETRYING),
    (500, b'{"error":"timeout"}', WriterState.RETRYING),
    (500, b'{"error":"write /data: no space left on device"}', WriterState.RETRYING),
    (503, b"busy", WriterState.RETRYING),
    (503, b'{"code":"unavailable","message":"unexpected error writing points"}', WriterState.RETRYING),
    (301, b"moved", WriterState.PAUSED),
    (403, b'{"code":"forbidden","message":"insufficient permissions"}', WriterState.PAUSED),
    (404, b'{"code":"not found","message":"bucket \\"ess\\" not found"}', WriterState.PAUSED),
    (400, b"<html>Bad Request</html>", WriterState.PAUSED),
)


@pytest.mark.parametrize(("status", "body", "state"), TROUBLE)
async def test_server_in_trouble_is_tried_again_for_ever(
    status: int, body: bytes, state: WriterState
) -> None:
    """Answers that a healthy server does not give, on both write paths: every line stays, and goes again."""
    with misfit(status, body, {"Retry-After": "0"}, version="2.9.1") as url:
        async with running(Rig(url)) as rig:
            rig.append(1, 10)
            await until(lambda: len(rig.server.writes) >= 3)
            assert rig.writer.state is state
            assert bool(rig.writer.remedy) == (state is WriterState.PAUSED)
            assert (rig.queue.depth().points, rig.writer.counters.written) == (10, 0)
            assert set(rig.server.writes) == {10}


async def test_retry_after_is_waited_for() -> None:
    """A server that asks for a minute is not asked again within a few seconds."""
    with misfit(429, b"slow down", {"Retry-After": "60"}, version="1.12.4") as url:
        async with running(Rig(url)) as rig:
            rig.append(1, 10)
            await until(lambda: rig.writer.state is WriterState.RETRYING)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await until(lambda: len(rig.server.writes) > 1)


async def test_full_cache_of_the_server_is_waited_for(tmp_path: Path) -> None:
    """A server whose memory is full answers 500: everything is kept, and written once there is room."""
    influxd = Influxd(tmp_path, sections={"data": {"cache-max-memory-size": "100"}})
    with influxd:
        influxd.query("CREATE DATABASE ess")
        async with running(Rig(influxd.url)) as rig:
            rig.append(1, 50)
            await until(lambda: "cache-max-memory-size" in rig.writer.last_error)
            assert rig.writer.state is WriterState.RETRYING
            assert rig.queue.depth().points == 50
            influxd.stop()
            influxd.sections = {}
            influxd.start()
            await rig.until_empty()
        assert stored(influxd) == [float(number) for number in range(1, 51)]

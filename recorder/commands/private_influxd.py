"""An InfluxDB for the demo: one process, on a port of its own, gone with its data at the end.

Takes a directory, gives a URL. Never touches an InfluxDB that is installed as a service.
"""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

_READY_WITHIN_SECONDS: Final = 120.0
_CONFIGURATION: Final = """\
reporting-disabled = true
bind-address = "127.0.0.1:0"
[meta]
dir = "{directory}/meta"
[data]
dir = "{directory}/data"
wal-dir = "{directory}/wal"
query-log-enabled = false
[monitor]
store-enabled = false
[http]
bind-address = "127.0.0.1:{port}"
log-enabled = false
"""


def installed_influxd() -> str | None:
    """Give the path of `influxd` 1.x, or None where it is not installed."""
    return shutil.which("influxd")


@asynccontextmanager
async def private_influxd(executable: str, directory: Path) -> AsyncIterator[str | None]:
    """Run InfluxDB while the block lasts.

    Yields:
        Its URL, or None where it did not start: then `directory` holds `influxd.log`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = directory / "influxdb.conf"
    configuration.write_text(_CONFIGURATION.format(directory=directory, port=port))
    with (directory / "influxd.log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            executable, "-config", str(configuration), stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield f"http://127.0.0.1:{port}" if await _answers(process, port) else None
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


async def _answers(process: asyncio.subprocess.Process, port: int) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _READY_WITHIN_SECONDS
    while process.returncode is None and loop.time() < deadline:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        await writer.wait_closed()
        return True
    return False

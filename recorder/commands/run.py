"""`ess-recorder run`: the service.

Takes the configuration, records until it is told to stop by SIGTERM or SIGINT.
"""

import asyncio
import os
import resource
import signal
from pathlib import Path
from typing import Final

import click
import structlog

from recorder.app import Recorder
from recorder.commands.configuration import Configuration
from recorder.commands.options import config_option, fail, load_or_exit
from recorder.logs import set_up_logging
from recorder.spool.segments import QueueLocked

_OTHER_FILES: Final = 640

log = structlog.get_logger(__name__)


@click.command()
@config_option
def run(config: Path | None) -> None:
    """Record: listen for streams, decode them, write points into InfluxDB.

    Ends on SIGTERM or Ctrl-C: it stops reading, writes what waits, and exits with 0. An InfluxDB that is
    away is waited for.
    """
    configuration = load_or_exit(config)
    set_up_logging(configuration.settings.log_level)
    # What it writes is for itself only.
    os.umask(0o077)
    if os.geteuid() == 0:
        log.warning("running as root, which the recorder never needs", remedy="run it as a user of its own")
    _allow_files(sum(listener.max_connections for listener in configuration.settings.listeners))
    try:
        asyncio.run(_serve(configuration))
    except QueueLocked as error:
        fail(str(error))
    except OSError as error:
        fail(
            f"cannot listen: {error.strerror or error}; "
            "another program has the port, or bind is no address of this machine"
        )


def _allow_files(connections: int) -> None:
    """Raise the soft limit of open files to what the listeners may need, as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


async def _serve(configuration: Configuration) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    recorder = Recorder(configuration.settings, configuration.profiles, tariffs=configuration.tariffs)
    await recorder.start()
    log.info(
        "recording", site=configuration.settings.site, influxdb=configuration.settings.influxdb.url or "none"
    )
    await stopping.wait()
    log.info("stopping")
    await recorder.stop()

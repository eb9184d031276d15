"""`ess-recorder check`: is everything as it must be, and if not, what to do.

Takes the configuration, looks at each thing it names, and changes none of them.
"""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from recorder.commands.configuration import Configuration
from recorder.commands.options import config_option, load_or_exit
from recorder.influx.errors import InfluxRefused, InfluxUnreachable
from recorder.influx.sink import open_server
from recorder.roles import inferred_role_note, role_problems
from recorder.settings import Settings


class Finding(NamedTuple):
    """One thing that was looked at; `remedy` is empty where nothing is wrong. Only errors fail the check."""

    what: str
    remedy: str = ""
    is_error: bool = True


@click.command()
@config_option
def check(config: Path | None) -> None:
    """Check configuration, profiles, ports, disk and InfluxDB, and say what to do about each finding.

    Exits with 0 when the recorder can run, 1 when something keeps it from recording, 2 on a wrong
    configuration.
    """
    configuration = load_or_exit(config)
    failed = False
    for finding in _findings(configuration):
        failed |= bool(finding.remedy) and finding.is_error
        sign = "ok  " if not finding.remedy else "FAIL" if finding.is_error else "note"
        click.echo(f"{sign}  {finding.what}")
        if finding.remedy:
            click.echo(f"      {finding.remedy}")
    sys.exit(failed)


def _findings(configuration: Configuration) -> Iterator[Finding]:
    settings = configuration.settings
    yield Finding(f"configuration: site {settings.site}, days by {settings.timezone}")
    for profile in configuration.profiles:
        yield Finding(
            f"profile {profile.name}: {len(profile.fields)} fields of {profile.measurement}, "
            f"device {profile.device}, Modbus unit {profile.unit}, role {profile.role}"
        )
    yield from _roles(configuration)
    yield from _ports(settings)
    yield _data_dir(settings)
    yield from _influxdb(settings)


def _roles(configuration: Configuration) -> Iterator[Finding]:
    for profile in configuration.profiles:
        note = inferred_role_note(profile)
        if note:
            what = f"profile {profile.name} has no role: {profile.role} is assumed, from its field names"
            yield Finding(what, f"add to it {note}, or the role that it has", is_error=False)
    problems = list(role_problems(configuration.settings, configuration.profiles))
    yield from (Finding(*problem) for problem in problems)
    has_meter = any(profile.role == "grid_meter" for profile in configuration.profiles)
    if has_meter and not problems:
        yield Finding("energy flows: each site has one grid meter")


def _ports(settings: Settings) -> Iterator[Finding]:
    doors = [(one.name, one.bind, one.port, one.reuse_port) for one in settings.listeners]
    for name, bind, port, is_shared in [*doors, ("http", settings.http.bind, settings.http.port, False)]:
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, is_shared)
            try:
                probe.bind((bind, port))
            except OSError as error:
                remedy = (
                    "is the recorder running already? Else end the program that has the port, or set another"
                )
                yield Finding(f"{name}: {bind} port {port}: {error.strerror}", remedy)
            else:
                yield Finding(f"{name}: {bind} port {port} is free")


def _data_dir(settings: Settings) -> Finding:
    directory = settings.data_dir
    nearest = next(
        parent for parent in (directory.absolute(), *directory.absolute().parents) if parent.exists()
    )
    if os.access(nearest, os.W_OK | os.X_OK) and nearest.is_dir():
        return Finding(f"data_dir {directory} can be written")
    return Finding(
        f"data_dir {directory} cannot be written", "set data_dir, or give this user the right to write it"
    )


def _influxdb(settings: Settings) -> Iterator[Finding]:
    url = settings.influxdb.url
    if not url:
        yield Finding("no InfluxDB is configured: points stay here until ESS_INFLUXDB_URL names one")
        return
    server = open_server(settings)
    try:
        kind = server.detect()
        server.query("SHOW DATABASES")
    except InfluxUnreachable as error:
        yield Finding(
            f"InfluxDB at {url}: {error}",
            "start it, or set ESS_INFLUXDB_URL; until then the recorder keeps points and goes on trying",
        )
        return
    except InfluxRefused as error:
        if "create admin user first" in error.reason and settings.influxdb.claim_new_server:
            yield Finding(f"InfluxDB at {url} is new: the recorder will create its user")
            return
        yield Finding(f"InfluxDB at {url}: {error.reason}", error.remedy)
        return
    finally:
        server.close()
    yield Finding(f"InfluxDB {kind.version or '(no version named)'} at {url} answers")
    if not kind.has_continuous_queries:
        yield Finding(
            "this server has no continuous queries",
            "raw points are recorded; averages and energies need InfluxDB 1.x",
            is_error=False,
        )

"""`ess-recorder queries`: the continuous queries, to see, to install, to run again over the past.

Takes the configuration; `show` needs no server.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from recorder.commands.options import config_option, fail, load_or_exit
from recorder.influx.day_borders import DayBorders
from recorder.influx.errors import InfluxError
from recorder.influx.savings import DailySavings
from recorder.influx.setup import show as show_statements
from recorder.influx.sink import day_borders_of, open_server, set_up_of
from recorder.logs import set_up_logging

_TIME_FORMATS = ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"]


@click.group()
def queries() -> None:
    """Show, install or re-run the continuous queries.

    They compute, inside InfluxDB, the averages of the last ten samples, the rollups of each minute, and
    the energies of each quarter of an hour, hour and local day.
    """


@queries.command()
@config_option
def show(config: Path | None) -> None:
    """Print the statements that install them. Needs no server."""
    configuration = load_or_exit(config)
    set_up = set_up_of(open_server(configuration.settings), configuration.settings, configuration.profiles)
    click.echo(show_statements(set_up.queries()), nl=False)


@queries.command()
@config_option
def apply(config: Path | None) -> None:
    """Install them, with the database and its retention policies; repeats change nothing.

    Days and hours that begin by another time zone than that of the settings are computed again.
    """
    configuration = load_or_exit(config)
    set_up_logging("error")
    settings = configuration.settings
    server = open_server(settings)
    set_up = set_up_of(server, settings, configuration.profiles)
    borders = day_borders_of(settings, set_up, server)
    if configuration.tariffs is not None:
        borders.savings = DailySavings(server, configuration.tariffs, settings.timezone)
    try:
        report = set_up.apply()
        if report.has_continuous_queries:
            _regroup(borders)
    except InfluxError as error:
        fail(str(error))
    for change in report.changes:
        click.echo(change)
    if not report.changes and not report.problems:
        click.echo("nothing to change")
    for problem in report.problems:
        click.echo(f"ess-recorder: {problem}", err=True)
    sys.exit(bool(report.problems))


def _regroup(borders: DayBorders) -> None:
    """Compute days and hours again where they begin by another time zone."""
    now = datetime.now(UTC)
    if not borders.is_pending and not borders.has_other_days(now):
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("days and hours by the new time zone")
        borders.regroup(now, lambda done, total: progress.update(task, completed=done, total=total))
    click.echo("computed days and hours again by the time zone of the settings")


@queries.command()
@click.option("--from", "begin", type=click.DateTime(_TIME_FORMATS), required=True, help="Begin, UTC.")
@click.option("--to", "end", type=click.DateTime(_TIME_FORMATS), help="End, UTC. Default: now.")
@config_option
def backfill(begin: datetime, end: datetime | None, config: Path | None) -> None:
    """Run them again over a range of the past, for points that came late or were imported.

    \b
    Example:
      ess-recorder queries backfill --from 2026-06-01 --to 2026-06-08
    """  # noqa: D301
    configuration = load_or_exit(config)
    set_up_logging("warning")
    now = datetime.now(UTC)
    begin, end = begin.replace(tzinfo=UTC), (end.replace(tzinfo=UTC) if end else now)
    if begin >= end:
        fail("--from must be before --to", exit_code=2)
    set_up = set_up_of(open_server(configuration.settings), configuration.settings, configuration.profiles)
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("averages and energies")
            written = set_up.backfill(
                begin, end, now, lambda done, total: progress.update(task, completed=done, total=total)
            )
    except InfluxError as error:
        fail(str(error))
    click.echo(f"{written:,} points written")

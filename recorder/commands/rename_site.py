"""`ess-recorder rename-site`: what was recorded under a site's old name, carried over to its new one.

Takes the configuration, which has the new name already, and changes the recorder's own history and InfluxDB.
"""

import sqlite3
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from recorder.commands.options import config_option, fail, load_or_exit
from recorder.influx.errors import InfluxError
from recorder.influx.rename import SiteRename
from recorder.influx.sink import open_server, set_up_of
from recorder.logs import set_up_logging
from recorder.settings import Settings
from recorder.spool.segments import QueueLocked, SegmentDirectory
from recorder.store import clock_offsets
from recorder.store.database import FILE_NAME, Database


@click.command("rename-site")
@click.argument("old")
@click.argument("new")
@config_option
def rename_site(old: str, new: str, config: Path | None) -> None:
    """Carry what was recorded under the site OLD over to NEW, after the settings were changed.

    Stop the recorder first. A command that was interrupted can be repeated.

    \b
    Example:
      ess-recorder rename-site home "Garden house"
    """  # noqa: D301
    configuration = load_or_exit(config)
    settings = configuration.settings
    set_up_logging("warning")
    names = settings.site_names
    if new not in names:
        fail(f"{new} is no site of the settings, which have: {', '.join(sorted(names))}", exit_code=2)
    if old in names or old == new:
        fail(f"{old} is still a site of the settings: give it its new name there first", exit_code=2)
    try:
        series = _rename_history(settings, old, new)
        click.echo(f"history: {series} series renamed")
        if settings.influxdb.url:
            server = open_server(settings)
            if not server.detect().has_continuous_queries:
                fail(
                    "only InfluxDB 1.x can be asked for points and to delete them; rename them there yourself"
                )
            rename = SiteRename(server, set_up_of(server, settings, configuration.profiles), old, new)
            with Progress(console=Console(stderr=True), transient=True) as progress:
                task = progress.add_task("InfluxDB")
                copied = rename.run(lambda done, total: progress.update(task, completed=done, total=total))
            click.echo(f"InfluxDB: {copied:,} points renamed")
    except (InfluxError, QueueLocked, OSError, sqlite3.Error) as error:
        fail(str(error))


def _rename_history(settings: Settings, old: str, new: str) -> int:
    """Rename in the files of the data directory; returns the number of series.

    Raises:
        QueueLocked: a recorder runs.
        OSError: a file cannot be read or written.
        sqlite3.Error: the history cannot be read or written.
    """
    path = settings.data_dir / FILE_NAME
    queue = SegmentDirectory(settings.data_dir / "queue", 1)
    try:
        if any(segment.size for segment in queue.segments()):
            click.echo(
                f"the queue holds points that are not in InfluxDB yet: those of {old} get there under that "
                "name; repeat this command after that",
                err=True,
            )
        clock_offsets.rename_site(settings.data_dir, old, new)
        if not path.exists():
            return 0
        database = Database(path)
        try:
            return database.rename_site(old, new)
        finally:
            database.close()
    finally:
        queue.close()

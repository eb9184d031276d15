"""`ess-recorder savings`: what days saved, computed again after a tariff was changed or history imported.

Takes the configuration with its tariff file, and local days.
"""

from datetime import UTC, date, datetime
from pathlib import Path

import click

from recorder.commands.options import config_option, fail, load_or_exit
from recorder.influx.errors import InfluxError
from recorder.influx.savings import DailySavings
from recorder.influx.sink import open_server
from recorder.logs import set_up_logging

_DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@click.option("--from", "begin", type=_DAY, help="First local day. Default: that of the oldest energy.")
@click.option("--to", "end", type=_DAY, help="Last local day. Default: today.")
@config_option
def savings(begin: datetime | None, end: datetime | None, config: Path | None) -> None:
    """Compute the savings of past days anew, by the tariff file.

    The service does so by itself for yesterday and today, each hour.

    \b
    Example:
      ess-recorder savings --from 2026-01-01 --to 2026-06-30
    """  # noqa: D301
    configuration = load_or_exit(config)
    set_up_logging("warning")
    if configuration.tariffs is None:
        fail("there is no tariff file: name one as tariff_file in the settings", exit_code=2)
    daily = DailySavings(
        open_server(configuration.settings), configuration.tariffs, configuration.settings.timezone
    )
    try:
        first = begin.date() if begin else daily.first_day()
        last: date = end.date() if end else daily.today(datetime.now(UTC))
        if first is not None and first > last:
            fail("--from must not be after --to", exit_code=2)
        written = 0 if first is None else daily.compute_anew(first, last)
    except InfluxError as error:
        fail(str(error))
    click.echo(f"{written:,} days written")

"""What the commands share: the configuration option, and errors as people read them.

Takes what the user typed, gives a `Configuration`, or ends with a message and an exit code:
0 done, 1 failed, 2 wrong usage or configuration.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from recorder.commands.configuration import Configuration, load_configuration
from recorder.points.offsets import Offsets
from recorder.yaml_document import ConfigurationError

FAILED = 1
WRONG_CONFIGURATION = 2

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="ESS_CONFIG",
    metavar="FILE",
    help="Settings in YAML. Default: $ESS_CONFIG, else the file that comes with the recorder.",
)

clock_offset_option = click.option(
    "--clock-offset",
    type=click.FloatRange(min=-1e10, max=1e10),
    metavar="SECONDS",
    help="What to add to each stamp, for a clock that was wrong: 3600 where it was an hour behind.",
)


def constant_offset(seconds: float) -> Offsets:
    """Return one offset for all text."""
    return Offsets({}, round(seconds * 1e9))


def load_or_exit(config: Path | None) -> Configuration:
    """Load the configuration, or print every mistake in it and exit with 2."""
    try:
        return load_configuration(config, os.environ)
    except ConfigurationError as error:
        click.echo(str(error), err=True)
        sys.exit(WRONG_CONFIGURATION)


def fail(message: str, exit_code: int = FAILED) -> NoReturn:
    """End the command with a message that says what to change."""
    click.echo(f"ess-recorder: {message}", err=True)
    sys.exit(exit_code)

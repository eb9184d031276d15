"""The command line.

Takes what the user typed, hands it to the command's own module. Each command is imported only when it
is used, so that `--help` answers at once.
"""

from importlib import import_module

import click

from recorder.version import VERSION

_COMMANDS = {
    "check": "Check the configuration, and say what to do about each finding.",
    "controller-script": "Print the script to copy onto the controller.",
    "decode": "Decode a captured stream into JSON lines.",
    "demo": "Show a simulated plant being recorded, on a live page.",
    "queries": "Show, install or re-run the continuous queries.",
    "rename-site": "Carry what was recorded over to the new name of a site.",
    "replay": "Write captured streams into InfluxDB.",
    "run": "Record: the service.",
    "savings": "Compute anew what past days saved, by a tariff file.",
    "simulate": "Stream a simulated plant to a receiver.",
    "status": "Show what a running recorder sees, live.",
}


class _LazyGroup(click.Group):
    """Commands by name, each in `recorder.commands` under its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(import_module(f"recorder.commands.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(VERSION, prog_name="ess-recorder")
def main() -> None:
    """Record a closed home-energy system: strace text of its Modbus traffic in, InfluxDB and Grafana out."""

"""`ess-recorder controller-script`: the script to copy onto the controller.

Takes the recorder's address as the controller sees it, gives a shell script on standard output or in a
file. Never connects to the controller.
"""

from pathlib import Path

import click

from recorder.commands.options import WRONG_CONFIGURATION, fail
from recorder.controller.script import DEFAULT_STRACE, Stream, render

PCS_PROCESS = "PCSMgr"
POWERMETER_PROCESS = "PowerMeterMgr"

_port = click.IntRange(1, 65535)


@click.command("controller-script")
@click.option("--host", required=True, help="Name or address of this recorder, as the controller reaches it.")
@click.option("--pcs-port", type=_port, default=5001, show_default=True, help="TCP port for PCSMgr's text.")
@click.option(
    "--powermeter-port",
    type=_port,
    default=5002,
    show_default=True,
    help="TCP port for PowerMeterMgr's text.",
)
@click.option(
    "--strace",
    default=DEFAULT_STRACE,
    show_default=True,
    metavar="PATH",
    help="Where the static strace lies on the controller.",
)
@click.option("--both", is_flag=True, help="One strace and one stream for both processes, to the PCS port.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a file instead of standard output.",
)
def controller_script(
    host: str, pcs_port: int, powermeter_port: int, strace: str, both: bool, output: Path | None
) -> None:
    """Print the script that streams from the controller to this recorder.

    It needs busybox and a static strace there, survives restarts on both sides, and lets go of the
    controller's processes when the network does not take their text.

    \b
    Example, with the controller at 192.168.1.10 and this recorder at 192.168.1.20:
      ess-recorder controller-script --host 192.168.1.20 --output ess-stream.sh
      scp strace ess-stream.sh root@192.168.1.10:/root/
      ssh root@192.168.1.10 'sh /root/ess-stream.sh start; sleep 5; sh /root/ess-stream.sh status'
      ssh root@192.168.1.10 'sh /root/ess-stream.sh install'
    Without scp on the controller:
      ssh root@192.168.1.10 'cat > /root/ess-stream.sh' < ess-stream.sh
    """  # noqa: D301
    streams = (
        [Stream((PCS_PROCESS, POWERMETER_PROCESS), pcs_port)]
        if both
        else [Stream((PCS_PROCESS,), pcs_port), Stream((POWERMETER_PROCESS,), powermeter_port)]
    )
    try:
        text = render(host, streams, strace=strace)
    except ValueError as error:
        fail(str(error), WRONG_CONFIGURATION)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
        output.chmod(0o755)
    except OSError as error:
        fail(f"cannot write {output}: {error.strerror}")

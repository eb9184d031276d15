"""`python -m bench [--quick] [NAME...]`: measures, prints a table, and writes `docs/performance.md`.

Takes the names of benches, or none for all. A run of all of them writes the page anew, one of some puts their
figures into it, unless it is a quick one. Exit code 1 where one cannot run, with the reason.
"""

import argparse
import sys
from functools import partial
from importlib import import_module
from typing import Final

from rich.console import Console
from rich.status import Status

from bench.report import (
    DOCUMENT,
    CannotRunError,
    Options,
    Result,
    document,
    terminal_table,
    this_machine,
    update_document,
    write_document,
)
from recorder.logs import set_up_logging

BENCHES: Final = ("decode", "write", "replay", "latency", "fleet", "home", "startup", "panels", "page")


def _show(status: Status, name: str, message: str) -> None:
    status.update(f"{name}: {message}")


def main() -> int:
    """Run the benches that the command line names; 0 where all of them could."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="shorter and fewer runs, to try it out")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(BENCHES)
    if unknown:
        parser.error(f"no bench is named {', '.join(sorted(unknown))}")
    console = Console()
    set_up_logging("warning")
    machine = this_machine()
    console.print(str(machine))
    results: list[Result] = []
    failed = False
    for name in chosen.names or BENCHES:
        with console.status(name) as status:
            options = Options(chosen.quick, partial(_show, status, name))
            try:
                results.append(import_module(f"bench.{name}").run(options))
            except CannotRunError as error:
                failed = True
                console.print(f"{name} cannot run: {error}")
                continue
        console.print(terminal_table(results[-1:]))
    if chosen.names and not chosen.quick:
        update_document(results)
    elif not chosen.names and not failed:
        write_document(document(results, machine, quick=chosen.quick))
    else:
        return int(failed)
    console.print(f"written: {DOCUMENT.name}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

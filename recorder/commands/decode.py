"""`ess-recorder decode`: a captured stream as JSON lines.

Takes a file or standard input, gives one JSON line a point on standard output and the counts on
standard error. Needs no database and writes nothing.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import click

from recorder.commands.decoding import pipeline_of, site_of
from recorder.commands.options import clock_offset_option, config_option, constant_offset, fail, load_or_exit
from recorder.counts import MEANINGS
from recorder.pipeline import Pipeline
from recorder.points.point import Point
from recorder.sources.replay import UNREADABLE, chunks, open_capture


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@clock_offset_option
@config_option
def decode(file: Path, clock_offset: float | None, config: Path | None) -> None:
    """Decode a captured stream into JSON lines, one a point.

    FILE is strace text, plain or compressed (.gz, .xz, .bz2), or - for standard input. A point's time
    is in ns, by the controller's own stamps, or null where the text has none. Points of the energy flow
    need times.

    \b
    Example:
      ess-recorder decode capture.strace | jq -c '.fields.pv_power'
    """  # noqa: D301
    configuration = load_or_exit(config)
    offsets = None if clock_offset is None else constant_offset(clock_offset)
    site = site_of(configuration, configuration.settings.site)
    pipeline = pipeline_of(configuration, site, offsets)
    try:
        if str(file) == "-":
            _decode(sys.stdin.buffer, pipeline)
        else:
            with open_capture(file) as stream:
                _decode(stream, pipeline)
    except UNREADABLE as error:
        fail(f"cannot read {file}: {error}")
    print_counts(pipeline.counts)


def print_counts(counts: Counter[str]) -> None:
    """Print each count that is not 0, with what it means, on standard error."""
    for name, meaning in MEANINGS.items():
        if counts[name]:
            click.echo(f"{counts[name]:>12,} {name.replace('_', ' ')}: {meaning}", err=True)


def _decode(stream: BinaryIO, pipeline: Pipeline) -> None:
    for chunk in chunks(stream):
        _print(pipeline.feed(chunk, None))
    _print([*pipeline.finish(), *pipeline.site.finish()])


def _print(points: list[Point]) -> None:
    for measurement, tags, fields, time_ns in points:
        line = {"time": time_ns, "measurement": measurement, "tags": dict(tags), "fields": fields}
        sys.stdout.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")

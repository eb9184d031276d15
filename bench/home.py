"""One home for ten minutes: what the recorder takes from a small machine.

Takes options, gives processor, memory and bytes to disk of the real service at true 1 Hz beside an influxd.
"""

from bench.report import Options, Result, Row, Target
from bench.step import Load, measure

_DAY_SECONDS = 86_400


def run(options: Options) -> Result:
    """Record one home with the shipped settings, continuous queries included."""
    seconds = 20 if options.quick else 600
    step = measure(Load(1, seconds, probes=0), options)
    daily_mb = step.written_bytes / step.measured_seconds * _DAY_SECONDS / 1e6
    return Result(
        "One home",
        (
            Row("processor", step.cpu_percent, "% of a core", target=Target(at_most=2)),
            Row("memory (RSS)", step.rss_mb, "MB", target=Target(at_most=80)),
            Row("the recorder's bytes to disk, a day", daily_mb, "MB", target=Target(at_most=500)),
            Row(
                "influxd beside it, continuous queries included: processor",
                step.influxd_cpu_percent,
                "% of a core",
            ),
            Row("samples lost", step.lost, "samples", target=Target(at_most=0)),
        ),
        (
            (
                f"{seconds} s, the shipped settings but for the log level and one listener for both devices, "
                "its site by address. Moonshot: 1 %, 60 MB, 200 MB. While InfluxDB answers the queue writes "
                "nothing; [queue.md](queue.md) tells what an outage writes."
            ),
        ),
    )

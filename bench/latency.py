"""From a frame's last byte on the socket to its point being the answer to a query.

Takes options, gives p50 and p99 at 1, 100 and 1,000 homes, with and without a stream of garbage.
"""

from bench.report import Options, Result, Row, Target
from bench.step import Load, Step, measure


def run(options: Options) -> Result:
    """Measure the latency of homes at true 1 Hz through the real recorder on one core."""
    seconds = 12 if options.quick else 45
    rows: list[Row] = []
    steps = {homes: measure(Load(homes, seconds, queries=False), options) for homes in (1, 100, 1000)}
    for homes, step in steps.items():
        rows += _rows(f"{homes:,} homes" if homes > 1 else "1 home", step)
    calm = steps[100]
    flooded = measure(Load(100, seconds, queries=False, garbage=True), options)
    ratio = flooded.percentile(0.99) / calm.percentile(0.99)
    rows.append(
        Row(
            "100 homes beside garbage at full speed, p99",
            flooded.percentile(0.99),
            "s",
            ratio,
            "100 homes alone",
        )
    )
    rows.append(Row("100 homes beside garbage: lost", flooded.lost, "samples", target=Target(at_most=0)))
    return Result(
        "Latency: frame on the socket to point queryable",
        tuple(rows),
        (
            (
                "The writer sends a batch at least once a second (`writer.flush_after_seconds`), "
                "which is most of "
                "the latency at every number of homes. The bench asks InfluxDB 50 times a second for "
                "the points "
                "of up to 16 homes. Continuous queries are off: with them influxd, which shares its "
                "core with the "
                "homes, is measured instead."
            ),
            (
                "Garbage is random bytes, as fast as one connection takes them; the recorder reads at most "
                "`max_bytes_per_second` of it, a read of 64 KiB at a time."
            ),
        ),
    )


def _rows(name: str, step: Step) -> tuple[Row, Row]:
    samples = len(step.latencies_seconds)
    bound = Target(at_most=2.0)
    return (
        Row(f"{name}: p50", step.percentile(0.5), "s", runs=samples),
        Row(f"{name}: p99", step.percentile(0.99), "s", target=bound, runs=samples),
    )

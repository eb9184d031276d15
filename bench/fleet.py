"""How many homes at true 1 Hz one process on one core serves without loss, found by search.

Takes options, gives the rows and a plot of the growth. Each step is a recorder and an influxd of its own.
"""

from typing import Final

from bench.plot import PLOT, plot
from bench.report import Options, Result, Row, Target
from bench.step import Load, Step, measure

GOAL: Final = 1000
MOONSHOT: Final = 5000
_GROWTH: Final = (100, 500)
_STEP_SECONDS: Final = 15


def run(options: Options) -> Result:
    """Serve 1,000 homes for five minutes, then search for as many as can be served."""
    goal = measure(Load(GOAL, 20 if options.quick else 300, queries=False), options)
    shipped = measure(Load(GOAL, 15 if options.quick else 45), options)
    steps = [goal]
    if not options.quick:
        steps += [measure(Load(homes, _STEP_SECONDS, queries=False), options) for homes in _GROWTH]
        steps += _search(options, steps)
    served = max((step.homes for step in steps if step.served), default=0)
    picture: tuple[str, ...] = ()
    if not options.quick:
        PLOT.write_text(plot(sorted(steps, key=lambda step: step.homes)))
        picture = ("![processor and memory by number of homes](pictures/fleet.svg)",)
    return Result(
        "A fleet at true 1 Hz: one process, one core",
        (
            *_rows(goal, "queries off"),
            *_rows(shipped, "queries as shipped"),
            Row(
                f"homes served for {_STEP_SECONDS} s without loss, p99 under 2 s",
                served,
                "homes",
                target=Target(at_least=GOAL),
            ),
        ),
        (
            (
                "Each home sends the text of both devices as the controller script does, over one "
                "connection, in ten pieces a second, from an address of its own that names its site. "
                "Lost is every sample whose time is not in InfluxDB for that home. The recorder has "
                "one core; the homes, influxd and the queries of the bench share what is left. "
                "Continuous queries cost influxd, not the recorder: with them the machine, not the "
                f"process, is what is measured. In a step of {_STEP_SECONDS} s the store of the page "
                "writes nothing, and a full core keeps up only because it reads more at a time: what "
                "can be served for long is told by the five minutes."
            ),
            f"Moonshot: {MOONSHOT:,} homes. Each step of the search:",
            _steps_table([*steps, shipped]),
            *picture,
        ),
    )


def _search(options: Options, known: list[Step]) -> list[Step]:
    """Double what was served until a step fails, then bisect to a fifth."""
    steps: list[Step] = []
    good = max((step.homes for step in known if step.served), default=0)
    bad = min((step.homes for step in known if step.homes > good and not step.served), default=0)
    while not bad or bad - good > max(good // 5, 10):
        homes = (good + bad) // 2 if bad else 2 * good
        steps.append(measure(Load(homes, _STEP_SECONDS, queries=False), options))
        if steps[-1].feeder_limits:
            break
        good, bad = (homes, bad) if steps[-1].served else (good, homes)
    return steps


def _rows(step: Step, how: str) -> tuple[Row, ...]:
    name = f"{step.homes:,} homes for {step.seconds} s, {how}"
    bound = Target(at_most=2.0) if how == "queries off" else None
    none = Target(at_most=0) if how == "queries off" else None
    return (
        Row(f"{name}: samples lost of {step.sent:,}", step.lost, "samples", target=none),
        Row(f"{name}: p99, frame to query", step.percentile(0.99), "s", target=bound),
        Row(f"{name}: processor", step.cpu_percent, "% of a core"),
        Row(f"{name}: memory", step.rss_mb, "MB"),
    )


def _steps_table(steps: list[Step]) -> str:
    columns = (
        *("homes", "seconds", "sent", "lost", "surplus", "recorder, %", "influxd, %", "RSS, MB"),
        *("p50, s", "p99, s", "verdict"),
    )
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for step in steps:
        verdict = "the homes were late" if step.feeder_limits else "served" if step.served else "not served"
        lines.append(
            f"| {step.homes} | {step.seconds} | {step.sent} | {step.lost} | {step.surplus} "
            f"| {step.cpu_percent:.0f} | {step.influxd_cpu_percent:.0f} | {step.rss_mb:.0f} "
            f"| {step.percentile(0.5):.2f} | {step.percentile(0.99):.2f} | {verdict} |"
        )
    return "\n".join(lines)

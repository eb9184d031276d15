"""The alert rules: what is asked, how much is too much, and what to do then.

Takes the names of the data model, gives `Rule`s by the name of their group. Never writes a file.

Each query looks at measured values or stated ages and gives one series a site and device. Texts name labels
as `.Labels`: the usual dollar name is an environment variable to Grafana's provisioning.
"""

from collections.abc import Sequence

from grafana.alerts import Rule, above, below, outside
from grafana.influxql import select, select_from

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_OF_DEVICE = 'GROUP BY "site", "device"'
_OF_SITE = 'GROUP BY "site"'
_WRITER = "\"source\" = 'writer'"
_DEVICE = "{{ .Labels.device }} of {{ .Labels.site }}"
_SITE = "{{ .Labels.site }}"
_HEALTH = "Ask the recorder what is wrong: `curl http://127.0.0.1:8080/healthz` on its machine."

# How strings are compared: the last five days with those of two weeks before, a week between them, so that
# a fault that lasts is not soon its own measure.
_STRING_HOURS = '"rollups"."pcs_1h"'
_BRIGHT_WATTS = 200
_RECENT_DAYS, _SETTLED_DAYS = range(5), range(12, 26)
_SETTLED = "26d AND time <= now() - 12d"
# Days enough, light that the settled weeks knew, and no low sun.
_COMPARABLE = "$bright > 3 && $settled > 6 && $light < 1.2 * $clear && $clear > 0.3 * $best"
_GIVES_LESS = (
    # String 1: below what it had at this hour in the clear, and below its share of cloudy light.
    "($highest < 0.6 * $least && $highest < 0.6 * $usual && $highest < $least - 10 && $highest < $usual - 10)"
    " || (100 - $lowest < 0.6 * (100 - $most) && 100 - $lowest < 0.6 * (100 - $usual)"
    " && $lowest > $most + 10 && $lowest > $usual + 10)"
)


def _since(window: str) -> str:
    return f"time > now() - {window}"


def _by(tags: str, expression: str, measurement: str, window: str) -> str:
    return select({"value": expression}, "", measurement, _since(window), tags)


def _of_device(expression: str, measurement: str, window: str) -> str:
    return _by(_OF_DEVICE, expression, measurement, window)


def _of_site(expression: str, measurement: str, window: str) -> str:
    return _by(_OF_SITE, expression, measurement, window)


def _minutes(field: str, measurement: str, window: str, tags: str) -> str:
    """In how many minutes of the window there are samples: a mean of few of them is a mean of a moment."""
    grouping = tags.replace("GROUP BY", "GROUP BY time(1m),") + " fill(none)"
    minutes = select({"samples": f'count("{field}")'}, "", measurement, _since(window), grouping)
    return _of_all([minutes], 'count("samples")', tags)


def _of_all(queries: Sequence[str], expression: str, tags: str) -> str:
    """One figure of the rows of several queries of one measurement, which InfluxDB puts together.

    Without a time of its own: InfluxDB 1.6 loses a series whose first bucket begins before that time.
    """
    return f'SELECT {expression} AS "value" FROM ({"), (".join(queries)}) {tags}'  # noqa: S608  # our own names


def _last_of_writer(field: str) -> str:
    newest = {"value": f'last("{field}")'}
    return select(newest, "", '"recorder"', f"{_WRITER} AND {_since('10m')}", _OF_SITE)


def _gained(fields: tuple[str, ...], of: str, expression: str, window: str, tags: str) -> str:
    """What counters gained; a restart, which sets them to 0, gains nothing."""
    gains = {field: f'non_negative_difference("{field}")' for field in fields}
    rows = select(gains, "", '"recorder"', f"{of} AND {_since(window)}", f"GROUP BY {tags}")
    return select_from(rows, f'{expression} AS "value"', _since(window), f"GROUP BY {tags}")


def _sum_of_gains(*fields: str) -> str:
    total = " + ".join(f'sum("{field}")' for field in fields)
    return _gained(fields, _WRITER, total, "1h", '"site"')


def _words(window: str) -> str:
    """How often each recorder wrote; 0 for one that has not, as long as any point of it is kept."""
    words = {"words": 'count("queue_points")'}
    recent = select(words, "", '"recorder"', f"{_WRITER} AND {_since(window)}", _OF_SITE)
    words = {"words": '0 * last("queue_points")'}
    ever = select(words, "", '"recorder"', f"{_WRITER} AND time <= now()", _OF_SITE)
    return _of_all([recent, ever], 'sum("words")', _OF_SITE)


def _of_sources(expression: str) -> str:
    """What the sources' counters gained in five minutes."""
    any_source = "\"source\" != 'writer' AND \"source\" != ''"
    return _gained(("crc_errors", "frames"), any_source, expression, "5m", '"site", "source"')


def _at_this_hour(figure: str, days: range) -> str:
    """A figure of the hour that ended last, on these days ago.

    It is one of `share`, string 1's of the PV power in %, or of `pv`, that power in W. An hour in which the
    sun is low, or the roof is covered, is left out. The hour is that of UTC, so that the sun is where it was
    whatever clocks do.
    """
    values = {"share": '100 * "pv1_power" / "pv_power"', "pv": '"pv_power"'}
    hours = (
        f'"pv_power" > {_BRIGHT_WATTS} AND {_since(f"{24 * day + 2}h")} AND time <= now() - {24 * day + 1}h'
        for day in days
    )
    each = [select(values, "", _STRING_HOURS, hour, _OF_DEVICE) for hour in hours]
    return _of_all(each, figure, _OF_DEVICE)


_RECORDER = (
    Rule(
        uid="ess-recorder-silent",
        title="Recorder silent",
        severity="critical",
        # The dead cannot tell their age: one that did not write counts as 0.
        values={"words": _words("3m")},
        seconds=180,
        condition=below(0.5),
        lasts="3m",
        summary="The recorder of {{ or .Labels.site `any site` }} has written nothing for six minutes",
        remedy="See whether it runs: `docker compose ps`, or `systemctl status ess-recorder`, and start"
        f" it with `docker compose up -d`. If it runs: {_HEALTH} If that names InfluxDB, see whether"
        " InfluxDB runs and its disk has room; the recorder keeps its points and delivers them later.",
        panel=("recorder", "Age of the newest sample"),
        no_data="Alerting",
        on_error="Alerting",
    ),
    Rule(
        uid="ess-no-fresh-sample",
        title="No fresh sample",
        severity="critical",
        values={"age": _of_device('last("sample_age")', '"recorder"', "10m")},
        seconds=10 * _MINUTE,
        condition=above(120),
        lasts="1m",
        summary=f"No sample for two minutes from {_DEVICE}",
        remedy=f"{_HEALTH} If only this device is missing, start the script on the controller again, and"
        " check its power and network.",
        panel=("recorder", "Sample age"),
    ),
    Rule(
        uid="ess-influxdb-behind",
        title="InfluxDB behind",
        severity="warning",
        values={"age": _last_of_writer("queue_age")},
        seconds=10 * _MINUTE,
        condition=above(120),
        lasts="2m",
        summary=f"Points of {_SITE} wait longer than two minutes for InfluxDB",
        remedy="See whether InfluxDB's machine has memory, processor and disk to spare. The queue keeps"
        " the points, up to its bounds in the settings, and delivers them in order.",
        panel=("recorder", "Age of the queue"),
    ),
    Rule(
        uid="ess-averages-behind",
        title="Averages behind",
        severity="warning",
        values={"late": _last_of_writer("late_seconds")},
        seconds=10 * _MINUTE,
        condition=above(0),
        lasts="1h",
        summary=f"Averages and energies of {_SITE} lack late points for an hour",
        remedy=f"{_HEALTH} It says why they are not computed again. A long outage takes long on a small"
        " machine: then wait.",
        panel=("recorder", "Late range"),
    ),
    Rule(
        uid="ess-dead-letters",
        title="Dead letters",
        severity="warning",
        values={"refused": _sum_of_gains("dead_letters")},
        seconds=_HOUR,
        condition=above(0),
        lasts="0s",
        summary=f"InfluxDB refused points of {_SITE} in the last hour",
        remedy="Read why in data_dir/dead-letters. Once the reason is gone: `ess-recorder replay"
        " --dead-letters`.",
        panel=("recorder", "Points that did not arrive"),
    ),
    Rule(
        uid="ess-points-lost",
        title="Points lost",
        severity="critical",
        values={"lost": _sum_of_gains("dropped", "damaged", "rejected")},
        seconds=_HOUR,
        condition=above(0),
        lasts="0s",
        summary=f"Points of {_SITE} were lost in the last hour",
        remedy="The queue was full, or its disk failed: docs/queue.md tells them apart. Let InfluxDB run"
        " again, give the queue more room (`queue.max_bytes`), or replace the disk.",
        panel=("recorder", "Points that did not arrive"),
    ),
    Rule(
        uid="ess-crc-errors",
        title="CRC errors",
        severity="warning",
        # A torn line at a start is no fault, nor is one burst: it must go on.
        values={
            "share": _of_sources('100 * sum("crc_errors") / (sum("crc_errors") + sum("frames"))'),
            "errors": _of_sources('sum("crc_errors")'),
        },
        seconds=5 * _MINUTE,
        condition="$share > 1 && $errors > 2",
        lasts="15m",
        summary="More than 1 % of the answers of {{ .Labels.source }} of {{ .Labels.site }} have a wrong CRC",
        remedy="Check the bus: its cable, its ends, what runs beside it. If it began with a change of"
        " the script on the controller, take the script of `ess-recorder controller-script`.",
        panel=("recorder", "CRC errors"),
    ),
)

_GRID = (
    *(
        Rule(
            uid=f"ess-voltage-l{phase}",
            title=f"Voltage of L{phase}",
            severity="warning",
            # A meter of one phase reads 0 V on the others: only a phase that had voltage can lose it.
            values={
                "volts": _of_device(f'mean("voltage_l{phase}")', '"powermeter"', "10m"),
                "minutes": _minutes(f"voltage_l{phase}", '"powermeter"', "10m", _OF_DEVICE),
                "seen": _of_device(f'max("voltage_l{phase}")', '"rollups"."powermeter_1h"', "30d"),
            },
            seconds=30 * _DAY,
            condition="($volts < 207 || $volts > 253) && $minutes > 7 && $seen > 100",
            lasts="1m",
            summary=f"L{phase} at {_DEVICE} is outside 207 to 253 V, by its mean of ten minutes (EN 50160)",
            remedy="If it is high while you sell, the inverter may cut its power: tell the grid's"
            " operator, who has to keep the limits. If it is low, look for a loose wire: let an"
            " electrician measure.",
            panel=("grid", "Voltage of the phases"),
            labels={"phase": f"L{phase}"},
        )
        for phase in (1, 2, 3)
    ),
    Rule(
        uid="ess-frequency",
        title="Frequency of the grid",
        severity="warning",
        values={"hertz": _of_device('mean("frequency")', '"powermeter"', "1m")},
        seconds=_MINUTE,
        condition=outside(49.5, 50.5),
        lasts="1m",
        summary=f"The grid at {_DEVICE} is outside 49.5 to 50.5 Hz (EN 50160)",
        remedy="Nothing at home causes it: the grid is disturbed, or the home runs as an island. Save"
        " power, and have the inverter's log ready for its maker.",
        panel=("grid", "Frequency"),
    ),
    Rule(
        uid="ess-import-peak",
        title="Import peak",
        severity="warning",
        values={
            "watts": _of_site('mean("grid_import")', '"flow"', "15m"),
            # A minute more: the first may be cut, by the window or by a start.
            "minutes": _minutes("grid_import", '"flow"', "16m", _OF_SITE),
        },
        seconds=16 * _MINUTE,
        condition="$watts > 8000 && $minutes > 15",
        lasts="0s",
        summary=f"{_SITE} bought more than 8 kW over a quarter of an hour",
        remedy="Switch off or shift what is large: car, heat pump, oven. Set your own limit in"
        " grafana/alert_rules.py.",
        panel=("grid", "Power at the meter"),
    ),
)

_PLANT = (
    Rule(
        uid="ess-battery-low",
        title="Battery low",
        severity="info",
        # Empty for a day is winter's weather, unless there was power to spare.
        values={
            "charge": _of_site('max("battery_soc")', '"rollups"."pcs_1m"', "1d"),
            "sold": _of_site('sum("grid_export") / 60000', '"rollups"."flow_1m"', "1d"),
            "minutes": _of_site('count("battery_soc")', '"rollups"."pcs_1m"', "1d"),
        },
        seconds=_DAY,
        condition="$charge < 5 && $sold > 1 && $minutes > 1320",
        lasts="1h",
        summary=f"The battery of {_SITE} has been below 5 % for a day on which power was sold",
        remedy="See whether the battery charges when the sun shines, and what the inverter's display says"
        " of it.",
        panel=("battery-and-pv", "State of charge"),
    ),
    Rule(
        uid="ess-not-charging-in-sun",
        title="Battery not charging in sun",
        severity="warning",
        values={
            "sold": _of_site('mean("grid_export")', '"flow"', "15m"),
            "charging": _of_site('mean("battery_charge")', '"flow"', "15m"),
            "room": _of_site('mean("battery_soc_max") - mean("battery_soc_raw")', '"pcs"', "15m"),
        },
        seconds=15 * _MINUTE,
        condition="$sold > 1000 && $charging < 50 && $room > 10",
        lasts="15m",
        summary=f"{_SITE} sells more than 1 kW while its battery has room and does not charge",
        remedy="See what the inverter's display says of the battery: its breaker, its fuse, a fault, a"
        " limit set by the owner. A battery too cold or too warm charges later by itself.",
        panel=("battery-and-pv", "Battery power"),
    ),
    Rule(
        uid="ess-string-imbalance",
        title="String imbalance",
        severity="warning",
        # Roofs differ, and so does the light: each string is measured by its own share at the same hour.
        values={
            "highest": _at_this_hour('max("share")', _RECENT_DAYS),
            "lowest": _at_this_hour('min("share")', _RECENT_DAYS),
            "bright": _at_this_hour('count("share")', _RECENT_DAYS),
            "light": _at_this_hour('max("pv")', _RECENT_DAYS),
            "least": _at_this_hour('min("share")', _SETTLED_DAYS),
            "most": _at_this_hour('max("share")', _SETTLED_DAYS),
            "settled": _at_this_hour('count("share")', _SETTLED_DAYS),
            "clear": _at_this_hour('max("pv")', _SETTLED_DAYS),
            "usual": _of_device('100 * sum("pv1_power") / sum("pv_power")', _STRING_HOURS, _SETTLED),
            "best": _of_device('max("pv_power")', _STRING_HOURS, _SETTLED),
        },
        seconds=26 * _DAY,
        condition=f"{_COMPARABLE} && ({_GIVES_LESS})",
        lasts="10m",
        summary=f"A PV string of {_DEVICE} has given much less than it did at this hour for five days",
        remedy="Look for snow, leaves or a new shadow on one roof; then for a string that is off: its"
        " switch, fuse and plugs, which an electrician opens.",
        panel=("battery-and-pv", "Power of the strings"),
    ),
    Rule(
        uid="ess-battery-warm",
        title="Battery too warm",
        severity="critical",
        values={"celsius": _of_device('mean("battery_temperature_max")', '"pcs"', "10m")},
        seconds=10 * _MINUTE,
        condition=above(45),
        lasts="5m",
        summary=f"The warmest cell of the battery at {_DEVICE} is above 45 degrees",
        remedy="Let air to it. If it still climbs without load, switch the system off as its manual"
        " says, and call its maker.",
        panel=("battery-and-pv", "Temperature of the battery"),
    ),
    Rule(
        uid="ess-battery-cold",
        title="Battery too cold",
        severity="warning",
        values={"celsius": _of_device('mean("battery_temperature_min")', '"pcs"', "10m")},
        seconds=10 * _MINUTE,
        condition=below(0),
        lasts="30m",
        summary=f"The coldest cell of the battery at {_DEVICE} is below 0 degrees",
        remedy="Charging harms a frozen cell: see whether the inverter limits it, and keep the room"
        " above freezing.",
        panel=("battery-and-pv", "Temperature of the battery"),
    ),
    Rule(
        uid="ess-energy-balance",
        title="Energy balance off",
        severity="warning",
        values={
            "lost": _of_site('mean("loss")', '"flow"', "1h"),
            "moved": _of_site(
                'mean("pv") + mean("battery_charge") + mean("battery_discharge")', '"flow"', "1h"
            ),
            "minutes": _minutes("loss", '"flow"', "1h", _OF_SITE),
        },
        seconds=_HOUR,
        condition="($lost > 100 + 0.15 * $moved || $lost < -50 - 0.05 * $moved) && $minutes > 50",
        lasts="15m",
        summary=f"What goes into the inverter of {_SITE} and what comes out do not add up",
        remedy="A loss too high is heat: feel for it, and look at the inverter's efficiency over weeks."
        " A loss below 0 means that a value is wrong: compare the profile's scales with the inverter's"
        " display.",
        panel=("battery-and-pv", "Lost in the inverter"),
    ),
)

GROUPS = {"recorder": _RECORDER, "grid": _GRID, "plant": _PLANT}

"""The alert rules: what is asked, how much is too much, and what to do then.

Takes the names of the data model, gives `Rule`s by the name of their group. Never writes a file.

Each query looks at measured values or stated ages and gives one series a site and device. Texts name labels
as `.Labels`: the usual dollar name is an environment variable to Grafana's provisioning.
"""

from grafana.alerts import Rule, above, below, outside
from grafana.influxql import select, select_from

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_OF_DEVICE = 'GROUP BY "site", "device"'
_WRITER = "\"source\" = 'writer'"
_DEVICE = "{{ .Labels.device }} of {{ .Labels.site }}"
_SITE = "{{ .Labels.site }}"
_HEALTH = "Ask the recorder what is wrong: `curl http://127.0.0.1:8080/healthz` on its machine."


def _since(window: str) -> str:
    return f"time > now() - {window}"


def _of_device(expression: str, measurement: str, window: str) -> str:
    return select({"value": expression}, "", measurement, _since(window), _OF_DEVICE)


def _last_of_writer(field: str) -> str:
    newest = {"value": f'last("{field}")'}
    return select(newest, "", '"recorder"', f"{_WRITER} AND {_since('1h')}", 'GROUP BY "site"')


def _gained(fields: tuple[str, ...], of: str, expression: str, window: str, tags: str) -> str:
    """What counters gained; a restart, which sets them to 0, gains nothing."""
    gains = {field: f'non_negative_difference("{field}")' for field in fields}
    rows = select(gains, "", '"recorder"', f"{of} AND {_since(window)}", f"GROUP BY {tags}")
    return select_from(rows, f'{expression} AS "value"', _since(window), f"GROUP BY {tags}")


def _sum_of_gains(*fields: str) -> str:
    total = " + ".join(f'sum("{field}")' for field in fields)
    return _gained(fields, _WRITER, total, "1h", '"site"')


_RECORDER = (
    Rule(
        uid="ess-recorder-silent",
        title="Recorder silent",
        severity="critical",
        # A minute without a word counts as 0, for a day: the dead cannot tell their age.
        values={
            "words": select(
                {"value": 'moving_average(count("queue_points"), 5)'},
                "",
                '"recorder"',
                f"{_WRITER} AND {_since('1d')}",
                'GROUP BY time(1m), "site" fill(0)',
            )
        },
        seconds=_DAY,
        condition=below(0.1),
        lasts="1m",
        summary="The recorder of {{ or .Labels.site `any site` }} has said nothing for five minutes",
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
        seconds=_HOUR,
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
        seconds=_HOUR,
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
        values={
            "share": _gained(
                ("crc_errors", "frames"),
                "\"source\" != 'writer' AND \"source\" != ''",
                '100 * sum("crc_errors") / (sum("crc_errors") + sum("frames"))',
                "15m",
                '"site", "source"',
            )
        },
        seconds=15 * _MINUTE,
        condition=above(1),
        lasts="5m",
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
            values={"volts": _of_device(f'mean("voltage_l{phase}")', '"powermeter"', "10m")},
            seconds=10 * _MINUTE,
            condition=outside(207, 253),
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
        values={"watts": _of_device('mean("active_power")', '"powermeter"', "15m")},
        seconds=15 * _MINUTE,
        condition=above(8000),
        lasts="0s",
        summary=f"{_DEVICE} bought more than 8 kW over a quarter of an hour",
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
        values={"charge": _of_device('last("battery_soc")', '"pcs"', "10m")},
        seconds=10 * _MINUTE,
        condition=below(5),
        lasts="6h",
        summary=f"The battery at {_DEVICE} has been below 5 % for six hours",
        remedy="In winter this is the weather. Else see whether the battery charges when the sun shines,"
        " and what the inverter's display says.",
        panel=("battery-and-pv", "State of charge"),
    ),
    Rule(
        uid="ess-not-charging-in-sun",
        title="Battery not charging in sun",
        severity="warning",
        values={
            "sold": _of_device('mean("grid_export")', '"flow"', "15m"),
            "charging": _of_device('mean("battery_charge")', '"flow"', "15m"),
            "room": _of_device('mean("battery_soc_max") - mean("battery_soc_raw")', '"pcs"', "15m"),
        },
        seconds=15 * _MINUTE,
        condition="$sold > 1000 && $charging < 50 && $room > 10",
        lasts="15m",
        summary=f"{_DEVICE} sells more than 1 kW while its battery has room and does not charge",
        remedy="See what the inverter's display says of the battery: its breaker, its fuse, a fault, a"
        " limit set by the owner. A battery too cold or too warm charges later by itself.",
        panel=("battery-and-pv", "Battery power"),
    ),
    Rule(
        uid="ess-string-imbalance",
        title="String imbalance",
        severity="warning",
        # Roofs differ, so that a string is measured by its own share of the weeks before.
        values={
            "share": _of_device('100 * sum("pv1_power") / sum("pv_power")', '"rollups"."pcs_1h"', "1d"),
            "usual": _of_device(
                '100 * sum("pv1_power") / sum("pv_power")', '"rollups"."pcs_1h"', "15d AND time < now() - 1d"
            ),
            "power": _of_device('mean("pv_power")', '"rollups"."pcs_1h"', "1d"),
        },
        seconds=15 * _DAY,
        condition="abs($share - $usual) > 15 && $power > 100",
        lasts="1h",
        summary=f"A PV string of {_DEVICE} gives much less of the whole than in the two weeks before",
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
            "lost": _of_device('mean("loss")', '"flow"', "1h"),
            "moved": _of_device(
                'mean("pv") + mean("battery_charge") + mean("battery_discharge")', '"flow"', "1h"
            ),
        },
        seconds=_HOUR,
        condition="$lost > 100 + 0.15 * $moved || $lost < -50 - 0.05 * $moved",
        lasts="15m",
        summary=f"What goes into the inverter of {_DEVICE} and what comes out do not add up",
        remedy="A loss too high is heat: feel for it, and look at the inverter's efficiency over weeks."
        " A loss below 0 means that a value is wrong: compare the profile's scales with the inverter's"
        " display.",
        panel=("battery-and-pv", "Lost in the inverter"),
    ),
)

GROUPS = {"recorder": _RECORDER, "grid": _GRID, "plant": _PLANT}

"""Which devices are missed: by the rule, and by a service that is started again."""

import json
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from recorder.commands.configuration import load_configuration
from recorder.expected_devices import ExpectedDevices
from recorder.simulator.faults import FaultRates
from recorder.simulator.plant import Plant
from recorder.simulator.strace_text import DIALECTS
from recorder.simulator.stream import SiteStream
from recorder.store.thinning import SeriesKey
from recorder.yaml_document import ConfigurationError
from tests.service.test_fleet import Fleet, connect
from tests.support.influxd import free_port, wait_until

PCS, METER, HEAT = "pcs", "meter", "heat_pump"
DEVICES: list[dict[str, Any]] = [
    {"profile": "lg-ess-gen1-pcs"},
    {"profile": "abb-b2x"},
    {"profile": "abb-b2x", "unit": 2, "device": HEAT},
]


def expected(directory: Path, sites: list[str], devices: list[dict[str, Any]]) -> ExpectedDevices:
    """The rule for one listener a site."""
    listeners = [{"name": site, "port": 0, "site": site} for site in sites]
    settings = {"site": sites[0], "data_dir": "data", "listeners": listeners, "devices": devices}
    (directory / "recorder.yaml").write_text(json.dumps(settings))
    configuration = load_configuration(directory / "recorder.yaml", {})
    return ExpectedDevices(configuration.settings, configuration.profiles)


def devices_of(rule: ExpectedDevices, site: str, *delivered: str) -> list[str]:
    return [device for _, device in rule.among([site], [(site, device) for device in delivered])]


def test_only_home_has_every_device_of_the_settings(tmp_path: Path) -> None:
    """A meter that is missing from the first minute on is missed, whatever else delivers."""
    rule = expected(tmp_path, ["home"], DEVICES[:2])
    assert devices_of(rule, "home") == devices_of(rule, "home", PCS) == [PCS, METER]


def test_home_of_a_fleet_is_not_asked_for_what_it_never_had(tmp_path: Path) -> None:
    """Once a device of a home delivers, the others are missed where they delivered before only."""
    rule = expected(tmp_path, ["north", "south"], DEVICES)
    assert devices_of(rule, "north", METER) == [METER]
    rule.learn([SeriesKey("north", "pcs", PCS), SeriesKey("south", "powermeter", METER)])
    assert devices_of(rule, "north", METER) == [PCS, METER]
    assert devices_of(rule, "south") == [METER]


def test_home_that_never_delivered_anything_is_missed(tmp_path: Path) -> None:
    """Of a home of which nothing came yet, any of the devices could come."""
    assert devices_of(expected(tmp_path, ["north", "south"], DEVICES), "north") == [PCS, METER, HEAT]


def test_device_is_missed_at_the_sites_that_its_settings_name(tmp_path: Path) -> None:
    """They hold from the start, and for a home that gave the device away; what delivers is watched anyway."""
    rule = expected(tmp_path, ["north", "south"], [*DEVICES[:2], {**DEVICES[2], "sites": ["north"]}])
    rule.learn([SeriesKey("south", "powermeter", device) for device in (METER, HEAT)])
    assert devices_of(rule, "north", METER) == [METER, HEAT]
    assert devices_of(rule, "south", METER) == [METER]
    assert devices_of(rule, "south", METER, HEAT) == [METER, HEAT]


def test_site_that_no_listener_has_is_refused(tmp_path: Path) -> None:
    """A name that is misspelt would silence the alarm for good."""
    with pytest.raises(ConfigurationError, match=r"no listener has the site nort.*north, south"):
        expected(tmp_path, ["north", "south"], [{"profile": "abb-b2x", "sites": ["nort"]}])


def test_what_a_home_delivered_is_missed_after_a_restart(tmp_path: Path) -> None:
    """The history on the disk knows the devices of each home; /healthz and its problems follow it."""

    def ages(fleet: Fleet) -> set[str]:
        return {key for key in fleet.health()[1]["sample_age_seconds"] if key.startswith("home-0/")}

    fleet = Fleet(tmp_path / "fleet", "", free_port())
    with fleet:
        assert ages(fleet) == {"home-0/pcs", "home-0/meter"}
        # Of a home that has no meter only the PCS comes.
        with connect(fleet.pcs_port, 0) as connection:
            connection.sendall(pcs_text(0))
            wait_until(lambda: ages(fleet) == {"home-0/pcs"})
        assert fleet.stop() == 0
    with fleet:
        assert ages(fleet) == {"home-0/pcs"}
        assert f"home-1/{METER}" in fleet.health()[1]["sample_age_seconds"]


def pcs_text(home: int) -> bytes:
    """Some seconds of a home's PCS alone."""
    stream = SiteStream(Plant(home, int(time.time()) - 5), DIALECTS["ttt"], FaultRates(), home, both=False)
    return b"".join(second.texts[0] for second in islice(stream, 5))

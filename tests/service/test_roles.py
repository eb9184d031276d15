"""Roles of a site's devices: what `check` and `/healthz` report about them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from recorder.commands.configuration import Configuration, load_configuration
from recorder.roles import devices_of, role_problems
from tests.support.service import ROOT, Service, ess_recorder

PCS: dict[str, Any] = {"profile": "lg-ess-gen1-pcs"}
METER: dict[str, Any] = {"profile": "abb-b2x"}
HEAT_PUMP: dict[str, Any] = {"profile": "abb-b2x", "unit": 2, "device": "heat_pump"}
SUBMETER = {**HEAT_PUMP, "role": "submeter"}


def settings_of(directory: Path, sites: list[str], *devices: dict[str, Any]) -> dict[str, Any]:
    """Settings with one listener a site, written to a file; ports are free ones."""
    settings = {
        "site": sites[0],
        "data_dir": str(directory / "data"),
        "listeners": [{"name": site, "bind": "127.0.0.1", "port": 0, "site": site} for site in sites],
        "http": {"port": 0},
        "devices": devices,
    }
    (directory / "recorder.yaml").write_text(json.dumps(settings))
    return settings


def configured(directory: Path, sites: list[str], *devices: dict[str, Any]) -> Configuration:
    settings_of(directory, sites, *devices)
    return load_configuration(directory / "recorder.yaml", {})


def problems(directory: Path, sites: list[str], *devices: dict[str, Any]) -> list[str]:
    configuration = configured(directory, sites, *devices)
    return [what for what, _ in role_problems(configuration.settings, configuration.profiles)]


def checked(directory: Path, *devices: dict[str, Any]) -> tuple[int, str]:
    """What `check` says about one site with these devices, with its exit code."""
    settings_of(directory, ["home"], *devices)
    done = ess_recorder("check", "--config", str(directory / "recorder.yaml"))
    return done.returncode, done.stdout.decode()


@pytest.mark.parametrize(
    "devices",
    [(PCS, METER), (METER,), (PCS, METER, SUBMETER), (METER, SUBMETER), ({**PCS, "role": "other"},)],
    ids=["LG ESS", "meter alone", "heat pump", "meter and heat pump", "no device of the balance"],
)
def test_sites_with_one_grid_meter_have_no_problem(tmp_path: Path, devices: tuple[dict[str, Any]]) -> None:
    """No inverter is no problem, and neither is a site whose devices take no part in a balance."""
    assert problems(tmp_path, ["home"], *devices) == []


def test_missing_grid_meter_fails_the_check(tmp_path: Path) -> None:
    """An inverter without a grid meter has no flows, and `check` says what to add."""
    code, text = checked(tmp_path, PCS)
    assert code == 1
    assert "FAIL  site home has no device with role grid_meter: no energy flows" in text
    assert "add the profile of the meter at the grid connection" in text


def test_second_grid_meter_fails_the_check(tmp_path: Path) -> None:
    """Of two grid meters `check` names both and the one that counts; as a submeter the second is right."""
    code, text = checked(tmp_path, PCS, METER, HEAT_PUMP)
    assert code == 1
    assert "FAIL  site home has 2 devices with role grid_meter (meter, heat_pump): only meter counts" in text
    assert "set role: submeter" in text
    code, text = checked(tmp_path, PCS, METER, SUBMETER)
    assert code == 0, text
    assert "ok    energy flows: each site has one grid meter" in text


def test_grid_meter_by_override_needs_a_power(tmp_path: Path) -> None:
    """A role that the settings give to a device without the quantity is a problem, not a silent one."""
    (what,) = problems(tmp_path, ["home"], {**PCS, "role": "grid_meter"})
    assert what == "pcs of site home has role grid_meter, and its profile has no quantity grid_power"


def test_sites_have_the_devices_that_the_settings_give_them(tmp_path: Path) -> None:
    """A meter with `sites` is that of those sites only; sites with the same devices are named together."""
    north, south = {**METER, "sites": ["north"]}, {**HEAT_PUMP, "sites": ["south"]}
    configuration = configured(tmp_path, ["north", "south"], PCS, north, south)
    assert list(role_problems(configuration.settings, configuration.profiles)) == []
    devices = devices_of(configuration.settings, configuration.profiles, "south")
    assert [one.device for one in devices] == ["pcs", "heat_pump"]
    (what,) = problems(tmp_path, ["north", "south", "west"], PCS, north)
    assert what.startswith("each of the sites south, west has no device with role grid_meter")
    (what,) = problems(tmp_path, [f"home-{number}" for number in range(9)], PCS)
    assert what.startswith("each of the sites home-0, home-1, home-2 and 6 more has no device")


def test_profile_without_a_role_is_noted_with_the_lines_to_add(tmp_path: Path) -> None:
    """The copy of a profile from before roles works, and `check` shows what its author should add."""
    shipped = (ROOT / "config/profiles/abb-b2x.yaml").read_text()
    energy = "energy: {grid_import: active_import, grid_export: active_export}\n\n"
    older = re.sub(r"(?ms)^role:.*?(?=^registers:)", energy, shipped)
    assert older != shipped
    (tmp_path / "older.yaml").write_text(older)
    code, text = checked(tmp_path, PCS, {"profile": "older.yaml"})
    assert code == 0, text
    assert "note  profile abb-b2x has no role: grid_meter is assumed" in text
    assert (
        "add to it role: grid_meter and quantities: {grid_import: active_import, grid_export: active_export, "
        "grid_power: active_power}"
    ) in text


def test_health_reports_a_second_grid_meter(tmp_path: Path) -> None:
    """What `check` would have said stands in /healthz and in `status` while the recorder runs."""
    service = Service(tmp_path, "", ESS_CONFIG=str(tmp_path / "recorder.yaml"))
    settings = settings_of(tmp_path, ["home"], PCS, METER, HEAT_PUMP)
    settings["http"]["port"] = service.http_port
    settings["listeners"][0]["port"] = service.pcs_port
    (tmp_path / "recorder.yaml").write_text(json.dumps(settings))
    with service:
        found = service.health()[1]["problems"]
    assert [text for text in found if "role grid_meter (meter, heat_pump)" in text], found

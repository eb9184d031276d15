"""docker-compose.yml: one command, no secret, nothing published that need not be."""

import re
from typing import Any

import pytest
import yaml

from tests.docker.compose import ROOT, SERVICES, TEXT, load

EACH_SERVICE = pytest.mark.parametrize("name", SERVICES)
LASTING = sorted(set(SERVICES) - {"passwords"})


def volumes_of(service: dict[str, Any]) -> dict[str, str]:
    """What is mounted where: source by target, without `:ro`."""
    return {words[1]: words[0] for words in (volume.split(":") for volume in service["volumes"])}


def test_no_variable_is_needed() -> None:
    """`docker compose up -d` works without an `.env` file: every variable has a default."""
    assert load({})["services"].keys() == {"passwords", "influxdb", "recorder", "grafana"}


def test_documented_variables_take_effect() -> None:
    """Site, time zone, log level and Grafana's address come from the environment."""
    given = {
        "ESS_SITE": "cabin",
        "ESS_TIMEZONE": "Europe/Oslo",
        "ESS_LOG_LEVEL": "debug",
        "GRAFANA_PORT": "80",
        "GRAFANA_BIND": "127.0.0.1",
        "ESS_GRAFANA_URL": "http://cabin:80/",
    }
    services = load(given)["services"]
    recorder = services["recorder"]["environment"]
    assert {name: recorder[name] for name in given if name in recorder} == {
        name: given[name] for name in ("ESS_SITE", "ESS_TIMEZONE", "ESS_LOG_LEVEL")
    }
    assert services["grafana"]["environment"]["GF_SERVER_ROOT_URL"] == "http://cabin:80/"
    assert services["grafana"]["environment"]["GF_DATE_FORMATS_DEFAULT_TIMEZONE"] == "Europe/Oslo"
    assert services["grafana"]["ports"] == ["127.0.0.1:80:3000"]


def test_documented_variables_are_all_there_are() -> None:
    """The variables of the file are those that its head and the documentation explain."""
    used = set(re.findall(r"\$\{([A-Z_]+)", TEXT))
    head = TEXT.partition("name:")[0]
    documented = (ROOT / "docs/docker.md").read_text()
    assert used == set(re.findall(r"^#   ([A-Z_]+)", head, re.MULTILINE))
    assert all(f"`{name}`" in documented for name in used)


@EACH_SERVICE
def test_image_is_pinned(name: str) -> None:
    """Each image is an exact version, or is built from this repository."""
    service = SERVICES[name]
    assert "build" in service or re.search(r":\d+\.\d+\.\d+(-alpine)?$", service["image"])


@EACH_SERVICE
def test_service_is_confined(name: str) -> None:
    """Each service has no capabilities, a read-only root, bounded memory and bounded logs."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["init"] is True
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["logging"]["options"] == {"max-size": "5m", "max-file": "3"}


@pytest.mark.parametrize("name", LASTING)
def test_lasting_service_comes_back_and_is_watched(name: str) -> None:
    """Each lasting service starts again after a crash or a reboot, and has a health check."""
    assert SERVICES[name]["restart"] == "unless-stopped"
    watched_by_image = "build" in SERVICES[name] and "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()
    assert "healthcheck" in SERVICES[name] or watched_by_image


def test_memory_fits_a_small_raspberry_pi() -> None:
    """All lasting services together may take less than 2 GB."""
    factors = {"m": 1, "g": 1024}
    limits = [SERVICES[name]["mem_limit"] for name in LASTING]
    assert sum(int(limit[:-1]) * factors[limit[-1]] for limit in limits) < 2000


def test_influxdb_is_not_published() -> None:
    """InfluxDB has no published port, demands a user, and is on a network without a way out."""
    influxdb = SERVICES["influxdb"]
    assert "ports" not in influxdb
    assert influxdb["environment"]["INFLUXDB_HTTP_AUTH_ENABLED"] == "true"
    assert influxdb["networks"] == ["database"]
    assert load({})["networks"]["database"] == {"internal": True}


def test_page_without_login_is_published_on_loopback_only() -> None:
    """The recorder's HTTP port is for this machine; the streams and Grafana are for the network."""
    assert SERVICES["recorder"]["ports"] == ["5001:5001", "5002:5002", "127.0.0.1:8080:8080"]
    assert SERVICES["grafana"]["ports"] == ["0.0.0.0:3000:3000"]


def test_password_maker_has_no_network() -> None:
    """The one service that runs as root has no network, and ends by itself."""
    passwords = SERVICES["passwords"]
    assert (passwords["user"], passwords["network_mode"], passwords["restart"]) == ("0:0", "none", "no")
    assert passwords["cap_add"] == ["CHOWN", "DAC_READ_SEARCH"]


@EACH_SERVICE
def test_environment_holds_no_secret(name: str) -> None:
    """What is called a password is the path of a file in the service's own password volume."""
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search("PASSWORD|TOKEN|SECRET", variable):
            assert variable.endswith("_FILE")
            assert value.startswith("/run/passwords/")


def test_each_service_sees_its_own_passwords_only() -> None:
    """The recorder and Grafana mount a volume of their own, read-only, and InfluxDB mounts none."""
    assert volumes_of(SERVICES["recorder"])["/run/passwords"] == "recorder-passwords"
    assert volumes_of(SERVICES["grafana"])["/run/passwords"] == "grafana-passwords"
    assert volumes_of(SERVICES["influxdb"]) == {"/var/lib/influxdb": "influxdb-data"}
    for name in ("recorder", "grafana"):
        (mount,) = (volume for volume in SERVICES[name]["volumes"] if "/run/passwords" in volume)
        assert mount.endswith(":ro")


def test_volumes_are_declared_and_files_exist() -> None:
    """Each mounted name is a declared volume, and each mounted path is in the repository."""
    sources = {source for service in SERVICES.values() for source in volumes_of(service).values()}
    paths = {source for source in sources if source.startswith(".")}
    assert sources - paths == load({})["volumes"].keys()
    assert all((ROOT / path).exists() for path in paths)


def test_recording_does_not_wait_for_the_database() -> None:
    """The recorder needs its passwords only: it starts beside an InfluxDB that is not ready."""
    conditions = {name: need["condition"] for name, need in SERVICES["recorder"]["depends_on"].items()}
    assert conditions == {"passwords": "service_completed_successfully", "influxdb": "service_started"}


def test_grafana_calls_nobody() -> None:
    """Grafana asks for a login, lets nobody sign up, and reports to nobody."""
    environment = SERVICES["grafana"]["environment"]
    off = {
        "GF_AUTH_ANONYMOUS_ENABLED",
        "GF_USERS_ALLOW_SIGN_UP",
        "GF_ANALYTICS_REPORTING_ENABLED",
        "GF_ANALYTICS_CHECK_FOR_UPDATES",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
        "GF_NEWS_NEWS_FEED_ENABLED",
        "GF_SNAPSHOTS_EXTERNAL_ENABLED",
    }
    on = {"GF_SECURITY_DISABLE_GRAVATAR", "GF_PLUGINS_PREINSTALL_DISABLED"}
    assert {environment[name] for name in off} == {"false"}
    assert {environment[name] for name in on} == {"true"}


def test_dashboards_are_mounted_where_grafana_looks() -> None:
    """The provider's path, the home dashboard and the mount are one directory."""
    provider = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/ess.yaml").read_text())["providers"][0]
    directory = provider["options"]["path"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert volumes_of(SERVICES["grafana"])[directory] == "./grafana/dashboards"
    assert home == f"{directory}/energy-flows.json"
    assert (ROOT / "grafana/dashboards/energy-flows.json").is_file()

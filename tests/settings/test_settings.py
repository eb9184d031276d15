"""The shipped settings, every variable they read, and secrets in files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from recorder.commands.configuration import load_configuration
from recorder.profiles import parse
from recorder.resources import shipped_config_dir
from recorder.settings import Settings
from recorder.yaml_document import Allowed, ConfigurationError, _model_in

SHIPPED = shipped_config_dir() / "recorder.yaml"
LOGIN = {"ESS_INFLUXDB_USERNAME": "ess", "ESS_INFLUXDB_PASSWORD": "correct horse"}


def value_at(settings: Settings, path: str) -> Any:
    """The value at a dotted path such as `listeners.0.port`, secrets shown."""
    value: Any = settings
    for step in path.split("."):
        value = value[int(step)] if step.isdigit() else getattr(value, step)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


VARIABLES: list[tuple[dict[str, str], str, object, object]] = [
    ({"ESS_SITE": 'Hof 3/"b"'}, "site", "home", 'Hof 3/"b"'),
    ({"ESS_TIMEZONE": "America/New_York"}, "timezone", "Europe/Berlin", "America/New_York"),
    ({"ESS_BIND": "::"}, "listeners.0.bind", "0.0.0.0", "::"),
    ({"ESS_BIND": "127.0.0.1"}, "listeners.1.bind", "0.0.0.0", "127.0.0.1"),
    ({"ESS_PCS_PORT": "0"}, "listeners.0.port", 5001, 0),
    ({"ESS_POWERMETER_PORT": "6002"}, "listeners.1.port", 5002, 6002),
    ({"ESS_HTTP_BIND": "0.0.0.0"}, "http.bind", "127.0.0.1", "0.0.0.0"),
    ({"ESS_HTTP_PORT": "0"}, "http.port", 8080, 0),
    ({"ESS_HTTP_TOKEN": "0123"}, "http.token", None, "0123"),
    ({"ESS_HTTP_TOKEN_FILE": "{secret}"}, "http.token", None, "from a file"),
    ({"ESS_DATA_DIR": "/var/lib/ess"}, "data_dir", Path("data"), Path("/var/lib/ess")),
    ({"ESS_LOG_LEVEL": "debug"}, "log_level", "info", "debug"),
    ({"ESS_TARIFF_FILE": "tariff.yaml"}, "tariff_file", None, Path("tariff.yaml")),
    ({"ESS_INFLUXDB_URL": "https://db:1/x/"}, "influxdb.url", "", "https://db:1/x"),
    ({"ESS_INFLUXDB_DATABASE": "energy"}, "influxdb.database", "ess", "energy"),
    (LOGIN, "influxdb.username", None, "ess"),
    (LOGIN, "influxdb.password", None, "correct horse"),
    ({"ESS_INFLUXDB_TOKEN": "0123"}, "influxdb.token", None, "0123"),
    ({**LOGIN, "ESS_INFLUXDB_CLAIM": "true"}, "influxdb.claim_new_server", False, True),
    (
        {"ESS_INFLUXDB_USERNAME": "ess", "ESS_INFLUXDB_PASSWORD_FILE": "{secret}"},
        "influxdb.password",
        None,
        "from a file",
    ),
    (
        {"ESS_GRAFANA_READER_USERNAME": "grafana", "ESS_GRAFANA_READER_PASSWORD_FILE": "{secret}"},
        "influxdb.reader.password",
        None,
        "from a file",
    ),
    (
        {"ESS_GRAFANA_READER_USERNAME": "grafana", "ESS_GRAFANA_READER_PASSWORD_FILE": "{secret}"},
        "influxdb.reader.username",
        None,
        "grafana",
    ),
]


@pytest.mark.parametrize(("environment", "path", "default", "value"), VARIABLES)
def test_variable_reaches_its_setting(
    tmp_path: Path, environment: dict[str, str], path: str, default: object, value: object
) -> None:
    """Each variable of the shipped file changes its setting, which has the documented default without it."""
    secret = tmp_path / "secret"
    secret.write_text("from a file\n")
    environment = {name: text.replace("{secret}", str(secret)) for name, text in environment.items()}
    assert value_at(load_configuration(SHIPPED, {}).settings, path) == default
    assert value_at(load_configuration(SHIPPED, environment).settings, path) == value


def test_every_variable_of_the_shipped_file_is_tested() -> None:
    """No variable stands in the shipped file without a row in the table above."""
    named = set(re.findall(r"\$\{(ESS_\w+):-", SHIPPED.read_text()))
    assert named == {name for environment, *_ in VARIABLES for name in environment}


def test_shipped_file_shows_the_defaults() -> None:
    """What the shipped file sets without a variable is what a file that leaves it out gets."""
    shipped = load_configuration(SHIPPED, {}).settings
    for name in ("writer", "queue", "retention", "queries", "flow", "clock", "influxdb", "http", "store"):
        assert getattr(shipped, name) == Settings.model_fields[name].default


def test_shipped_configuration_carries_both_devices() -> None:
    """Without any environment the shipped file loads with its two profiles."""
    configuration = load_configuration(None, {})
    assert [profile.name for profile in configuration.profiles] == ["lg-ess-gen1-pcs", "abb-b2x"]


@pytest.mark.parametrize(
    "site", ["Haus Müller", 'O\'Neil "farm"', "a/b,c=d\\e", "12", "no", "null", "2016-01-01", "{}"]
)
def test_site_may_be_any_printable_text(site: str) -> None:
    """Umlauts, quotes, spaces, slashes and words with a meaning in YAML are a site like any other."""
    assert load_configuration(SHIPPED, {"ESS_SITE": site}).settings.site == site


@pytest.mark.parametrize("site", ["a\nb", " home", "x" * 65, "a\x7f", "a\u2028b"])
def test_site_that_could_break_a_line_is_refused(site: str) -> None:
    """Control characters, spaces at the ends and long names are errors that name the key."""
    with pytest.raises(
        ConfigurationError, match=r"recorder\.yaml:\d+: site: .* is not allowed; allowed is 1 to 64"
    ):
        load_configuration(SHIPPED, {"ESS_SITE": site})


def test_every_listener_may_take_any_free_port() -> None:
    """Port 0 on all listeners and the live page is no clash."""
    environment = dict.fromkeys(("ESS_PCS_PORT", "ESS_POWERMETER_PORT", "ESS_HTTP_PORT"), "0")
    settings = load_configuration(SHIPPED, environment | {"ESS_BIND": "127.0.0.1"}).settings
    assert [listener.port for listener in settings.listeners] == [0, 0]


def test_secret_is_hidden_when_settings_are_shown(tmp_path: Path) -> None:
    """Neither a password nor the content of a secret file is in the text of the settings."""
    secret = tmp_path / "secret"
    secret.write_text("from-a-file")
    environment = {
        "ESS_INFLUXDB_USERNAME": "ess",
        "ESS_INFLUXDB_PASSWORD": "from-a-variable",
        "ESS_GRAFANA_READER_USERNAME": "grafana",
        "ESS_GRAFANA_READER_PASSWORD_FILE": str(secret),
    }
    settings = load_configuration(SHIPPED, environment).settings
    assert "from-a-" not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"one\ntwo\n", "more than one line"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"x" * 5000, "more than 4096 bytes"),
    ],
)
def test_useless_secret_file_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    """A secret file that holds no single line of text is named with its key."""
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    environment = {"ESS_INFLUXDB_USERNAME": "ess", "ESS_INFLUXDB_PASSWORD_FILE": str(secret)}
    with pytest.raises(ConfigurationError, match=rf"influxdb\.password_file: .*{problem}"):
        load_configuration(SHIPPED, environment)


def test_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A missing file, a directory and bytes that are not UTF-8 are configuration errors."""
    broken = tmp_path / "broken.yaml"
    broken.write_bytes(b"site: \xff")
    for path in (tmp_path / "missing.yaml", tmp_path, broken):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            load_configuration(path, {})


def test_own_profile_is_found_beside_the_settings_file(tmp_path: Path) -> None:
    """A profile that is not shipped is a path beside the settings file; unit and device are overridden."""
    shipped = (shipped_config_dir() / "profiles" / "abb-b2x.yaml").read_text()
    (tmp_path / "pump.yaml").write_text(shipped.replace("measurement: powermeter", "measurement: pump"))
    settings = SHIPPED.read_text().replace(
        "  - profile: abb-b2x\n", "  - {profile: pump.yaml, unit: 7, device: garage}\n"
    )
    (tmp_path / "recorder.yaml").write_text(settings)
    pump = load_configuration(tmp_path / "recorder.yaml", {}).profiles[1]
    assert (pump.measurement, pump.unit, pump.device) == ("pump", 7, "garage")


def test_mistake_in_an_own_profile_names_that_file(tmp_path: Path) -> None:
    """The message points into the profile, and not into the settings file that names it."""
    (tmp_path / "pump.yaml").write_text("name: pump\n")
    (tmp_path / "recorder.yaml").write_text(
        SHIPPED.read_text().replace("profile: abb-b2x\n", "profile: pump.yaml\n")
    )
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(tmp_path / "recorder.yaml", {})
    assert {mistake.file for mistake in caught.value.mistakes} == {str(tmp_path / "pump.yaml")}


def leaves(model: type[BaseModel], path: str) -> Iterator[tuple[str, list[object]]]:
    """Every field that is not itself a mapping, with its metadata."""
    for name, field in model.model_fields.items():
        nested = _model_in(field.annotation)
        if nested:
            yield from leaves(nested, f"{path}.{name}")
        if not nested or "tuple" in str(field.annotation):
            yield f"{path}.{name}", field.metadata


@pytest.mark.parametrize("model", [Settings, parse._Profile])
def test_every_key_says_what_is_allowed(model: type[BaseModel]) -> None:
    """No key of settings or profiles falls back to a library's wording."""
    silent = [
        path
        for path, metadata in leaves(model, "")
        if not any(isinstance(item, Allowed) for item in metadata)
    ]
    assert silent == []

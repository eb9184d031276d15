"""What the owner sets: one YAML file with values from the environment, checked as a whole.

Takes the path of the file and the environment, gives frozen `Settings`. Reads that file and the
secret files it names, and nothing else; never shows a secret in a message or a `repr`.
"""

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from recorder.secrets import MAX_SECRET_BYTES, secret_in
from recorder.yaml_document import (
    MAX_TEXT_BYTES,
    Allowed,
    ConfigurationError,
    Document,
    KeyPath,
    Mistake,
    parse_document,
)

Network = IPv4Network | IPv6Network

# Keys whose value is text even where it looks like a number, a truth value or nothing.
TEXT_KEYS = frozenset(
    {"site", "timezone", "data_dir", "name", "bind", "profile", "device", "url", "database"}
    | {"username", "password", "password_file", "token", "token_file", "raw", "avg10", "rollups"}
)

_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*")
_DURATION = re.compile(r"inf|[1-9][0-9]{0,4}[hdw]")

PRIVATE_NETWORKS: tuple[Network, ...] = (
    *map(IPv4Network, ("127.0.0.0/8", "169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    *map(IPv6Network, ("::1/128", "fe80::/10", "fc00::/7")),
)


def _require(condition: object) -> None:
    """Reject the value; the words for it stand in the field's `Allowed`."""
    if not condition:
        raise ValueError


def _printable(text: str) -> str:
    _require(text.isprintable() and text.strip() == text)
    return text


def _timezone(name: str) -> str:
    _require(name and name.isascii() and name not in {"localtime", "Factory"})
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError from error
    return name


def _host(name: str) -> str:
    """An address, or a name that cannot be mistaken for a mistyped IPv4 address."""
    if not re.fullmatch(r"[0-9.]+", name) and _HOST_NAME.fullmatch(name):
        return name
    return str(ip_address(name))


def _url(text: str) -> str:
    parts = urlsplit(text)
    _require(parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and text.isprintable())
    _require(not (parts.query or parts.fragment or "@" in parts.netloc or " " in text))
    return text.rstrip("/")


def _network(value: object) -> Network:
    _require(isinstance(value, str))
    return ip_network(str(value))


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _path(value: object) -> Path | None:
    _require(value is None or (isinstance(value, str) and "\0" not in value))
    return Path(str(value)) if value else None


Empty = BeforeValidator(_none_if_empty)
Port = Annotated[int, Field(ge=0, le=65535), Allowed("a port from 0 to 65535; 0 takes any free one")]
Bind = Annotated[
    str, AfterValidator(_host), Allowed("an address such as 0.0.0.0, 127.0.0.1, :: or localhost")
]
Text = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
Label = Annotated[Text, Allowed("1 to 64 printable characters, without spaces at the ends")]
OptionalLabel = Annotated[
    Text | None, Empty, Allowed("up to 64 printable characters, without spaces at the ends, or empty")
]
Directory = Annotated[Path, BeforeValidator(_path), Allowed("a path")]
SecretFile = Annotated[
    Path | None, BeforeValidator(_path), Allowed("the path of a file that holds the secret, or empty")
]
Secret = Annotated[
    Annotated[SecretStr, Field(max_length=MAX_SECRET_BYTES)] | None,
    Empty,
    Allowed("a text, or empty", secret=True),
]
Seconds = Annotated[float, Field(gt=0, le=86400), Allowed("a number of seconds above 0, up to 86400")]
Flag = Annotated[bool, Allowed("true or false")]
Duration = Annotated[
    str,
    AfterValidator(lambda text: _require(_DURATION.fullmatch(text)) or text),
    Allowed("a number with h, d or w, such as 90d, or inf for ever"),
]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class ListenerSettings(_Model):
    """One TCP port that takes a stream of strace text; `site` overrides the recorder's."""

    name: Label
    bind: Bind = "0.0.0.0"  # noqa: S104  # the controller sends from another machine; `allow` bounds who may
    port: Port
    site: OptionalLabel = None
    allow: Annotated[
        tuple[Annotated[Network, BeforeValidator(_network)], ...],
        Field(min_length=1),
        Allowed("a list of networks or addresses, such as 192.168.1.0/24 (no bits behind the prefix)"),
    ] = PRIVATE_NETWORKS
    max_connections: Annotated[int, Field(ge=1, le=4096), Allowed("a number from 1 to 4096")] = 32
    max_line_bytes: Annotated[
        int, Field(ge=1024, le=1 << 20), Allowed("a number of bytes from 1024 to 1048576")
    ] = 65536
    idle_close_seconds: Seconds = 60.0
    first_frame_within_seconds: Seconds = 120.0
    max_bytes_per_second: Annotated[
        int, Field(ge=65536, le=1 << 30), Allowed("a number of bytes from 65536 to 1073741824")
    ] = 4 << 20


class HttpSettings(_Model):
    """The live page, JSON and metrics."""

    bind: Bind = "127.0.0.1"
    port: Port = 8080


class DeviceSettings(_Model):
    """A device that streams may carry; `unit` and `device` override the profile's."""

    profile: Annotated[
        str,
        Field(min_length=1, max_length=4096),
        Allowed("the name of a shipped profile, or the path of a file"),
    ]
    unit: Annotated[Annotated[int, Field(ge=1, le=247)] | None, Allowed("a Modbus unit from 1 to 247")] = None
    device: Annotated[
        Annotated[str, Field(pattern=r"\A[a-z][a-z0-9_]{0,63}\z")] | None,
        Allowed("a name of up to 64 of a-z, 0-9 and _, with a letter first"),
    ] = None


class ReaderSettings(_Model):
    """A read-only database user for Grafana; `password` holds the secret wherever it came from."""

    username: OptionalLabel = None
    password: Secret = None
    password_file: SecretFile = None


class InfluxSettings(_Model):
    """Where points go; `password` and `token` hold the secrets wherever they came from."""

    url: Annotated[
        str,
        AfterValidator(_url),
        Allowed("an http:// or https:// address without user and password, such as http://127.0.0.1:8086"),
    ] = "http://127.0.0.1:8086"
    database: Annotated[
        str,
        Field(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\z"),
        Allowed("up to 64 of A-Z, a-z, 0-9, dot, dash and _, with a letter or digit first"),
    ] = "ess"
    username: OptionalLabel = None
    password: Secret = None
    password_file: SecretFile = None
    token: Secret = None
    token_file: SecretFile = None
    timeout_seconds: Seconds = 10.0
    create_database: Flag = True
    claim_new_server: Flag = False
    reader: ReaderSettings = ReaderSettings()


class WriterSettings(_Model):
    """How points are batched and how failed writes are repeated."""

    batch_points: Annotated[int, Field(ge=1, le=100_000), Allowed("a number from 1 to 100000")] = 5000
    flush_after_seconds: Seconds = 1.0
    gzip: Flag = True
    retry_min_seconds: Seconds = 1.0
    retry_max_seconds: Seconds = 60.0


Bytes = Annotated[int, Field(ge=65536, le=1 << 40), Allowed("a number of bytes from 65536 to 1099511627776")]


class QueueSettings(_Model):
    """How much waits while InfluxDB does not answer; beyond it the oldest points go, counted."""

    max_bytes: Bytes = 2 << 30
    max_age: Duration = "90d"
    max_memory_bytes: Bytes = 32 << 20
    commit_interval_seconds: Seconds = 10.0


class RetentionSettings(_Model):
    """How long InfluxDB keeps each class of data."""

    raw: Duration = "90d"
    avg10: Duration = "30d"
    rollups: Duration = "inf"


class QueriesSettings(_Model):
    """Whether the recorder installs the continuous queries, and how often it looks after them."""

    manage: Flag = True
    audit_every_seconds: Seconds = 300.0


class FlowSettings(_Model):
    """How old a meter point may be to make a flow point with a PCS point."""

    meter_max_age_seconds: Seconds = 5.0


class ClockSettings(_Model):
    """How far the controller's clock may be off before its stamps are corrected."""

    tolerance_seconds: Seconds = 2.0


class Settings(_Model):
    """Everything that the owner sets."""

    site: Label
    timezone: Annotated[
        str, AfterValidator(_timezone), Allowed("an IANA time zone, such as Europe/Berlin")
    ] = "UTC"
    data_dir: Directory
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Allowed("debug, info, warning or error")
    ] = "info"
    listeners: Annotated[
        tuple[ListenerSettings, ...],
        Field(min_length=1, max_length=256),
        Allowed("a list of 1 to 256 listeners, each with name and port"),
    ]
    http: HttpSettings = HttpSettings()
    devices: Annotated[
        tuple[DeviceSettings, ...],
        Field(min_length=1, max_length=256),
        Allowed("a list of 1 to 256 devices, each with a profile"),
    ]
    influxdb: InfluxSettings = InfluxSettings()
    writer: WriterSettings = WriterSettings()
    queue: QueueSettings = QueueSettings()
    retention: RetentionSettings = RetentionSettings()
    queries: QueriesSettings = QueriesSettings()
    flow: FlowSettings = FlowSettings()
    clock: ClockSettings = ClockSettings()


def load_settings(path: Path, environment: Mapping[str, str]) -> Settings:
    """Read and check one settings file and the secret files that it names.

    Paths in it are relative to the working directory.

    Raises:
        ConfigurationError: with all mistakes found, each with file, line, key and what is allowed.
    """
    return check_settings(parse_document(read_text(path), str(path), environment, TEXT_KEYS))


def check_settings(document: Document) -> Settings:
    """Settings from a document; raises `ConfigurationError` as `load_settings` does."""
    settings = document.validate(Settings)
    mistakes = [*_listener_mistakes(document, settings), *_access_mistakes(document, settings)]
    if settings.writer.retry_min_seconds > settings.writer.retry_max_seconds:
        path = ("writer", "retry_min_seconds")
        mistakes.append(document.mistake(path, "is above retry_max_seconds", "allowed is at most that"))
    influxdb, found = _with_secrets(document, settings.influxdb)
    if mistakes or found:
        raise ConfigurationError([*mistakes, *found])
    return settings.model_copy(update={"influxdb": influxdb})


def read_text(path: Path) -> str:
    """The text of a configuration file.

    Raises:
        ConfigurationError: when it is missing, unreadable, too large, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_TEXT_BYTES + 1).decode()
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        remedy = "name a readable text file in UTF-8"
        raise ConfigurationError([Mistake(str(path), 1, "", f"cannot be read: {problem}", remedy)]) from error


def _listener_mistakes(document: Document, settings: Settings) -> Iterator[Mistake]:
    names: set[str] = set()
    taken = [("http", settings.http.bind, settings.http.port)]
    for index, listener in enumerate(settings.listeners):
        if listener.name in names:
            problem = "another listener has this name"
            yield document.mistake(("listeners", index, "name"), problem, "give each its own name")
        names.add(listener.name)
        for other, bind, port in taken:
            if listener.port == port != 0 and _same_address(listener.bind, bind):
                problem = f"{port} is taken by {other}"
                yield document.mistake(("listeners", index, "port"), problem, "give each its own port")
        taken.append((listener.name, listener.bind, listener.port))


def _same_address(one: str, other: str) -> bool:
    """Whether one port cannot serve both: equal addresses, or one that stands for all."""
    return one == other or not {"0.0.0.0", "::"}.isdisjoint({one, other})  # noqa: S104  # compared only


def _access_mistakes(document: Document, settings: Settings) -> Iterator[Mistake]:
    """Logins that are half given, or given twice."""
    influxdb = settings.influxdb
    for path, login in ((("influxdb",), influxdb), (("influxdb", "reader"), influxdb.reader)):
        secrets = [key for key in ("password", "password_file") if getattr(login, key)]
        if len(secrets) == 2:
            yield document.mistake((*path, "password_file"), "password is given too", "keep one of them")
        if login.username and not secrets:
            remedy = "give password or password_file, or leave username empty"
            yield document.mistake((*path, "username"), "a username without a password", remedy)
        if secrets and not login.username:
            remedy = "give username, or leave the password empty"
            yield document.mistake((*path, secrets[0]), "a password without a username", remedy)
    if influxdb.token and influxdb.token_file:
        yield document.mistake(("influxdb", "token_file"), "token is given too", "keep one of them")
    if influxdb.username and (influxdb.token or influxdb.token_file):
        key = "token" if influxdb.token else "token_file"
        yield document.mistake(("influxdb", key), "a username is given too", "use a username or a token")
    if influxdb.claim_new_server and not influxdb.username:
        remedy = "give username and password of the first user, or set it to false"
        yield document.mistake(("influxdb", "claim_new_server"), "there is no username to create", remedy)
    if influxdb.reader.username and influxdb.reader.username == influxdb.username:
        problem = "the recorder's own user cannot be the read-only one"
        yield document.mistake(("influxdb", "reader", "username"), problem, "give it another name")


def _with_secrets(document: Document, influxdb: InfluxSettings) -> tuple[InfluxSettings, list[Mistake]]:
    """The settings with the content of their secret files, and what is wrong with those files."""
    mistakes: list[Mistake] = []

    def secret(path: KeyPath, file: Path | None, given: SecretStr | None) -> SecretStr | None:
        if file is None or given is not None:
            return given
        try:
            return SecretStr(secret_in(file))
        except (OSError, ValueError) as error:
            problem = error.strerror if isinstance(error, OSError) else str(error)
            mistakes.append(
                document.mistake(path, f"{file}: {problem}", "name a readable file with one line")
            )
            return None

    reader = influxdb.reader
    path: KeyPath = ("influxdb", "reader", "password_file")
    reader = reader.model_copy(update={"password": secret(path, reader.password_file, reader.password)})
    update: dict[str, Any] = {
        "reader": reader,
        "password": secret(("influxdb", "password_file"), influxdb.password_file, influxdb.password),
        "token": secret(("influxdb", "token_file"), influxdb.token_file, influxdb.token),
    }
    return influxdb.model_copy(update=update), mistakes

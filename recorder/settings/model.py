"""Everything that the owner sets, key by key, with its default.

Takes checked values, gives frozen records. Never shows a secret in a `repr`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from recorder.settings.values import (
    PRIVATE_NETWORKS,
    Bind,
    Bytes,
    Directory,
    Duration,
    Flag,
    Hosts,
    Label,
    NetworkText,
    OptionalFile,
    OptionalLabel,
    OptionalSiteNames,
    OptionalUrl,
    Port,
    Seconds,
    Secret,
    SecretFile,
    Sites,
    TimeZone,
)
from recorder.yaml_document import Allowed

# Keys whose value is text even where it looks like a number, a truth value or nothing.
TEXT_KEYS = frozenset(
    {"site", "timezone", "data_dir", "name", "bind", "hosts", "profile", "device", "role", "url", "database"}
    | {"username", "password", "password_file", "token", "token_file", "raw", "avg10", "rollups"}
    | {"minutes", "quarter_hours", "hours", "days", "tariff_file"}
)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class ListenerSettings(_Model):
    """One TCP port that takes streams of strace text; `site` overrides the recorder's.

    `assume_in_step` takes a bus for in step when its stream begins, for buses whose polls all look alike.

    `sites` gives a stream its site by its address. An address that it does not hold has the site of
    `site`, and where that is left out too it is refused: two homes in one series cannot be told apart.
    """

    name: Label
    bind: Bind = "0.0.0.0"  # noqa: S104  # the controller sends from another machine; `allow` bounds who may
    port: Port
    reuse_port: Flag = False
    site: OptionalLabel = None
    sites: Sites = Field(default_factory=dict)
    allow: Annotated[
        tuple[NetworkText, ...],
        Field(min_length=1),
        Allowed("a list of networks or addresses, such as 192.168.1.0/24 (no bits behind the prefix)"),
    ] = PRIVATE_NETWORKS
    max_connections: Annotated[int, Field(ge=1, le=65535), Allowed("a number from 1 to 65535")] = 32
    max_line_bytes: Annotated[
        int, Field(ge=1024, le=1 << 20), Allowed("a number of bytes from 1024 to 1048576")
    ] = 65536
    idle_close_seconds: Seconds = 60.0
    first_frame_within_seconds: Seconds = 120.0
    max_bytes_per_second: Annotated[
        int, Field(ge=65536, le=1 << 30), Allowed("a number of bytes from 65536 to 1073741824")
    ] = 4 << 20
    assume_in_step: Flag = False


class HttpSettings(_Model):
    """The live page, JSON and metrics; `token` holds the secret wherever it came from.

    `hosts` are names of the public DNS under which a browser may ask, such as that of a reverse proxy.
    """

    bind: Bind = "127.0.0.1"
    port: Port = 8080
    token: Secret = None
    token_file: SecretFile = None
    hosts: Hosts = ()


class DeviceSettings(_Model):
    """A device that streams may carry; `unit`, `device` and `role` override the profile's.

    `sites` names the sites that have it: it is missed there from the start. Without them it is missed where
    it delivered before; and where there is one site only, that site has every device.
    """

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
    role: Annotated[
        Literal["inverter", "hybrid_inverter", "grid_meter", "battery", "submeter", "other"] | None,
        Allowed("inverter, hybrid_inverter, grid_meter, battery, submeter or other"),
    ] = None
    sites: OptionalSiteNames = None


class ReaderSettings(_Model):
    """A read-only database user for Grafana; `password` holds the secret wherever it came from."""

    username: OptionalLabel = None
    password: Secret = None
    password_file: SecretFile = None


class InfluxSettings(_Model):
    """Where points go; `password` and `token` hold the secrets wherever they came from.

    Without a `url` there is no InfluxDB: the recorder keeps the data itself, for one that is named later.
    """

    url: OptionalUrl = ""
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


class QueueSettings(_Model):
    """How much waits while InfluxDB does not answer; beyond it the oldest points go, counted."""

    max_bytes: Bytes = 2 << 30
    max_age: Duration = "90d"
    max_memory_bytes: Bytes = 32 << 20
    commit_interval_seconds: Seconds = 10.0


class StoreSettings(_Model):
    """How long the recorder's own history keeps each width of buckets, and how large its file may be."""

    minutes: Duration = "90d"
    quarter_hours: Duration = "1100d"
    hours: Duration = "inf"
    days: Duration = "inf"
    max_bytes: Bytes = 1 << 30


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

    tolerance_seconds: Annotated[
        float, Field(gt=0, le=7 * 86400), Allowed("a number of seconds above 0, up to 604800")
    ] = 2.0


class Settings(_Model):
    """Everything that the owner sets."""

    site: Label
    timezone: TimeZone = "UTC"
    data_dir: Directory
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Allowed("debug, info, warning or error")
    ] = "info"
    tariff_file: OptionalFile = None
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
    store: StoreSettings = StoreSettings()
    retention: RetentionSettings = RetentionSettings()
    queries: QueriesSettings = QueriesSettings()
    flow: FlowSettings = FlowSettings()
    clock: ClockSettings = ClockSettings()

    @property
    def site_names(self) -> frozenset[str]:
        """Every site that a stream may have."""
        names: set[str] = set()
        for listener in self.listeners:
            names.update(listener.sites.values())
            if listener.site or not listener.sites:
                names.add(listener.site or self.site)
        return frozenset(names)

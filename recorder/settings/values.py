"""The kinds of values that settings hold, each with the words for what is allowed.

Takes what YAML gives, gives checked values. Knows no key and reads no file.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from recorder.secrets import MAX_SECRET_BYTES
from recorder.yaml_document import Allowed

Network = IPv4Network | IPv6Network

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


def _name(text: str) -> str:
    _require(_HOST_NAME.fullmatch(text))
    return text.lower()


def _url(text: str) -> str:
    if not text:
        return text
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
Hosts = Annotated[
    tuple[Annotated[str, AfterValidator(_name)], ...],
    Field(max_length=64),
    Allowed("a list of names such as ess.example.org, without port"),
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
OptionalFile = Annotated[
    Path | None, BeforeValidator(_path), Allowed("the path of a file, or empty for none")
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
Bytes = Annotated[int, Field(ge=65536, le=1 << 40), Allowed("a number of bytes from 65536 to 1099511627776")]
NetworkText = Annotated[Network, BeforeValidator(_network)]
Sites = Annotated[
    dict[NetworkText, Text],
    Field(max_length=65536),
    Allowed("networks or addresses, each with its site, such as 192.168.7.0/24: garage"),
]
OptionalSiteNames = Annotated[
    tuple[Text, ...] | None,
    Field(max_length=65536),
    Allowed("a list of sites that listeners have, such as [north, garage]"),
]
TimeZone = Annotated[str, AfterValidator(_timezone), Allowed("an IANA time zone, such as Europe/Berlin")]
OptionalUrl = Annotated[
    str,
    AfterValidator(_url),
    Allowed(
        "an http:// or https:// address without user and password, such as http://127.0.0.1:8086, "
        "or empty for none"
    ),
]

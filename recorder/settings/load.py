"""One YAML document with values from the environment, checked as a whole.

Takes the document, gives frozen `Settings`. Reads the secret files that it names, and nothing else but a
text that is asked for; never shows a secret in a message.
"""

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from recorder.secrets import secret_in
from recorder.settings.model import Settings
from recorder.yaml_document import (
    MAX_TEXT_BYTES,
    ConfigurationError,
    Document,
    KeyPath,
    Mistake,
)


def check_settings(document: Document) -> Settings:
    """Give the settings of a document, with the content of the secret files that it names.

    Paths in it are relative to the working directory.

    Raises:
        ConfigurationError: with all mistakes found, each with file, line, key and what is allowed.
    """
    settings = document.validate(Settings)
    mistakes = [*_listener_mistakes(document, settings), *_access_mistakes(document, settings)]
    if settings.writer.retry_min_seconds > settings.writer.retry_max_seconds:
        path = ("writer", "retry_min_seconds")
        mistakes.append(document.mistake(path, "is above retry_max_seconds", "allowed is at most that"))
    mistakes += _unknown_sites(document, settings)
    settings, found = _with_secrets(document, settings)
    if mistakes or found:
        raise ConfigurationError([*mistakes, *found])
    return settings


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
        yield from _repeated_networks(document, index)
        for other, bind, port in taken:
            if listener.port == port != 0 and _same_address(listener.bind, bind):
                problem = f"{port} is taken by {other}"
                yield document.mistake(("listeners", index, "port"), problem, "give each its own port")
        taken.append((listener.name, listener.bind, listener.port))


def _repeated_networks(document: Document, index: int) -> Iterator[Mistake]:
    """Networks of a listener's `sites` that are one and the same, written in two ways."""
    written: dict[object, str] = {}
    for text in document.data["listeners"][index].get("sites", ()):
        network = ip_network(text)
        if network in written:
            problem = f"is the same network as {written[network]}"
            yield document.mistake(("listeners", index, "sites", text), problem, "keep one of them")
        written[network] = text


def _unknown_sites(document: Document, settings: Settings) -> Iterator[Mistake]:
    """Sites of a device that no listener gives to a stream."""
    for index, device in enumerate(settings.devices):
        for place, name in enumerate(device.sites or ()):
            if name not in settings.site_names:
                problem = f"no listener has the site {name}"
                remedy = f"must be one of {', '.join(sorted(settings.site_names)[:8])}"
                yield document.mistake(("devices", index, "sites", place), problem, remedy)


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
    for section, holder in (("influxdb", influxdb), ("http", settings.http)):
        if holder.token and holder.token_file:
            yield document.mistake((section, "token_file"), "token is given too", "keep one of them")
    if influxdb.username and (influxdb.token or influxdb.token_file):
        key = "token" if influxdb.token else "token_file"
        yield document.mistake(("influxdb", key), "a username is given too", "use a username or a token")
    if influxdb.claim_new_server and not influxdb.username:
        remedy = "give username and password of the first user, or set it to false"
        yield document.mistake(("influxdb", "claim_new_server"), "there is no username to create", remedy)
    if influxdb.reader.username and influxdb.reader.username == influxdb.username:
        problem = "the recorder's own user cannot be the read-only one"
        yield document.mistake(("influxdb", "reader", "username"), problem, "give it another name")


def _with_secrets(document: Document, settings: Settings) -> tuple[Settings, list[Mistake]]:
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

    influxdb, http = settings.influxdb, settings.http
    reader = influxdb.reader
    path: KeyPath = ("influxdb", "reader", "password_file")
    reader = reader.model_copy(update={"password": secret(path, reader.password_file, reader.password)})
    update: dict[str, Any] = {
        "reader": reader,
        "password": secret(("influxdb", "password_file"), influxdb.password_file, influxdb.password),
        "token": secret(("influxdb", "token_file"), influxdb.token_file, influxdb.token),
    }
    token = {"token": secret(("http", "token_file"), http.token_file, http.token)}
    sections = {"influxdb": influxdb.model_copy(update=update), "http": http.model_copy(update=token)}
    return settings.model_copy(update=sections), mistakes

"""The settings file, and the profiles and tariffs that it names, loaded and checked against each other.

Takes the path of the settings file, or None for the shipped one, and the environment; gives a
`Configuration`. Reads those files only, and never writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from recorder.profiles.catalogue import find_overlaps
from recorder.profiles.model import Profile
from recorder.profiles.parse import parse_profile
from recorder.resources import shipped_config_dir
from recorder.settings import TEXT_KEYS as SETTINGS_TEXT_KEYS
from recorder.settings import DeviceSettings, Settings, check_settings, read_text
from recorder.tariffs.model import Tariffs, parse_tariffs
from recorder.yaml_document import ConfigurationError, Document, Mistake, nearest, parse_document


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings, the profile of each device with its overrides, as in `devices`, and tariffs if any."""

    settings: Settings
    profiles: tuple[Profile, ...]
    tariffs: Tariffs | None = None


def load_configuration(path: Path | None, environment: Mapping[str, str]) -> Configuration:
    """Load the settings file at `path` and every file that it names.

    A profile is the name of a shipped one, or the path of a file. Paths are relative to the settings file.

    Raises:
        ConfigurationError: with all mistakes found, each with file, line, key and what is allowed.
    """
    path = path or shipped_config_dir() / "recorder.yaml"
    document = parse_document(read_text(path), str(path), environment, SETTINGS_TEXT_KEYS)
    settings = check_settings(document)
    profiles: list[Profile] = []
    mistakes: list[Mistake] = []
    for index, device in enumerate(settings.devices):
        try:
            profiles.append(_load_profile(document, index, device))
        except ConfigurationError as error:
            mistakes.extend(error.mistakes)
    if not mistakes:
        mistakes.extend(_clashes(document, profiles))
    tariffs = None
    try:
        tariffs = _load_tariffs(document, settings.tariff_file, environment)
    except ConfigurationError as error:
        mistakes.extend(error.mistakes)
    if mistakes:
        raise ConfigurationError(list(dict.fromkeys(mistakes)))
    return Configuration(settings, tuple(profiles), tariffs)


def _load_profile(document: Document, index: int, device: DeviceSettings) -> Profile:
    shipped = {file.stem: file for file in sorted((shipped_config_dir() / "profiles").glob("*.yaml"))}
    own = Path(document.file).parent / device.profile
    file = shipped.get(device.profile, own)
    if not file.is_file():
        problem = f"there is no profile {device.profile}"
        remedy = f"{nearest(device.profile, list(shipped))}, or the path of a file"
        raise ConfigurationError([document.mistake(("devices", index, "profile"), problem, remedy)])
    profile = parse_profile(read_text(file), str(file))
    return replace(
        profile,
        unit=device.unit or profile.unit,
        device=device.device or profile.device,
        role=device.role or profile.role,
    )


def _load_tariffs(document: Document, named: Path | None, environment: Mapping[str, str]) -> Tariffs | None:
    if named is None:
        return None
    file = Path(document.file).parent / named
    if not file.is_file():
        remedy = "name a tariff file, relative to this one, or leave it empty"
        raise ConfigurationError([document.mistake(("tariff_file",), f"there is no file {named}", remedy)])
    return parse_tariffs(read_text(file), str(file), environment)


def _clashes(document: Document, profiles: list[Profile]) -> list[Mistake]:
    """Devices that could not be told apart, on the bus or in the database."""
    mistakes = [
        document.mistake(
            ("devices", second),
            f"{profiles[second].name} and {profiles[first].name} both claim register {address:#06x} "
            f"of unit {profiles[second].unit}, function {profiles[second].function}",
            "give one of them another unit, or leave it out",
        )
        for first, second, address in find_overlaps(profiles)
    ]
    seen: set[str] = set()
    for index, profile in enumerate(profiles):
        if profile.device in seen:
            problem = f"another device is {profile.device} already"
            mistakes.append(document.mistake(("devices", index), problem, "give it another device: name"))
        seen.add(profile.device)
    return mistakes

"""What the owner sets: kinds of values, keys with their defaults, and the file they come from."""

from recorder.settings.load import check_settings, read_text
from recorder.settings.model import (
    TEXT_KEYS,
    DeviceSettings,
    InfluxSettings,
    ListenerSettings,
    Settings,
)

__all__ = [
    "TEXT_KEYS",
    "DeviceSettings",
    "InfluxSettings",
    "ListenerSettings",
    "Settings",
    "check_settings",
    "read_text",
]

"""Which devices of which sites are missed when they deliver nothing.

The settings name devices, and any stream may carry any of them; but not every home has every device. What a
home never had must not be reported as missing, and what it has must be, from the first minute on.

A device is expected of a site

- that it has delivered a sample to since the recorder started,
- that its `sites` names; or, where the settings give it none:
- that it delivered to before, by the local history,
- that is the only one: the devices in the settings are those of the one home,
- of which no device has delivered anything yet: then something is wrong, whichever of them it has.

Knows names only. Never does I/O.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence

from recorder.profiles.model import Profile
from recorder.settings import Settings
from recorder.store.thinning import SeriesKey


class ExpectedDevices:
    """The devices of the settings, and where they were seen.

    Args:
        settings: the sites, and those of each device.
        profiles: the profile of each device, in the order of the settings.
    """

    def __init__(self, settings: Settings, profiles: Sequence[Profile]) -> None:
        self._sites = {
            profile.device: device.sites for device, profile in zip(settings.devices, profiles, strict=True)
        }
        self._measurements = {profile.device: profile.measurement for profile in profiles}
        self._has_one_site = len(settings.site_names) == 1
        self._before: set[tuple[str, str]] = set()

    def learn(self, series: Iterable[SeriesKey]) -> None:
        """Take the series that earlier runs have stored."""
        self._before.update(
            (site, device)
            for site, measurement, device in series
            if self._measurements.get(device) == measurement
        )

    def among(
        self, sites: Iterable[str], delivered: Collection[tuple[str, str]]
    ) -> Iterator[tuple[str, str]]:
        """Yield site and device of each that is expected.

        Args:
            sites: the sites to look at.
            delivered: site and device of each that has delivered a sample since the start.
        """
        for site in sites:
            now = {device for device in self._sites if (site, device) in delivered}
            ever = now | {device for device in self._sites if (site, device) in self._before}
            for device, named in self._sites.items():
                if named is None:
                    expected = self._has_one_site or not ever or device in ever
                else:
                    expected = site in named or device in now
                if expected:
                    yield site, device

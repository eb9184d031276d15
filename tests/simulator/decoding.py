"""What a receiver makes of simulated text: the recorder's own decoder, up to single readings."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from recorder.modbus.exchange import Buses
from recorder.profiles.catalogue import Catalogue
from recorder.profiles.model import Profile
from recorder.profiles.parse import parse_profile
from recorder.profiles.readings import INVALID
from recorder.strace.syscalls import SyscallDecoder

_PROFILES = Path(__file__).parents[2] / "config" / "profiles"


def shipped_profiles() -> Catalogue:
    """Give the shipped profiles of the two devices."""
    names = ("lg-ess-gen1-pcs.yaml", "abb-b2x.yaml")
    return Catalogue([parse_profile((_PROFILES / name).read_text(), name) for name in names])


class Decoder:
    """Decodes one stream into (measurement, time in ns, fields) of each answer; by default of an LG ESS."""

    def __init__(self, profiles: Sequence[Profile] = ()) -> None:
        self.counts: Counter[str] = Counter()
        self._text = SyscallDecoder(self.counts)
        self._catalogue = Catalogue(profiles) if profiles else shipped_profiles()
        self._buses = Buses(self.counts, self._catalogue.narrowest_other)

    def feed(self, text: bytes) -> list[tuple[str, int | None, dict[str, float]]]:
        """Give what the next bytes of the stream complete."""
        found = []
        for transfer in self._text.feed(text):
            if transfer.descriptor < 0:
                self._buses.lose()
                continue
            bus = self._buses.bus((transfer.process, transfer.descriptor))
            if transfer.written:
                bus.wrote(transfer.data, complete=transfer.complete, stamped=transfer)
                continue
            exchanges = bus.read(
                transfer.data,
                complete=transfer.complete,
                captured_at_ns=transfer.stamped_at_ns,
                stamped=transfer,
            )
            for unit, function, address, register_bytes, at_ns in exchanges:
                planned = self._catalogue.plan(unit, function, address, len(register_bytes) // 2)
                assert planned is not None
                profile, plan = planned
                readings = plan.read(register_bytes) if plan else INVALID
                found.append((profile.measurement, at_ns, dict(readings.values)))
        return found

"""One site's stream, second by second, and the truth about it.

Takes a plant, a dialect, fault rates and a seed, gives text as a controller would send it together
with the samples that a receiver must find in it. Never waits: pacing is for `drive`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from recorder.simulator.faults import DEADLY, FaultInjector, FaultRates
from recorder.simulator.homes import HOMES
from recorder.simulator.noise import seeded
from recorder.simulator.plant import WS_PER_CKWH, Plant, PlantState
from recorder.simulator.polls import HEAT_PUMP, INVERTER, PCS, Device, Master, Poll, PolledDevice
from recorder.simulator.registers import PCS_STATUS, as_heat_pump_meter_sees
from recorder.simulator.strace_text import DIALECTS, NO_POLL, Call, Dialect, Remark, StraceText, calls_of

# A bus is proven in sync, behind a fault, within so many scans without one; with stamps that are exact.
_SETTLED_AFTER_SCANS: Final = 8
_SETTLED_AFTER_SCANS_UNSTAMPED: Final = 24


class ExpectedSample(NamedTuple):
    """A sample that a receiver finds in the stream.

    `fields` are those of the data model, or of `inverter_sample`. `at_ns` is the stamp of the line that
    brought the last byte, Unix time in ns. Where `certain` is False, text was damaged, or the meters' bus
    was not yet proven in sync: the sample may be missing, lack fields, have an earlier time or be joined to
    the scan before it.
    """

    device: Device
    at_ns: int
    fields: dict[str, float]
    certain: bool


class StreamSecond(NamedTuple):
    """What a site sends in one second.

    `at_ns` is the beginning of the second, Unix time in ns. `texts` is one text, or the inverters' and then
    the meters', empty where there are none. `tears` holds, for each text, the offsets at which its
    connection breaks.
    """

    at_ns: int
    texts: tuple[bytes, ...]
    tears: tuple[tuple[int, ...], ...]
    truth: tuple[ExpectedSample, ...]


class SiteStream(Iterator[StreamSecond]):
    """The endless stream of one site, from the second after the plant's present time on.

    Args:
        plant: the site's plant; only the stream may advance it.
        dialect: how the text looks. Strace names a process only where it traces two, so in streams of
            one process `[pid N]` is left out.
        faults: how often what goes wrong.
        seed: what decides chunks, splits and faults.
        both: both processes in one stream, or one stream each.
        devices: what is polled, in this order.

    Raises:
        ValueError: both processes in one stream, and a dialect that does not tell them apart.
    """

    def __init__(  # noqa: PLR0913 - what a stream is made of
        self,
        plant: Plant,
        dialect: Dialect = DIALECTS["capture"],
        faults: FaultRates | None = None,
        seed: int = 0,
        *,
        both: bool = True,
        devices: Sequence[PolledDevice] = HOMES["ess"].devices,
    ) -> None:
        if both and dialect.prefix == "none":
            raise ValueError("one stream of two processes needs a dialect that names them: use --separate")
        if not both and dialect.prefix == "bracket":
            dialect = replace(dialect, prefix="none")
        self._plant = plant
        self._dialect = dialect
        self._random = seeded(seed, "stream")
        self._injector = FaultInjector(faults or FaultRates(), seeded(seed, "faults"))
        self._devices = devices
        self._streams = ((0, 1),) if both else ((0,), (1,))
        self._texts = [
            StraceText(dialect, seeded(seed, "text", number)) for number in range(len(self._streams))
        ]
        pids = (self._random.randrange(20000, 32000), self._random.randrange(1000, 9900))
        self._masters = {device: Master(pids[device.process], device.descriptor) for device in devices}
        # Every home has a meter; one without an inverter has no process 0.
        self._processes = sorted({device.process for device in devices})
        self._process_of = {device.name: device.process for device in devices}
        # Devices that more than one request reads; they share one bus.
        self._scanned = {device.name for device in devices if len(device.requests) > 1}
        self._announced = not dialect.attached
        self._restarted = False
        self._settled_after_scans = (
            _SETTLED_AFTER_SCANS if dialect.stamp == "ttt" else _SETTLED_AFTER_SCANS_UNSTAMPED
        )
        # Without faults nothing keeps a receiver from taking what came before it knew that all was well.
        self._faultless_scans = 0 if faults and faults.rates else _SETTLED_AFTER_SCANS_UNSTAMPED

    @property
    def fault_counts(self) -> Counter[str]:
        """How often each fault has struck, by name."""
        return self._injector.counts

    def __next__(self) -> StreamSecond:
        """Advance the plant by a second, and give what is sent in it."""
        state = self._plant.sample(self._plant.now_s + 1)
        begin_ns = state.at_s * 1_000_000_000
        remarks = self._changes(begin_ns)
        polls = [
            poll
            for device in self._devices
            for poll in device.poll(state, self._masters[device], self._random)
        ]
        polls = self._injector.damage_polls(polls)
        items: list[tuple[int, Call | Remark]] = [*remarks]
        for number, poll in enumerate(polls):
            calls = calls_of(poll, number, self._random)
            if poll.fault == "cut":
                calls = self._injector.cut(calls)
            items += [(self._process_of[poll.device], call) for call in calls]
        items += self._noise(polls)
        items.sort(key=lambda item: item[1].at_ns)

        texts, tears, harmed = [], [], {NO_POLL}
        for processes, writer in zip(self._streams, self._texts, strict=True):
            rendered = writer.render([item for process, item in items if process in processes])
            lines, hit, breaks = self._injector.damage_lines(rendered, polls)
            texts.append(b"".join(lines))
            tears.append(tuple(len(b"".join(lines[: index + 1])) for index in breaks))
            harmed |= hit
        return StreamSecond(begin_ns, tuple(texts), tuple(tears), self._truth(state, polls, harmed))

    def _truth(self, state: PlantState, polls: list[Poll], harmed: set[int]) -> tuple[ExpectedSample, ...]:
        """Tell what the second brings, and remember how long nothing has befallen the meter's bus.

        An RTU response does not name its request: behind a fault a receiver may withhold what could belong to
        another request, and everything before the bus is proven in sync again depends on what comes.
        """
        faultless = not self._restarted and not any(
            poll.device in self._scanned and (bool(poll.fault) or number in harmed)
            for number, poll in enumerate(polls)
        )
        certain = faultless and self._faultless_scans >= self._settled_after_scans
        self._faultless_scans = self._faultless_scans + 1 if faultless else 0
        samples = []
        for device in self._devices:
            answered = [
                (number, poll)
                for number, poll in enumerate(polls)
                if poll.device == device.name and poll.fault not in DEADLY
            ]
            if answered:
                number, last = answered[-1]
                fields = _fields(state, [poll for _, poll in answered])
                found = certain if device.name in self._scanned else number not in harmed
                samples.append(ExpectedSample(device.name, last.answered_at_ns, fields, found))
        return tuple(sorted(samples, key=lambda sample: sample.at_ns))

    def _noise(self, polls: list[Poll]) -> list[tuple[int, Call | Remark]]:
        process = self._one_process()
        own = [poll for poll in polls if self._process_of[poll.device] == process]
        return [(process, item) for item in self._injector.noise(own)]

    def _one_process(self) -> int:
        return self._processes[0 if self._random.random() < 0.5 else -1]

    def _changes(self, at_ns: int) -> list[tuple[int, Call | Remark]]:
        """Announce the processes at the start, and end and restart one where that fault strikes."""
        started = [] if self._announced else self._processes
        self._announced = True
        remarks: list[tuple[int, Call | Remark]] = []
        self._restarted = self._injector.strikes("restart")
        if self._restarted:
            process = self._one_process()
            pid = self._pid(process)
            remarks.append((process, Remark(pid, at_ns, NO_POLL, "+++ exited with 0 +++")))
            new_pid = pid + self._random.randrange(1, 300)
            for device, master in self._masters.items():
                if device.process == process:
                    self._masters[device] = Master(new_pid, 9 - master.descriptor)
            if self._dialect.attached:
                started = [process]
        announcements = [self._texts[0].attached(self._pid(process), at_ns) for process in started]
        return [*remarks, *zip(started, announcements, strict=True)]

    def _pid(self, process: int) -> int:
        return next(master.process for device, master in self._masters.items() if device.process == process)


def _fields(state: PlantState, answered: list[Poll]) -> dict[str, float]:
    """Give the fields of one device's sample, out of the answers that it gave."""
    device = answered[0].device
    if device == INVERTER:
        return inverter_sample(state)
    if device == PCS:
        fields = pcs_sample(state)
        if answered[0].fault == "implausible":
            del fields["battery_soc"], fields["battery_soc_raw"]
        return fields
    values = meter_sample(as_heat_pump_meter_sees(state) if device == HEAT_PUMP else state)
    return {METER_FIELDS[poll.address]: values[METER_FIELDS[poll.address]] for poll in answered}


def pcs_sample(state: PlantState) -> dict[str, float]:
    """Give the fields of the `pcs` measurement that an undamaged answer carries."""
    first_w, second_w = state.pv_powers_w
    first_v, second_v = state.pv_voltages_v
    return {
        "active_power": float(state.pcs_active_power_w),
        "pv_power": float(first_w + second_w),
        "pv1_power": float(first_w),
        "pv2_power": float(second_w),
        "pv1_voltage": float(first_v),
        "pv2_voltage": float(second_v),
        "battery_power": float(state.battery_power_w),
        "battery_current": state.battery_current_da / 10,
        "battery_voltage": state.battery_voltage_dv / 10,
        "battery_soc": (state.soc_raw_permille - 45) * 100 / 905,
        "battery_soc_raw": state.soc_raw_permille / 10,
        "battery_soc_max": state.soc_max_permille / 10,
        "battery_temperature_max": (state.battery_temperature_dc + 4) / 10,
        "battery_temperature_min": (state.battery_temperature_dc - 4) / 10,
        "battery_energy_charged": state.charged_dkwh / 10,
        "battery_energy_discharged": state.discharged_dkwh / 10,
        "battery_status": float(state.battery_status),
        "status": float(PCS_STATUS),
        "frequency": state.frequency_chz / 100,
        "polls": float(state.poll_counter),
    }


def inverter_sample(state: PlantState) -> dict[str, float]:
    """Give the values that an undamaged answer of the inverter without a battery carries."""
    return {
        "ac_power": float(state.inverter_power_w),
        "pv_power": float(state.inverter_pv_power_w),
        "ac_energy": state.inverter_ws // WS_PER_CKWH / 100,
        "pv_energy": state.inverter_pv_ws // WS_PER_CKWH / 100,
    }


METER_FIELDS = {
    0x5000: "active_import",
    0x5004: "active_export",
    0x5B00: "voltage_l1",
    0x5B02: "voltage_l2",
    0x5B04: "voltage_l3",
    0x5B14: "active_power",
    0x5B2C: "frequency",
}


def meter_sample(state: PlantState) -> dict[str, float]:
    """Give the fields of the `powermeter` measurement that an undamaged scan carries."""
    first_dv, second_dv, third_dv = state.phase_voltages_dv
    return {
        "active_import": state.imported_ckwh / 100,
        "active_export": state.exported_ckwh / 100,
        "voltage_l1": first_dv / 10,
        "voltage_l2": second_dv / 10,
        "voltage_l3": third_dv / 10,
        "active_power": state.meter_power_cw / 100,
        "frequency": state.frequency_chz / 100,
    }

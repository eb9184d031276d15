"""The plant: sun, household, inverters, battery and grid of one home, advanced in steps of whole seconds.

Takes a seed, settings and a start, gives a `PlantState` in the units in which the devices publish it.
Never reads a clock, and never lets energy appear or vanish: powers are whole numbers of register
units, so home = inverters + meter and the counters, which add up those powers, are exact.
"""

from dataclasses import dataclass
from math import cos, pi
from typing import Final, NamedTuple

from recorder.simulator.household import DAY_SECONDS, HeatPump, Household
from recorder.simulator.noise import SmoothNoise, seeded
from recorder.simulator.sun import clear_sky_irradiance, sun_vector

_SKY_SECONDS: Final = 60
_WARM_UP_STEP_SECONDS: Final = 300
_PANEL_EFFICIENCY: Final = 0.86
_BATTERY_RAMP_W_PER_S: Final = 1500
_LINE_OHM: Final = 0.18
# The inverter without a battery: what it keeps of the power of its panels, and what it needs to run.
_INVERTER_LOSS: Final = 0.03
_INVERTER_OWN_W: Final = 5
# Hours of the night, by the sun, in which a battery is charged from the grid.
_NIGHT_HOURS: Final = range(1, 5)

# device.md: the user's figure is (raw - 45) * 100 / 905 %, raw in 0.1 %.
SOC_RAW_EMPTY: Final = 45
SOC_RAW_SPAN: Final = 905
CWS_PER_CKWH: Final = 3_600_000
WS_PER_DKWH: Final = 360_000
WS_PER_CKWH: Final = 36_000


@dataclass(frozen=True, slots=True)
class PvString:
    """One string of panels; the azimuth counts clockwise from north, the voltage is that without load."""

    peak_w: int
    tilt_deg: float
    azimuth_deg: float
    voltage_v: int


@dataclass(frozen=True, slots=True)
class PlantSettings:
    """What is built into one home. Latitude north and longitude east are positive.

    `hybrid` is the PCS with its strings and its battery, `inverter` the panels of a second inverter that
    has no battery. `heat_pump_w` and `night_charge_w`, W, are 0 where there is no such thing.
    """

    latitude_deg: float = 51.2
    longitude_deg: float = 9.8
    strings: tuple[PvString, PvString] = (PvString(3300, 35, 150, 365), PvString(2900, 35, 240, 310))
    ac_limit_w: int = 5000
    standby_w: int = 14
    conversion_loss: float = 0.035
    battery_capacity_wh: int = 6400
    battery_limit_w: int = 3000
    battery_one_way_efficiency: float = 0.96
    soc_min_percent: float = 4.0
    soc_max_percent: float = 95.0
    warm_up_seconds: int = DAY_SECONDS
    hybrid: bool = True
    inverter: PvString | None = None
    heat_pump_w: int = 0
    night_charge_w: int = 0


class PlantState(NamedTuple):
    """The plant at one moment; each figure a whole number of what its register counts.

    Suffixes: `_w` W, `_cw` 0.01 W, `_v` V, `_dv` 0.1 V, `_da` 0.1 A, `_chz` 0.01 Hz, `_dc` 0.1 degC,
    `_permille` 0.1 %, `_ws` W s, `_cws` 0.01 W s. Signs are the devices': battery power and the meter's
    power as in the data model (+ discharging, + buying), battery current + charging.
    """

    at_s: int
    poll_counter: int
    heartbeat: int
    frequency_chz: int
    pv_powers_w: tuple[int, int]
    pv_voltages_v: tuple[int, int]
    pcs_active_power_w: int
    battery_power_w: int
    battery_voltage_dv: int
    battery_current_da: int
    soc_raw_permille: int
    soc_max_permille: int
    battery_temperature_dc: int
    charged_ws: int
    discharged_ws: int
    phase_powers_cw: tuple[int, int, int]
    phase_voltages_dv: tuple[int, int, int]
    meter_power_cw: int
    imported_cws: int
    exported_cws: int
    phase_imported_cws: tuple[int, ...]
    phase_exported_cws: tuple[int, ...]
    home_power_cw: int
    heat_pump_power_cw: int
    heat_pump_cws: int
    inverter_power_w: int
    inverter_pv_power_w: int
    inverter_ws: int
    inverter_pv_ws: int

    @property
    def loss_w(self) -> int:
        """What the PCS turns into heat, W: the DC side less the AC side."""
        return sum(self.pv_powers_w) + self.battery_power_w - self.pcs_active_power_w

    @property
    def charged_dkwh(self) -> int:
        """Energy ever charged, 0.1 kWh."""
        return self.charged_ws // WS_PER_DKWH

    @property
    def discharged_dkwh(self) -> int:
        """Energy ever discharged, 0.1 kWh."""
        return self.discharged_ws // WS_PER_DKWH

    @property
    def imported_ckwh(self) -> int:
        """Energy ever bought, 0.01 kWh."""
        return self.imported_cws // CWS_PER_CKWH

    @property
    def exported_ckwh(self) -> int:
        """Energy ever sold, 0.01 kWh."""
        return self.exported_cws // CWS_PER_CKWH

    @property
    def battery_status(self) -> int:
        """0 idle, 1 charging, 2 discharging; the real device's codes are not known."""
        if self.battery_power_w == 0:
            return 0
        return 2 if self.battery_power_w > 0 else 1


class Plant:
    """One home, from `start_at_s` on. The same seed, settings, start and steps give the same plant.

    The home is first run through `warm_up_seconds` in coarse steps, so that it starts with a state of
    charge that fits the hour.

    Args:
        seed: what tells this home from another.
        start_at_s: Unix time of the first state, s.
        settings: what is built into it.
    """

    def __init__(self, seed: int, start_at_s: int, settings: PlantSettings | None = None) -> None:
        self.settings = settings or PlantSettings()
        self._now_s = start_at_s - self.settings.warm_up_seconds
        random = seeded(seed, "plant")
        self._household = Household(f"{seed}/household", round(self.settings.longitude_deg * 240))
        # A day's weather, clouds that pass in a quarter of an hour, and their edges.
        self._weather = SmoothNoise(f"{seed}/weather", 18000)
        self._clouds = SmoothNoise(f"{seed}/clouds", 700)
        self._edges = SmoothNoise(f"{seed}/edges", 35)
        self._grid_frequency = SmoothNoise(f"{seed}/frequency", 13)
        self._grid_voltages = tuple(SmoothNoise(f"{seed}/voltage{phase}", 240) for phase in range(3))
        self._heat_pump = HeatPump(f"{seed}/heat pump", self.settings.heat_pump_w)
        inverter = self.settings.inverter
        self._strings = (*self.settings.strings, *((inverter,) if inverter else ()))
        self._sky_slot = self._now_s // _SKY_SECONDS
        self._sky = self._clear_sky(self._sky_slot)
        self._next_sky = self._clear_sky(self._sky_slot + 1)

        self._stored_ws = self._soc_ws(random.uniform(20, 60))
        self._temperature_c = 20.0
        self._battery_w = 0
        self._pcs_w = 0
        self._pv_w = (0, 0)
        self._pv_v = (0, 0)
        self._inverter_pv_w = 0
        self._inverter_w = 0
        self._heat_pump_cw = 0
        self._loads_cw = (0, 0, 0)
        self._charged_ws = random.randrange(10**9, 3 * 10**9)
        self._discharged_ws = int(self._charged_ws * 0.87)
        self._imported_cws = random.randrange(10**12, 5 * 10**12)
        self._exported_cws = random.randrange(10**12, 5 * 10**12)
        self._phase_imported_cws = [self._imported_cws // 3] * 3
        self._phase_exported_cws = [self._exported_cws, 0, 0]
        self._polls = random.randrange(10**6, 5 * 10**7)
        self._heat_pump_cws = random.randrange(10**11, 10**12)
        self._inverter_pv_ws = random.randrange(10**9, 10**10)
        self._inverter_ws = int(self._inverter_pv_ws * 0.96)
        self.advance(self.settings.warm_up_seconds, step_seconds=_WARM_UP_STEP_SECONDS)

    @property
    def now_s(self) -> int:
        """The Unix time that the plant has reached, s."""
        return self._now_s

    def advance(self, seconds: int, *, step_seconds: int = 1) -> None:
        """Run the plant on; within a step of `step_seconds` every power is constant.

        Raises:
            ValueError: `seconds` is negative, or `step_seconds` is below 1.
        """
        if seconds < 0 or step_seconds < 1:
            raise ValueError("a plant runs forward only, in steps of 1 s or more")
        steps, rest = divmod(seconds, step_seconds)
        for _ in range(steps):
            self._step(step_seconds)
        if rest:
            self._step(rest)

    def sample(self, at_s: int) -> PlantState:
        """Run the plant on, second by second, to a Unix time, and give its state there.

        Raises:
            ValueError: the plant is past that time already.
        """
        self.advance(at_s - self._now_s)
        return self.state

    @property
    def state(self) -> PlantState:
        """The plant as its devices publish it now."""
        powers = self._phase_powers_cw()
        soc_raw = SOC_RAW_EMPTY + round(self._stored_ws / self._soc_ws(100) * SOC_RAW_SPAN)
        voltage_dv = self._battery_voltage_dv()
        return PlantState(
            at_s=self._now_s,
            poll_counter=self._polls,
            heartbeat=self._polls % 256,
            frequency_chz=4997 + round(6 * self._grid_frequency.at(self._now_s)),
            pv_powers_w=self._pv_w,
            pv_voltages_v=self._pv_v,
            pcs_active_power_w=self._pcs_w,
            battery_power_w=self._battery_w,
            battery_voltage_dv=voltage_dv,
            battery_current_da=round(-self._battery_w * 100 / voltage_dv),
            soc_raw_permille=soc_raw,
            soc_max_permille=SOC_RAW_EMPTY + round(self.settings.soc_max_percent / 100 * SOC_RAW_SPAN),
            battery_temperature_dc=round(self._temperature_c * 10),
            charged_ws=self._charged_ws,
            discharged_ws=self._discharged_ws,
            phase_powers_cw=powers,
            phase_voltages_dv=self._phase_voltages_dv(powers),
            meter_power_cw=sum(powers),
            imported_cws=self._imported_cws,
            exported_cws=self._exported_cws,
            phase_imported_cws=tuple(self._phase_imported_cws),
            phase_exported_cws=tuple(self._phase_exported_cws),
            home_power_cw=sum(self._loads_cw),
            heat_pump_power_cw=self._heat_pump_cw,
            heat_pump_cws=self._heat_pump_cws,
            inverter_power_w=self._inverter_w,
            inverter_pv_power_w=self._inverter_pv_w,
            inverter_ws=self._inverter_ws,
            inverter_pv_ws=self._inverter_pv_ws,
        )

    def _step(self, seconds: int) -> None:
        self._now_s += seconds
        # The controller acts on what it saw one step ago, so the grid sees each jump for a moment.
        wanted_w = sum(self._loads_cw) // 100 - self._inverter_w
        self._loads_cw = self._household.power_cw(self._now_s)
        if self.settings.heat_pump_w:
            self._run_heat_pump(seconds)
        self._generate(seconds)
        if self.settings.hybrid:
            self._run_battery(wanted_w, seconds)
            self._curtail()
        self._count_grid(seconds)
        moved_ws = self._battery_w * seconds
        if moved_ws > 0:
            self._discharged_ws += moved_ws
            self._stored_ws -= moved_ws / self.settings.battery_one_way_efficiency
        else:
            self._charged_ws -= moved_ws
            self._stored_ws -= moved_ws * self.settings.battery_one_way_efficiency
        self._warm(seconds)
        self._polls += seconds

    def _run_heat_pump(self, seconds: int) -> None:
        self._heat_pump_cw = self._heat_pump.power_cw(self._now_s)
        self._heat_pump_cws += self._heat_pump_cw * seconds
        first, second, third = self._loads_cw
        part, rest = divmod(self._heat_pump_cw, 3)
        self._loads_cw = (first + part, second + part, third + part + rest)

    def _generate(self, seconds: int) -> None:
        slot, since = divmod(self._now_s, _SKY_SECONDS)
        if slot != self._sky_slot:
            self._sky = self._next_sky if slot == self._sky_slot + 1 else self._clear_sky(slot)
            self._next_sky = self._clear_sky(slot + 1)
            self._sky_slot = slot
        beam, veil = self._clouded()
        x = since / _SKY_SECONDS
        powers = []
        voltages = []
        for string, (direct, diffuse), (next_direct, next_diffuse) in zip(
            self._strings, self._sky, self._next_sky, strict=True
        ):
            irradiance = beam * (direct + (next_direct - direct) * x) + veil * (
                diffuse + (next_diffuse - diffuse) * x
            )
            power_w = int(string.peak_w * irradiance / 1000 * _PANEL_EFFICIENCY)
            powers.append(power_w)
            # A string's voltage comes up at dawn, then falls a little as the panels warm.
            voltages.append(int(string.voltage_v * min(1.0, irradiance / 8) - irradiance / 40))
        if self.settings.hybrid:
            self._pv_w = (powers[0], powers[1])
            self._pv_v = (max(0, voltages[0]), max(0, voltages[1]))
        if self.settings.inverter:
            self._inverter_pv_w = powers[2]
            self._inverter_w = max(0, powers[2] - int(_INVERTER_LOSS * powers[2]) - _INVERTER_OWN_W)
            self._inverter_pv_ws += self._inverter_pv_w * seconds
            self._inverter_ws += self._inverter_w * seconds

    def _clear_sky(self, slot: int) -> list[tuple[float, float]]:
        settings = self.settings
        sun = sun_vector(slot * _SKY_SECONDS, settings.latitude_deg, settings.longitude_deg)
        return [clear_sky_irradiance(sun, string.tilt_deg, string.azimuth_deg) for string in self._strings]

    def _clouded(self) -> tuple[float, float]:
        """Give the shares of the direct and of the diffuse light that the clouds let through."""
        cover = 1.5 * self._weather.at(self._now_s) - 0.45 + 0.5 * (self._clouds.at(self._now_s) - 0.5)
        cover += 0.12 * (self._edges.at(self._now_s) - 0.5)
        cover = min(1.0, max(0.0, cover))
        # Under cloud what the beam loses comes down in part as diffuse light.
        return 1 - 0.85 * cover, 1 + 0.5 * cover

    def _run_battery(self, wanted_w: int, seconds: int) -> None:
        settings = self.settings
        pv_w = sum(self._pv_w)
        target_w = wanted_w - pv_w + self._loss_w(pv_w, self._battery_w)
        if settings.night_charge_w and self._solar_hour() in _NIGHT_HOURS:
            target_w = -settings.night_charge_w
        step_w = _BATTERY_RAMP_W_PER_S * seconds
        power_w = min(max(target_w, self._battery_w - step_w), self._battery_w + step_w)
        above_ws = self._stored_ws - self._soc_ws(settings.soc_min_percent)
        below_ws = self._soc_ws(settings.soc_max_percent) - self._stored_ws
        most_w = int(above_ws * settings.battery_one_way_efficiency / seconds)
        # The last tenth is charged ever more gently.
        taper = min(1.0, 0.05 + below_ws / self._soc_ws(10))
        least_w = int(
            min(below_ws / settings.battery_one_way_efficiency / seconds, settings.battery_limit_w * taper)
        )
        power_w = min(power_w, settings.battery_limit_w, max(0, most_w))
        self._battery_w = max(power_w, -max(0, least_w))

    def _curtail(self) -> None:
        """Keep the AC side within its limit, by the battery first and by the panels then."""
        pv_w = sum(self._pv_w)
        self._pcs_w = pv_w + self._battery_w - self._loss_w(pv_w, self._battery_w)
        surplus_w = self._pcs_w - self.settings.ac_limit_w
        if surplus_w <= 0:
            return
        given_up_w = min(surplus_w, max(0, self._battery_w))
        self._battery_w -= given_up_w
        surplus_w -= given_up_w
        first_w = min(self._pv_w[0], round(surplus_w * self._pv_w[0] / max(1, pv_w)))
        self._pv_w = (self._pv_w[0] - first_w, self._pv_w[1] - (surplus_w - first_w))
        pv_w = sum(self._pv_w)
        self._pcs_w = pv_w + self._battery_w - self._loss_w(pv_w, self._battery_w)

    def _loss_w(self, pv_w: int, battery_w: int) -> int:
        return self.settings.standby_w + int(self.settings.conversion_loss * (pv_w + abs(battery_w)))

    def _phase_powers_cw(self) -> tuple[int, int, int]:
        """Give what each phase buys; the PCS feeds L1, the other inverter L2."""
        first, second, third = self._loads_cw
        return first - self._pcs_w * 100, second - self._inverter_w * 100, third

    def _count_grid(self, seconds: int) -> None:
        """Count as the meter does: the totals by the sum of the phases, each phase by its own sign."""
        powers = self._phase_powers_cw()
        total_cws = sum(powers) * seconds
        self._imported_cws += max(0, total_cws)
        self._exported_cws += max(0, -total_cws)
        for phase, power_cw in enumerate(powers):
            if power_cw > 0:
                self._phase_imported_cws[phase] += power_cw * seconds
            else:
                self._phase_exported_cws[phase] -= power_cw * seconds

    def _warm(self, seconds: int) -> None:
        year = (self._now_s / DAY_SECONDS % 365.25) / 365.25
        target_c = 17 - 5 * cos(2 * pi * year) + abs(self._battery_w) / 300
        self._temperature_c += (target_c - self._temperature_c) * min(1.0, seconds / 7200)

    def _solar_hour(self) -> int:
        return int((self._now_s + self.settings.longitude_deg * 240) % DAY_SECONDS // 3600)

    def _soc_ws(self, percent: float) -> float:
        return self.settings.battery_capacity_wh * 36 * percent

    def _battery_voltage_dv(self) -> int:
        return round(1880 + 220 * self._stored_ws / self._soc_ws(100) - self._battery_w / 90)

    def _phase_voltages_dv(self, powers_cw: tuple[int, int, int]) -> tuple[int, int, int]:
        first, second, third = (
            round(2310 + 60 * noise.at(self._now_s) - power_cw / 23000 * _LINE_OHM * 10) - 7 * phase
            for phase, (noise, power_cw) in enumerate(zip(self._grid_voltages, powers_cw, strict=True))
        )
        return first, second, third

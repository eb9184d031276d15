// Numbers and times as people read them. Takes values in W, kWh, %, s and Unix s; missing ones give a dash.

export const MISSING = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);
const sign = (text) => text.replace("-", "−");

/** Power: whole W below 1 kW, kW above. */
export function power(watts) {
  if (!known(watts)) return MISSING;
  const rounded = Math.round(watts);
  if (Math.abs(rounded) < 1000) return sign(`${rounded || 0} W`);
  return sign(`${(watts / 1000).toFixed(Math.abs(watts) < 9995 ? 2 : 1)} kW`);
}

/** Power as an axis shows it: "2 kW", "0.5 kW", "0". */
export function axisPower(watts) {
  return watts === 0 ? "0" : sign(`${Number((watts / 1000).toFixed(2))} kW`);
}

/** Energy in kWh, with three figures. */
export function energy(kilowattHours) {
  if (!known(kilowattHours)) return MISSING;
  const size = Math.abs(kilowattHours);
  return sign(`${kilowattHours.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0)} kWh`);
}

/** A share of 100, in whole percent. */
export function percent(value) {
  return known(value) ? `${Math.round(value)} %` : MISSING;
}

/** How long: "3 s", "12 min", "5 h", "4 days". */
export function duration(seconds) {
  if (!known(seconds)) return MISSING;
  const length = Math.max(0, seconds);
  if (length < 90) return `${Math.round(length)} s`;
  if (length < 5400) return `${Math.round(length / 60)} min`;
  if (length < 129600) return `${Math.round(length / 3600)} h`;
  return `${Math.round(length / 86400)} days`;
}

/** A count with separated thousands. */
export function count(value) {
  return known(value) ? value.toLocaleString("en") : MISSING;
}

/** Bytes in the largest unit that fits. */
export function bytes(value) {
  if (!known(value)) return MISSING;
  const units = ["B", "kB", "MB", "GB"];
  let size = value;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${size.toFixed(unit && size < 10 ? 1 : 0)} ${units[unit]}`;
}

/** Times of one zone: Unix s to text. */
export class Times {
  constructor(timezone) {
    const formatter = (options) => {
      const format = new Intl.DateTimeFormat("en-GB", { timeZone: timezone, ...options });
      return (seconds) => (known(seconds) ? format.format(seconds * 1000) : MISSING);
    };
    this.timezone = timezone;
    this.clock = formatter({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
    this.minute = formatter({ hour: "2-digit", minute: "2-digit" });
    this.day = formatter({ day: "numeric", month: "short" });
    this.month = formatter({ month: "short", year: "numeric" });
    this.full = formatter({ weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
  }
}

// Power and state of charge over a range, as charts (uPlot) and as a table.
// Takes /api/v1/history; null stays a gap. Never joins what was not recorded.

import { ask } from "./api.js";
import { axisPower, percent, power } from "./format.js";

const DAY_S = 86400;
const RANGES = {
  "6h": { seconds: DAY_S / 4, step: "1m" },
  "24h": { seconds: DAY_S, step: "1m" },
  "7d": { seconds: 7 * DAY_S, step: "15m" },
  "30d": { seconds: 30 * DAY_S, step: "1h" },
  "12m": { seconds: 365 * DAY_S, step: "1d" },
};
const FIELDS = [
  "flow.pv", "flow.home", "flow.grid_import", "flow.grid_export",
  "flow.battery_discharge", "flow.battery_charge",
];
const TABLE_ROWS = 24;

const element = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const difference = (plus, minus) =>
  plus.map((value, index) => (value === null || minus[index] === null ? null : value - minus[index]));
const mean = (values) => {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
};

/** Series of the charts, from the columns of an answer. */
function columns({ time, series }, chargeField) {
  const of = (field) => series[field]?.mean ?? time.map(() => null);
  return {
    time,
    pv: of("flow.pv"),
    home: of("flow.home"),
    grid: difference(of("flow.grid_import"), of("flow.grid_export")),
    battery: difference(of("flow.battery_discharge"), of("flow.battery_charge")),
    charge: of(chargeField),
  };
}

export class History {
  #charts = [];
  #answer = null;
  #asked = 0;
  #clock;

  constructor(clock) {
    this.#clock = clock;
    this.range = "24h";
    this.site = "";
    this.times = null;
    this.chargeField = null;
    new ResizeObserver(() => this.#fit()).observe(element("power-chart"));
    document.addEventListener("themechange", () => this.#draw());
    element("history-details").addEventListener("toggle", () => this.#fillTable());
    for (const input of document.querySelectorAll("#ranges input")) {
      input.addEventListener("change", () => {
        this.range = input.value;
        this.refresh();
      });
    }
  }

  /** Ask for the chosen range up to now, and show it; a failure is said below the charts. */
  async refresh() {
    const now = this.#clock.now();
    if (now === null || this.times === null) return;
    const { seconds, step } = RANGES[this.range];
    const number = ++this.#asked;
    const fields = [...FIELDS, ...(this.chargeField ? [this.chargeField] : [])].join(",");
    const parameters = { site: this.site, from: Math.floor(now - seconds), step, fields };
    let answer = this.#answer;
    let note = "";
    try {
      answer = columns(await ask("history", parameters), this.chargeField);
    } catch (error) {
      note = `History could not be loaded. ${error.message}`;
    }
    // What comes late, an answer or a failure, must not stand in place of a later choice.
    if (number !== this.#asked) return;
    this.#answer = answer;
    if (!note && !this.#answer.pv.some((value) => value !== null)) note = "Nothing was recorded in this time.";
    element("history-note").textContent = note;
    this.#draw();
    this.#fillTable();
  }

  #draw() {
    if (this.#answer === null) return;
    for (const chart of this.#charts) chart.destroy();
    const { time, pv, home, grid, battery, charge } = this.#answer;
    const series = [
      { label: "PV", name: "pv", values: pv, fill: true },
      { label: "Home", name: "home", values: home },
      { label: "Grid", name: "grid", values: grid },
      { label: "Battery", name: "battery", values: battery },
    ];
    this.#charts = [
      this.#chart("power", time, series, power, { range: (_, low, high) => [Math.min(0, low * 1.1), Math.max(500, high * 1.1)] }),
      this.#chart("soc", time, [{ label: "Charge", name: "battery", values: charge, fill: true }], percent, {
        range: [0, 100],
      }),
    ];
  }

  #chart(name, time, series, unit, scale) {
    const target = element(`${name}-chart`);
    const readings = this.#legend(name, series);
    const tell = (index) =>
      series.forEach(({ values }, at) => (readings[at].textContent = index === null ? "" : unit(values[index])));
    const axis = { stroke: colour("soft"), grid: { stroke: colour("rule"), width: 1 }, ticks: { show: false } };
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const options = {
      width: target.clientWidth,
      height: target.clientHeight,
      legend: { show: false },
      cursor: { y: false, drag: { setScale: false } },
      tzDate: (seconds) => window.uPlot.tzDate(new Date(seconds * 1000), this.times.timezone),
      scales: { y: scale },
      axes: [
        { ...axis, font, size: 34, space: 70, values: (_, splits, __, ___, step) => splits.map((at) => this.#tick(at, step)) },
        { ...axis, font, size: 62, values: (_, splits) => splits.map(unit === power ? axisPower : unit) },
      ],
      series: [
        {},
        ...series.map((entry) => ({
          label: entry.label,
          stroke: colour(entry.name),
          width: 1.75,
          fill: entry.fill ? `${colour(entry.name)}22` : undefined,
          points: { show: false },
          spanGaps: false,
        })),
      ],
      hooks: { setCursor: [(chart) => tell(chart.cursor.idx ?? null)] },
    };
    target.setAttribute("aria-label", this.#describe(name, series, unit));
    return new window.uPlot(options, [time, ...series.map(({ values }) => values)], target);
  }

  #tick(seconds, step) {
    if (step >= 28 * DAY_S) return this.times.month(seconds);
    if (step >= DAY_S || this.times.minute(seconds) === "00:00") return this.times.day(seconds);
    return this.times.minute(seconds);
  }

  #legend(name, series) {
    const readings = [];
    const entries = series.map((entry) => {
      const label = document.createElement("span");
      const swatch = document.createElement("span");
      swatch.className = `swatch ${entry.name}`;
      const reading = document.createElement("b");
      readings.push(reading);
      label.append(swatch, document.createTextNode(entry.label), reading);
      return label;
    });
    element(`${name}-legend`).replaceChildren(...entries);
    return readings;
  }

  #describe(name, series, unit) {
    const what = name === "soc" ? "State of charge" : "Power";
    const spans = series.map(({ label, values }) => {
      const known = values.filter((value) => value !== null);
      if (!known.length) return `${label} not recorded`;
      return `${label} from ${unit(Math.min(...known))} to ${unit(Math.max(...known))}`;
    });
    const { time } = this.#answer;
    return `${what} from ${this.times.full(time[0])} to ${this.times.full(time.at(-1))}: ${spans.join(", ")}`;
  }

  #fit() {
    for (const [index, name] of ["power", "soc"].entries()) {
      const target = element(`${name}-chart`);
      this.#charts[index]?.setSize({ width: target.clientWidth, height: target.clientHeight });
    }
  }

  #fillTable() {
    if (this.#answer === null || !element("history-details").open) return;
    const { time, pv, home, grid, battery, charge } = this.#answer;
    const each = Math.max(1, Math.ceil(time.length / TABLE_ROWS));
    const rows = [];
    for (let start = 0; start < time.length; start += each) {
      const part = (values) => mean(values.slice(start, start + each));
      const row = document.createElement("tr");
      const begin = document.createElement("th");
      begin.scope = "row";
      begin.textContent = this.times.full(time[start]);
      row.append(begin);
      const powers = [pv, home, grid, battery].map((values) => power(part(values)));
      for (const text of [...powers, percent(part(charge))]) row.insertCell().textContent = text;
      rows.push(row);
    }
    element("history-table").tBodies[0].replaceChildren(...rows);
  }
}

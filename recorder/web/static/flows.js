// The flow picture: lines from source to target, as wide as their power, and the figures of the four nodes.
// Takes the fields of a flow point and the state of charge; never computes a balance of its own.

import { percent, power } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const LEAST_W = 5;
const FULL_SCALE_W = 6000;
const NAMES = { pv: "PV", battery: "Battery", home: "Home", grid: "Grid" };

// Each path begins at its source: the direction of what moves is that of the drawing.
const FLOWS = [
  ["pv", "home", "M242 134 C242 190 250 198 306 198"],
  ["pv", "battery", "M220 138 V302"],
  ["pv", "grid", "M198 134 C198 190 190 198 134 198"],
  ["battery", "home", "M242 306 C242 250 250 242 306 242"],
  ["battery", "grid", "M198 306 C198 250 190 242 134 242"],
  ["grid", "home", "M138 220 H302"],
  ["grid", "battery", "M134 242 C190 242 198 250 198 306"],
].map(([from, to, shape]) => ({ from, to, shape, field: `${from}_to_${to}` }));

const element = (id) => document.getElementById(id);

function svg(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function setText(id, text) {
  const node = element(id);
  if (node.textContent !== text) node.textContent = text;
}

function setArc(node, share, start = 0) {
  node.setAttribute("stroke-dashoffset", String(-start));
  node.style.strokeDasharray = `${share} ${100 - share}`;
}

export class FlowPicture {
  #lines = new Map();

  constructor() {
    for (const flow of FLOWS) this.#draw(flow);
  }

  /** Show a moment: the fields of a flow point in W, and the battery's charge in % or undefined. */
  show(fields, charge) {
    for (const { field } of FLOWS) this.#setLine(field, fields[field] ?? 0);
    const battery = (fields.battery_discharge ?? 0) - (fields.battery_charge ?? 0);
    const grid = (fields.grid_import ?? 0) - (fields.grid_export ?? 0);
    setText("power-pv", power(fields.pv));
    setText("power-home", power(fields.home));
    setText("power-battery", power(Math.abs(battery)));
    setText("power-grid", power(Math.abs(grid)));
    setText("name-grid", Math.abs(grid) < LEAST_W ? "Grid" : grid > 0 ? "Grid, buying" : "Grid, selling");
    setText("name-battery", charge === undefined ? "Battery" : `Battery ${percent(charge)}`);
    const level = Math.max(0, Math.min(100, charge ?? 0));
    setArc(element("charge"), level);
    element("level").setAttribute("width", String(0.2 * level));
    this.#setShares(fields);
    setText("flows-summary", summary(fields, battery, grid, charge));
    this.#fillTable(fields);
  }

  #draw(flow) {
    const group = svg("g", { class: `flow ${flow.from}`, "data-flow": flow.field });
    const beam = svg("path", { class: "beam", d: flow.shape });
    const sparks = svg("path", { class: "sparks", d: flow.shape });
    group.append(beam, sparks);
    element("lines").append(group);
    const length = beam.getTotalLength();
    const here = beam.getPointAtLength(length * 0.7);
    const ahead = beam.getPointAtLength(length * 0.7 + 1);
    const angle = (Math.atan2(ahead.y - here.y, ahead.x - here.x) * 180) / Math.PI;
    const place = `translate(${here.x.toFixed(1)} ${here.y.toFixed(1)}) rotate(${angle.toFixed(1)})`;
    group.append(svg("path", { class: "head", d: "M-7 -9L9 0L-7 9Z", transform: place }));
    this.#lines.set(flow.field, { group, beam, sparks });
  }

  #setLine(field, watts) {
    const { group, beam, sparks } = this.#lines.get(field);
    const on = watts >= LEAST_W;
    group.classList.toggle("on", on);
    if (!on) return;
    const share = Math.sqrt(Math.min(1, watts / FULL_SCALE_W));
    beam.style.strokeWidth = `${(4 + 14 * share).toFixed(1)}px`;
    // In steps: an animation begins anew with each change of its duration.
    sparks.style.animationDuration = `${[1.8, 1.3, 0.95, 0.7][Math.min(3, Math.floor(share * 4))]}s`;
  }

  #setShares(fields) {
    let start = 0;
    for (const source of ["pv", "battery", "grid"]) {
      const share = fields.home > 0 ? (100 * (fields[`${source}_to_home`] ?? 0)) / fields.home : 0;
      setArc(element(`share-${source}`), share, start);
      start += share;
    }
  }

  #fillTable(fields) {
    const rows = FLOWS.filter(({ field }) => fields[field] >= LEAST_W).map(({ from, to, field }) => {
      const row = document.createElement("tr");
      for (const text of [NAMES[from], NAMES[to], power(fields[field])]) row.insertCell().textContent = text;
      return row;
    });
    element("flow-table").tBodies[0].replaceChildren(...rows);
  }
}

/** One sentence for those who do not see the picture. */
function summary(fields, battery, grid, charge) {
  const parts = [`PV ${power(fields.pv)}`, `home ${power(fields.home)}`];
  parts.push(
    Math.abs(battery) < LEAST_W
      ? "battery idle"
      : `battery ${battery > 0 ? "discharging" : "charging"} ${power(Math.abs(battery))}`,
  );
  if (charge !== undefined) parts.push(`charge ${percent(charge)}`);
  parts.push(
    Math.abs(grid) < LEAST_W ? "grid idle" : `${grid > 0 ? "buying" : "selling"} ${power(Math.abs(grid))}`,
  );
  return `Energy flows: ${parts.join(", ")}`;
}

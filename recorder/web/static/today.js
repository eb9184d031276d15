// Today's energies and shares. Takes `totals` of /api/v1/history; never adds up by itself.

import { energy, percent } from "./format.js";

const ROWS = [
  ["pv", "PV", "pv"],
  ["home", "Home", "home"],
  ["grid_import", "Bought", "grid"],
  ["grid_export", "Sold", "grid"],
  ["battery_charge", "Charged", "battery"],
  ["battery_discharge", "Discharged", "battery"],
];

const SPLITS = [
  ["Home fed by", "home", [["pv_to_home", "PV", "pv"], ["battery_to_home", "battery", "battery"], ["grid_to_home", "grid", "grid"]]],
  ["PV went to", "pv", [["pv_to_home", "home", "home"], ["pv_to_battery", "battery", "battery"], ["pv_to_grid", "grid", "grid"]]],
];

function ring(id, share) {
  const node = document.getElementById(id);
  node.querySelector(".ring-figure").textContent = percent(share);
  const part = Math.max(0, Math.min(100, share ?? 0));
  node.querySelector(".ring-value").style.strokeDasharray = `${part} ${100 - part}`;
}

function row([field, name, colour], energies) {
  const line = document.createElement("div");
  const swatch = document.createElement("span");
  swatch.className = `swatch ${colour}`;
  const term = document.createElement("dt");
  term.textContent = name;
  term.prepend(swatch);
  const value = document.createElement("dd");
  value.dataset.energy = field;
  value.textContent = energy(energies[field]);
  line.append(term, value);
  return line;
}

/** A bar of the parts of a whole, with their shares as text. */
function split([title, whole, parts], energies) {
  const node = document.createElement("div");
  node.className = "split";
  const bar = document.createElement("div");
  bar.className = "bar";
  bar.setAttribute("aria-hidden", "true");
  const shares = parts.map(([field, name, colour]) => {
    const share = energies[whole] > 0 ? (100 * (energies[field] ?? 0)) / energies[whole] : 0;
    const piece = document.createElement("span");
    piece.className = colour;
    piece.style.flexGrow = share.toFixed(2);
    if (share > 0) bar.append(piece);
    return [name, share];
  });
  // What PV delivers on the DC side and nobody gets is the inverter's own use.
  const lost = 100 - shares.reduce((sum, [, share]) => sum + share, 0);
  if (lost >= 1) shares.push(["losses", lost]);
  const line = document.createElement("p");
  const heading = document.createElement("span");
  heading.textContent = title;
  const text = document.createElement("span");
  text.className = "quiet";
  text.textContent = 
    energies[whole] > 0 ? shares.map(([name, share]) => `${name} ${percent(share)}`).join(", ") : "nothing yet";
  line.append(heading, text);
  node.append(line, bar);
  return node;
}

/** Show the totals of the day so far. */
export function showToday(totals) {
  ring("self-sufficiency", totals.self_sufficiency);
  ring("self-consumption", totals.self_consumption);
  const energies = totals.energy ?? {};
  document.getElementById("splits").replaceChildren(...SPLITS.map((entry) => split(entry, energies)));
  const rows = ROWS.map((entry) => row(entry, energies));
  for (const [device, used] of Object.entries(totals.submeters ?? {})) {
    rows.push(row([device, device.replaceAll("_", " "), "home"], { [device]: used }));
  }
  document.getElementById("energies").replaceChildren(...rows);
}

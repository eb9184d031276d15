// The recorder's own state: what is wrong and what to do, then each part.
// Takes /api/v1/health. Names come from the owner's settings: they are put in as text only.

import { bytes, count, duration } from "./format.js";

// What came late is averaged again after a while; a minute or two is nothing to tell.
const USUAL_LATE_S = 300;

function part({ name, word, lines = [], remedy = "", bad = false, idle = false }) {
  const item = document.createElement("li");
  item.className = `part${bad ? " bad" : ""}${idle ? " idle" : ""}`;
  const heading = document.createElement("h3");
  const dot = document.createElement("span");
  dot.className = "dot";
  dot.setAttribute("aria-hidden", "true");
  const state = document.createElement("span");
  state.className = "word";
  state.textContent = word;
  heading.append(dot, document.createTextNode(name), state);
  item.append(heading);
  for (const text of [...lines, remedy].filter(Boolean)) {
    const line = document.createElement("p");
    line.textContent = text;
    if (text === remedy) line.className = "remedy";
    item.append(line);
  }
  return item;
}

function device({ site, device: name, age_seconds: age, stale }, sites) {
  return part({
    name: sites > 1 ? `${name} of ${site}` : name,
    word: stale ? "no fresh sample" : "fresh",
    lines: [`last sample ${duration(age)} ago`],
    bad: stale,
  });
}

function source({ name, connections, clock_offset_seconds: offset, counts }) {
  const faults = ["crc_errors", "unanswered", "resyncs", "lost_samples"]
    .filter((kind) => counts[kind] > 0)
    .map((kind) => `${kind.replaceAll("_", " ").replace("crc", "CRC")} ${count(counts[kind])}`);
  return part({
    name: `Port ${name}`,
    word: connections ? `${count(connections)} connected` : "nobody connected",
    lines: [
      `${count(counts.frames ?? 0)} frames, ${count(counts.points ?? 0)} points`,
      faults.join(", "),
      Math.abs(offset) > 0 ? `the controller's clock is off by ${duration(Math.abs(offset))}: corrected` : "",
    ],
    idle: !connections,
  });
}

function queue({ points, bytes: size, oldest_age_seconds: age, problem, gaps }) {
  const gap = gaps?.length ? `${count(gaps.length)} gaps: points were given up` : "";
  return part({
    name: "Queue",
    word: problem ? "problem" : points ? `${count(points)} points wait` : "empty",
    lines: [points ? `${bytes(size)}, the oldest for ${duration(age)}` : "", gap],
    remedy: problem,
    bad: Boolean(problem),
  });
}

function influxdb(state) {
  if (!state.configured) {
    return part({
      name: "InfluxDB",
      word: "not configured",
      lines: ["The recorder keeps the data itself, for one that is named later."],
      idle: true,
    });
  }
  const problems = [state.problem, ...state.set_up_problems].filter(Boolean);
  const refused = state.dead_letters ? `${count(state.dead_letters)} refused` : "";
  const late = state.late_seconds > USUAL_LATE_S ? `averages of ${duration(state.late_seconds)} are due` : "";
  const { owed } = state;
  const history = owed ? `history of ${duration(owed.to - owed.from)} is still to be handed over` : "";
  return part({
    name: "InfluxDB",
    word: state.state,
    lines: [`${count(state.written)} points written`, refused, late, history],
    remedy: problems.join(" "),
    bad: problems.length > 0 || state.state === "stopped",
  });
}

function store({ problem, bytes: size, since }, times) {
  return part({
    name: "History",
    word: problem ? "problem" : bytes(size),
    lines: [since ? `since ${times.full(since)}` : "nothing yet"],
    remedy: problem,
    bad: Boolean(problem),
  });
}

function summary({ healthy, problems, devices }) {
  if (!healthy) return `${count(problems.length)} to mend, see above`;
  return devices.some((entry) => entry.stale) ? "No fresh sample" : "All is well";
}

/** Show what is wrong, as whole sentences, above everything else. */
export function showProblems(problems) {
  const notice = document.getElementById("notice");
  const list = document.getElementById("problems");
  const shown = [...list.children].map((item) => item.textContent);
  if (shown.join("\n") !== problems.join("\n")) {
    list.replaceChildren(
      ...problems.map((problem) => {
        const item = document.createElement("li");
        item.textContent = problem;
        return item;
      }),
    );
  }
  notice.hidden = problems.length === 0;
}

/** Show each part of the recorder. */
export function showSystem(health, times) {
  const sites = new Set(health.devices.map((entry) => entry.site)).size;
  document.getElementById("parts").replaceChildren(
    ...health.devices.map((entry) => device(entry, sites)),
    ...health.sources.map(source),
    queue(health.queue),
    influxdb(health.influxdb),
    store(health.store, times),
  );
  document.getElementById("system-summary").textContent = summary(health);
  document.getElementById("about").textContent =
    `ess-recorder ${health.version}, running since ${times.full(health.started)}. Times in ${health.timezone}.`;
}

// The page joined: the stream feeds the flow picture, the clock decides what is fresh, the rest is asked for.

import { ask } from "./api.js";
import { History } from "./charts.js";
import { FlowPicture } from "./flows.js";
import { Times, duration } from "./format.js";
import { ServerClock, Stream } from "./stream.js";
import { showProblems, showSystem } from "./system.js";
import { showToday } from "./today.js";

const TICK_MS = 500;
const ASK_EVERY_MS = 10000;
const HISTORY_EVERY_MS = 60000;
const ANNOUNCE_EVERY_S = 60;
const TRY_AGAIN_MS = 3000;

const element = (id) => document.getElementById(id);

class Page {
  #clock = new ServerClock();
  #picture = new FlowPicture();
  #history = new History(this.#clock);
  #times = new Times("UTC");
  #site = new URLSearchParams(location.search).get("site") ?? "";
  // Null until the stream has opened or failed for the first time.
  #connected = null;
  #staleAfter = 5;
  #flow = null;
  #charge = null;
  /** "measurement.field" of the state of charge, null where no device knows it. */
  #chargeField = null;
  #healthy = true;
  #announced = { state: "connecting", at: 0 };

  async start() {
    let latest;
    let health;
    try {
      [latest, health] = await Promise.all([ask("latest", { site: this.#site }), ask("health")]);
    } catch (error) {
      showProblems([error.message]);
      setTimeout(() => this.start(), TRY_AGAIN_MS);
      return;
    }
    this.#clock.tell(latest.time);
    this.#staleAfter = latest.stale_after_seconds;
    this.#chargeField = latest.state_of_charge;
    this.#history.chargeField = latest.state_of_charge;
    this.#site ||= latest.site;
    this.#times = new Times(health.timezone);
    this.#history.times = this.#times;
    this.#history.site = this.#site;
    element("site").textContent = this.#site;
    document.title = `${this.#site}: energy`;
    this.#offerSites(latest.sites);
    this.#healthy = health.healthy;
    this.#showHealth(health);
    latest.points.forEach((point) => this.#take(point));
    new Stream(this.#site, {
      onPoint: (point) => this.#take(point),
      onHealth: (state) => this.#hear(state),
      onConnected: (connected) => this.#connect(connected),
    });
    setInterval(() => this.#tick(), TICK_MS);
    setInterval(() => this.#askAll(), ASK_EVERY_MS);
    setInterval(() => document.hidden || this.#history.refresh(), HISTORY_EVERY_MS);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      this.#askAll();
      this.#history.refresh();
    });
    this.#tick();
    this.#askToday();
    this.#history.refresh();
  }

  #offerSites(sites) {
    const select = element("sites");
    select.replaceChildren(...sites.map((site) => new Option(site, site, false, site === this.#site)));
    element("site-choice").hidden = sites.length < 2;
    select.addEventListener("change", () => {
      location.search = new URLSearchParams({ site: select.value });
    });
  }

  #take(point) {
    if (point.site !== this.#site) return;
    const [measurement, field] = this.#chargeField?.split(".") ?? [];
    if (point.measurement === measurement && field in point.fields) {
      this.#charge = { time: point.time, value: point.fields[field] };
    }
    if (point.measurement !== "flow") return;
    this.#flow = point;
    this.#showFlow();
  }

  #showFlow() {
    const { fields, time } = this.#flow;
    // A charge that belongs to another moment is not shown beside this one.
    const fits = this.#charge !== null && Math.abs(this.#charge.time - time) <= this.#staleAfter;
    this.#picture.show(fields, fits ? this.#charge.value : undefined);
    element("now-time").textContent = `sample of ${this.#times.clock(time)}`;
    element("flows").dataset.sample = String(time);
    this.#tick();
  }

  #hear(state) {
    this.#clock.tell(state.time);
    this.#staleAfter = state.stale_after_seconds;
    showProblems(state.problems);
    if (state.healthy !== this.#healthy) this.#askHealth();
    this.#healthy = state.healthy;
  }

  #connect(connected) {
    // What was missed while the stream was away is asked for; what the page opened with was just asked.
    if (connected && this.#connected === false) {
      this.#askAll();
      this.#history.refresh();
    }
    this.#connected = connected;
    this.#tick();
  }

  /** Say how old the newest sample is: the one place that decides what is fresh. */
  #tick() {
    const now = this.#clock.now();
    const age = this.#flow === null || now === null ? null : Math.max(0, now - this.#flow.time);
    let state = "live";
    let text = age < 1.5 ? "Live" : `Live, ${duration(age)} ago`;
    if (age === null) {
      state = "stale";
      text = "No sample yet";
    } else if (age > this.#staleAfter) {
      state = "stale";
      text = `Stale: last sample ${duration(age)} ago`;
    } else if (!this.#connected) {
      state = "connecting";
      text = "Connecting";
    }
    if (!this.#connected && state === "stale") {
      state = "offline";
      text = age === null ? "No connection" : `No connection: last sample ${duration(age)} ago`;
    }
    document.body.dataset.state = state;
    if (element("state-text").textContent !== text) element("state-text").textContent = text;
    this.#announce(state, text);
  }

  /** Tell a screen reader a change of state at once, and the figures once a minute. */
  #announce(state, text) {
    const seconds = performance.now() / 1000;
    const changed = state !== this.#announced.state;
    if (!changed && (state !== "live" || seconds - this.#announced.at < ANNOUNCE_EVERY_S)) return;
    this.#announced = { state, at: seconds };
    element("announcement").textContent =
      state === "live" ? element("flows-summary").textContent : `${text}.`;
  }

  #askAll() {
    if (document.hidden) return;
    this.#askHealth();
    this.#askToday();
  }

  async #askHealth() {
    try {
      this.#showHealth(await ask("health"));
    } catch {
      // the stream says that the connection is gone
    }
  }

  #showHealth(health) {
    showProblems(health.problems);
    showSystem(health, this.#times);
  }

  async #askToday() {
    try {
      const { totals, from } = await ask("history", { site: this.#site, from: "today", step: "1h", fields: "flow.home" });
      showToday(totals);
      element("today-since").textContent = `since ${this.#times.minute(from)}`;
    } catch {
      // what is shown stays; the stream says that the connection is gone
    }
  }
}

new Page().start();

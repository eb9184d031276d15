// The event stream, kept open, and the recorder's clock as it tells it.
// Takes callbacks, never touches the page. Ages are by the recorder's clock: the browser's may be wrong.

const SILENT_AFTER_S = 15;
const REOPEN_AFTER_MS = 3000;

const monotonicSeconds = () => performance.now() / 1000;

/** The recorder's clock: what it said last, and the time that has passed since. */
export class ServerClock {
  #said = null;
  #heard = 0;

  tell(unixSeconds) {
    this.#said = unixSeconds;
    this.#heard = monotonicSeconds();
  }

  /** Unix seconds, or null before the recorder told its time. */
  now() {
    return this.#said === null ? null : this.#said + monotonicSeconds() - this.#heard;
  }
}

/** Events of one site; `onPoint(point)`, `onHealth(health)` and `onConnected(boolean)` are told. */
export class Stream {
  #source = null;
  #reopening = 0;
  #lastSign = 0;
  #site;
  #listeners;

  constructor(site, listeners) {
    this.#site = site;
    this.#listeners = listeners;
    this.#open();
    setInterval(() => this.#check(), 1000);
  }

  #open() {
    clearTimeout(this.#reopening);
    this.#source?.close();
    this.#lastSign = monotonicSeconds();
    const query = this.#site ? `?${new URLSearchParams({ site: this.#site })}` : "";
    const source = new EventSource(`/api/v1/events${query}`);
    this.#source = source;
    source.addEventListener("point", (event) => this.#take("onPoint", event));
    source.addEventListener("health", (event) => this.#take("onHealth", event));
    source.addEventListener("error", () => {
      this.#listeners.onConnected(false);
      // A browser gives up for good when the answer is not a stream, as of a recorder that restarts.
      if (source.readyState === EventSource.CLOSED) this.#reopenSoon();
    });
  }

  #reopenSoon() {
    clearTimeout(this.#reopening);
    this.#reopening = setTimeout(() => this.#open(), REOPEN_AFTER_MS);
  }

  #take(listener, event) {
    this.#lastSign = monotonicSeconds();
    this.#listeners.onConnected(true);
    this.#listeners[listener](JSON.parse(event.data));
  }

  #check() {
    if (monotonicSeconds() - this.#lastSign < SILENT_AFTER_S) return;
    this.#listeners.onConnected(false);
    this.#open();
  }
}

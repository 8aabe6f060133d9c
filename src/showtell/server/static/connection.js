// Whether the service is there, what it can do, and the key that it may need. Asks again by itself when it is gone.

import { readModels } from "./service.js";

const FIRST_WAIT = 1;
const LONGEST_WAIT = 15; // seconds between two tries
const KEY = "showtell-key";

export class Connection {
  // changed(state): "starting", "ready", "gone" or "key".
  constructor(changed) {
    this.state = "starting";
    this.model = null;
    this.limits = null;
    this.problem = null; // why it is gone
    this.keyRefused = false;
    this.#changed = changed;
    addEventListener("online", () => this.state === "gone" && this.connect());
    addEventListener("offline", () => this.state !== "key" && this.lose());
  }

  #changed;
  #timer = 0;
  #wait = FIRST_WAIT;
  #asking = null;

  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  }

  // Tries a key that somebody typed.
  async use(key) {
    sessionStorage.setItem(KEY, key.trim());
    await this.connect();
  }

  // Asks the service; where it is gone, goes on asking.
  connect() {
    clearTimeout(this.#timer);
    this.#asking ??= this.#ask().finally(() => (this.#asking = null));
    return this.#asking;
  }

  async #ask() {
    try {
      const found = await readModels(this.key);
      this.model = found.models[0];
      this.limits = found.limits;
      this.keyRefused = false;
      this.#wait = FIRST_WAIT;
      this.#become("ready");
    } catch (problem) {
      if (problem.kind === "unauthorized") this.refuse();
      else this.#later(problem);
    }
  }

  // The service did not take the key, or wants one.
  refuse() {
    this.keyRefused = this.key !== "";
    sessionStorage.removeItem(KEY);
    this.#become("key");
  }

  // The service did not answer something.
  lose() {
    if (this.state === "ready" || this.state === "starting") this.#later();
  }

  #later(problem = null) {
    this.problem = problem;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.connect(), 1000 * this.#wait);
    this.#wait = Math.min(LONGEST_WAIT, 2 * this.#wait);
    this.#become("gone");
  }

  #become(state) {
    const before = this.state;
    this.state = state;
    this.#changed(state, before);
  }
}

// The pictures and how far each is. A few are sent at a time; what the service cannot take now is tried again.
//
// States: waiting, sending, thinking (the service has it), later (busy; tried again at `until`), done, failed.

import { Problem, caption } from "./service.js";
import { shrink, SIDE, SMALL_SIDE } from "./shrink.js";

const AT_ONCE = 2;
const LONGEST_WAIT = 60; // seconds

export class Queue {
  // connection: says whether to go on. options(picture): of the request. changed(picture): its state is another.
  constructor({ connection, options, changed }) {
    this.pictures = [];
    this.#connection = connection;
    this.#options = options;
    this.#changed = changed;
  }

  #connection;
  #options;
  #changed;
  #running = 0;
  #heldUntil = 0; // a busy service is left alone by all pictures
  #timer = 0;

  add(picture) {
    this.pictures.push(picture);
    this.#become(picture, "waiting");
    this.go();
  }

  remove(picture) {
    this.pictures = this.pictures.filter((one) => one !== picture);
    picture.abort?.abort();
    this.go();
  }

  // Tries a picture that failed or waits for a busy service.
  retry(picture) {
    this.#heldUntil = 0;
    picture.side = SIDE;
    picture.tries = 0;
    this.#become(picture, "waiting");
    this.go();
  }

  get open() {
    return this.pictures.filter((one) => !["done", "failed"].includes(one.state)).length;
  }

  // Sends what can be sent now.
  go() {
    if (this.#connection.state !== "ready") return;
    const left = this.#heldUntil - Date.now();
    clearTimeout(this.#timer);
    if (left > 0) {
      this.#timer = setTimeout(() => this.go(), left);
      return;
    }
    while (this.#running < AT_ONCE) {
      const next = this.pictures.find((one) => one.state === "waiting" || one.state === "later");
      if (!next) return;
      this.#running += 1;
      this.#send(next).finally(() => {
        this.#running -= 1;
        this.go();
      });
    }
  }

  async #send(picture) {
    const abort = (picture.abort = new AbortController());
    picture.share = 0;
    this.#become(picture, "sending");
    try {
      const content = await shrink(picture.file, picture.side ?? SIDE);
      abort.signal.throwIfAborted();
      const limit = this.#connection.limits.body_bytes;
      if (content.size >= limit) throw new Problem("too-large", { detail: `${content.size} bytes` });
      picture.answer = await caption(content, picture.name, this.#options(picture), {
        key: this.#connection.key,
        signal: abort.signal,
        sent: (share) => {
          picture.share = share;
          this.#become(picture, share < 1 ? "sending" : "thinking");
        },
      });
      this.#become(picture, "done");
    } catch (error) {
      if (!abort.signal.aborted) this.#fail(picture, error);
    }
  }

  #fail(picture, error) {
    const problem = error instanceof Problem ? error : new Problem("other", { detail: String(error) });
    picture.problem = problem;
    if (problem.kind === "unreachable" || problem.kind === "unauthorized") {
      this.#become(picture, "waiting"); // it keeps its place
      if (problem.kind === "unreachable") this.#connection.lose();
      else this.#connection.refuse();
    } else if (problem.passes) {
      picture.tries = (picture.tries ?? 0) + 1;
      // Pages that were refused together should not come back together.
      const wait = Math.min(LONGEST_WAIT, problem.retryAfter * 1.5 ** (picture.tries - 1)) * (1 + Math.random() / 4);
      this.#heldUntil = Math.max(this.#heldUntil, Date.now() + 1000 * wait);
      picture.until = this.#heldUntil;
      this.#become(picture, "later");
    } else if (problem.kind === "too-slow" && picture.side !== SMALL_SIDE) {
      picture.side = SMALL_SIDE;
      this.#become(picture, "waiting");
    } else {
      this.#become(picture, "failed");
    }
  }

  #become(picture, state) {
    picture.state = state;
    if (this.pictures.includes(picture)) this.#changed(picture);
  }
}
